"""The evidence lower bound."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import bilevel_tf as bt

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

tfd = tfp.distributions
COUNT, FEATURES, NOISE, PRECISION = 30, 3, 4.0, 2.5


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(COUNT, FEATURES)) @ np.diag([1.0, 2.0, 0.5])
    y = x.sum(1, keepdims=True) + 0.5 * rng.normal(size=(COUNT, 1))
    dtype = keras.config.floatx()
    return x.astype(dtype), y.astype(dtype)


def space():
    return bt.HyperparameterSpace(
        a=bt.LogUniform(1e-3, 1e3, initial=PRECISION),
        unrelated=bt.Unconstrained(0.0),
        dtype=keras.config.floatx(),
    )


def linear_model(*, hp=None, data_size=COUNT, loss=None, method=None, **arguments):
    """y ~ N(x·w, 1/NOISE) with w ~ N(0, 1/PRECISION)."""
    hp = hp or space()
    prior = bt.NormalPrior(hp["a"], data_size=data_size)
    layer = bt.VariationalDense(
        1, prior=prior, use_bias=False, initial_scale=0.3, seed=1
    )
    inputs = keras.Input((FEATURES,))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    model.compile(
        **{
            "optimizer": keras.optimizers.SGD(0.01),
            "objective": bt.ELBO(),
            "method": method or bt.methods.DARTS(second_order=None),
            "loss": loss or bt.losses.GaussianLikelihood(NOISE),
            **arguments,
        }
    )
    return model


def full_batches(count):
    """A data set of one epoch with that many steps on all the data."""
    return tf.data.Dataset.from_tensors(data()).repeat(count)


def bound_and_gradients(model, count=300):
    """The objective and its gradients in μ and ρ over draws: means, standard errors."""
    x, y = data()

    @tf.function
    def draw():
        values = [v.value for v in model.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = model(x, training=True)
            loss = model.compute_loss(x, y, outputs, None, training=True)
        return [loss, *tape.gradient(loss, values)]

    found = [draw() for _ in range(count)]
    draws = [np.stack(values) for values in zip(*found, strict=True)]
    return [d.mean(0) for d in draws], [d.std(0) / np.sqrt(count) for d in draws]


def test_bound_in_closed_form_and_by_tfp(float64):
    model = linear_model()
    x, y = data()
    [posterior] = model.layers[1].posteriors()
    q, prior = posterior.distribution(), tfd.Normal(np.float64(0), PRECISION**-0.5)
    [mean, *_], [error, *_] = bound_and_gradients(model)

    squares = (y - x @ q.loc) ** 2 + x**2 @ q.scale.numpy() ** 2
    expected = 0.5 * np.mean(NOISE * squares - np.log(NOISE) + np.log(2 * np.pi))
    expected += tf.reduce_sum(tfd.kl_divergence(q, prior)) / COUNT
    assert abs(mean - expected) < 5 * error

    # TFP's own estimate of E_q[log p(y, w) − log q(w)].
    w = q.sample(20_000, seed=(1, 2))
    likelihood = tfd.Normal(tf.einsum("nf,sfo->sno", x, w), NOISE**-0.5).log_prob(y)
    terms = tf.reduce_sum(likelihood, [1, 2])
    terms += tf.reduce_sum(prior.log_prob(w) - q.log_prob(w), [1, 2])
    spread = np.std(terms) / np.sqrt(len(terms)) / COUNT
    assert abs(expected + np.mean(terms) / COUNT) < 5 * spread


def test_entropy_and_divergence_add_up(float64):
    # KL(q ‖ p) = −H[q] − E_q[log p], the last by TFP's Monte Carlo.
    model = linear_model()
    [posterior] = model.layers[1].posteriors()
    q, prior = posterior.distribution(), posterior.prior
    entropy = 0.5 * np.sum(np.log(2 * np.pi * np.e * q.scale.numpy() ** 2))
    terms = prior.distribution("float64").log_prob(q.sample(40_000, seed=(3, 4)))
    terms = np.sum(terms, (1, 2))
    error = np.std(terms) / np.sqrt(len(terms))
    assert abs(prior.kl_divergence(q) - (-entropy - terms.mean())) < 5 * error


def test_gradient_in_the_precision_is_that_of_the_divergence(float64):
    # ½ (Tr[A A_q⁻¹] + (μ − μ_q)ᵀ A (μ − μ_q) − u + ln|A⁻¹| − ln|A_q⁻¹|) / N
    model = linear_model()
    x, y = data()
    problem = model.network.problem(None, (x, y, None))
    _, _, [found] = problem.outer_gradients()
    [posterior] = model.layers[1].posteriors()
    mean, scale = np.asarray(posterior.mean), np.asarray(posterior.scale())
    in_precision = 0.5 * (np.sum(scale**2 + mean**2) - mean.size / PRECISION) / COUNT
    with tf.GradientTape() as tape:
        tape.watch(problem.hyperparameters)
        value = model.hyperparameters.constrain(problem.hyperparameters[0])["a"]
    slope = tape.gradient(value, problem.hyperparameters[0])
    np.testing.assert_allclose(found, in_precision * slope, rtol=1e-10)


def exact_posterior(model):
    """μ and σ of the best normal with independent entries."""
    x, y = data()
    precision = NOISE * x.T @ x + PRECISION * np.eye(FEATURES)
    mean = np.linalg.solve(precision, NOISE * x.T @ y)
    return mean, np.diag(precision)[:, None] ** -0.5


@pytest.mark.parametrize("estimator", ["local", "flipout", "shared"])
def test_optimum_of_a_linear_model_is_the_exact_posterior(float64, estimator):
    # The bound is convex in μ and has one stationary point.
    model = linear_model()
    model.layers[1].estimator = estimator
    mean, scale = exact_posterior(model)
    raw = scale + np.log(-np.expm1(-scale))
    model.layers[1].set_weights([mean, raw])
    [_, *gradients], [_, *errors] = bound_and_gradients(model)
    for gradient, error in zip(gradients, errors, strict=True):
        assert np.all(np.abs(gradient) < 5 * error)
    model.layers[1].set_weights([mean + 0.3, raw + 1.5])
    [_, *gradients], [_, *errors] = bound_and_gradients(model)
    for gradient, error in zip(gradients, errors, strict=True):
        assert np.any(np.abs(gradient) > 10 * error)


def test_fit_finds_the_exact_posterior():
    model = linear_model(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(0.1, 400)
        ),
        hyper_optimizer=keras.optimizers.SGD(0.0),
    )
    model.fit(full_batches(400), shuffle=False, verbose=0)
    [posterior] = model.layers[1].posteriors()
    mean, scale = exact_posterior(model)
    np.testing.assert_allclose(posterior.mean, mean, atol=0.5 * scale.min())
    np.testing.assert_allclose(posterior.scale(), scale, rtol=0.2)


@pytest.mark.parametrize(
    "method",
    [
        bt.methods.DARTS(second_order=None, train_steps=1),
        bt.methods.DARTS(0.01, train_steps=1),
        bt.methods.T1T2(train_steps=1),
        bt.ConjugateGradient(train_steps=1),
        bt.methods.Greedy(train_steps=1),
    ],
    ids=lambda method: f"{type(method).__name__}_{method.get_config().get('rate')}",
)
def test_methods_raise_a_precision_that_is_too_low(method):
    hp = space()
    hp.assign({"a": 0.01})
    optimizer = keras.optimizers.Adam(0.02)
    model = linear_model(hp=hp, method=method, hyper_optimizer=optimizer)
    history = model.fit(*data(), batch_size=COUNT, epochs=10, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert hp.values()["a"] > 0.0105


def test_direct_gradient_finds_the_precision_that_graves_gives():
    hp = space()
    model = linear_model(
        hp=hp,
        method=bt.methods.DARTS(second_order=None, train_steps=1),
        optimizer=keras.optimizers.SGD(0.0),
        hyper_optimizer=keras.optimizers.Adam(0.05),
    )
    model.fit(full_batches(150), shuffle=False, verbose=0)
    [posterior] = model.layers[1].posteriors()
    expected = 1 / np.mean(np.square(posterior.mean) + posterior.scale() ** 2)
    np.testing.assert_allclose(hp.values()["a"], expected, rtol=1e-2)


def test_gradient_in_the_noise_precision(float64):
    # ½ (E (y − f)² − 1/λ), at the draw that the objective is taken at.
    hp = bt.HyperparameterSpace(
        a=bt.Positive(initial=1.0), noise=bt.Positive(initial=NOISE), dtype="float64"
    )
    model = linear_model(hp=hp, loss=bt.losses.GaussianLikelihood(hp["noise"]))
    x, y = data()
    problem = model.network.problem(None, (x, y, None))
    _, _, [found] = problem.outer_gradients()
    network = model.network
    outputs = network.predict(problem.weights, problem.hyperparameters, (x,))
    expected = 0.5 * (np.mean((y - outputs) ** 2) - 1 / NOISE)
    np.testing.assert_allclose(found[1], expected * (1 - np.exp(-NOISE)), rtol=1e-10)


# Errors


def test_loss_must_be_a_likelihood():
    with pytest.raises(ValueError, match="ELBO needs `loss` to be"):
        linear_model(loss="mse")


def test_model_needs_a_variational_layer():
    hp = space()
    inputs = keras.Input((FEATURES,))
    layer = keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["a"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    with pytest.raises(ValueError, match="ELBO needs weights with a posterior"):
        model.compile(
            loss=bt.losses.GaussianLikelihood(),
            objective=bt.ELBO(),
            method=bt.methods.T1T2(),
        )


def test_hyperparameter_in_a_regularizer():
    hp = space()
    inputs = keras.Input((FEATURES,))
    x = keras.layers.Dense(2, kernel_regularizer=bt.L2(hp["a"]))(inputs)
    outputs = bt.VariationalDense(1, prior=bt.NormalPrior(data_size=COUNT))(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    with pytest.raises(ValueError, match="'a' is tuned in a regularizer of"):
        model.compile(
            loss=bt.losses.GaussianLikelihood(),
            objective=bt.ELBO(),
            method=bt.methods.T1T2(),
        )


def test_priors_must_agree_on_the_size_of_the_data():
    hp = space()
    inputs = keras.Input((FEATURES,))
    x = bt.VariationalDense(2, prior=bt.NormalPrior(data_size=5))(inputs)
    outputs = bt.VariationalDense(1, prior=bt.NormalPrior(data_size=COUNT))(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    with pytest.raises(ValueError, match=r"one `data_size`.*5 in .*30 in"):
        model.compile(
            loss=bt.losses.GaussianLikelihood(),
            objective=bt.ELBO(),
            method=bt.methods.T1T2(),
        )


def test_size_of_the_data_must_be_that_of_the_priors():
    with pytest.raises(ValueError, match=r"data_size=31, and training has 30"):
        linear_model(data_size=31).fit(*data(), verbose=0)


def test_size_of_the_data_is_after_the_split():
    model = linear_model(data_size=24)
    model.fit(*data(), validation_split=0.2, verbose=0)


def test_sample_weights_are_refused():
    with pytest.raises(ValueError, match="`sample_weight` must be left out"):
        linear_model().fit(*data(), sample_weight=np.ones(COUNT), verbose=0)


@pytest.mark.parametrize("objective", [bt.ELBO(), bt.objectives.ValidationLoss()])
def test_best_response_cannot_reach_a_prior(objective):
    with pytest.raises(
        ValueError, match=r"DeltaSTN (fits a best|fits how the weights)"
    ):
        linear_model(objective=objective, method=bt.DeltaSTN())


def test_best_response_beside_a_prior_names_it():
    hp = space()
    inputs = keras.Input((FEATURES,))
    prior = bt.NormalPrior(hp["a"], data_size=COUNT)
    x = bt.VariationalDense(2, prior=prior)(bt.HyperDense(2)(inputs))
    model = bt.BilevelModel(inputs, x, hyperparameters=hp)
    with pytest.raises(ValueError, match="'a' acts on VariationalDense"):
        model.compile(loss="mse", method=bt.DeltaSTN())


def test_one_prediction_per_example():
    prior = bt.NormalPrior(data_size=COUNT)
    inputs = keras.Input((5, FEATURES))
    outputs = bt.VariationalDense(2, prior=prior)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(ValueError, match=r"mean over all positions.*\(None, 5, 2\)"):
        model.compile(loss=loss, method=bt.methods.T1T2(), objective=bt.ELBO())


@pytest.mark.parametrize("tuned", [None, "learning_rate", "weight_decay"])
def test_weight_decay_is_refused(tuned):
    hp = space()
    optimizer = keras.optimizers.AdamW(0.01)
    if tuned:
        optimizer = bt.TunedOptimizer(optimizer, **{tuned: hp["a"]})
    with pytest.raises(ValueError, match="`weight_decay` of the optimizer must be"):
        linear_model(hp=hp, optimizer=optimizer, method=bt.Unrolled(2))


def penalized_model(**penalty):
    inputs = keras.Input((FEATURES,))
    plain = keras.Model(inputs, keras.layers.Dense(1, name="last", **penalty)(inputs))
    hp = space()
    prior = bt.NormalPrior(hp["a"], data_size=COUNT)
    return plain, hp, prior


@pytest.mark.parametrize(
    "name", ["kernel_regularizer", "bias_regularizer", "activity_regularizer"]
)
def test_penalties_are_no_part_of_the_bound(name):
    plain, hp, prior = penalized_model(**{name: "l2"})
    arguments = {
        "loss": bt.losses.GaussianLikelihood(),
        "objective": bt.ELBO(),
        "method": bt.methods.DARTS(second_order=None),
    }
    model = bt.BilevelModel.from_keras(plain, hp, tune={"last": {"prior": prior}})
    with pytest.raises(ValueError, match=f"`{name}` of 'last' must be None"):
        model.compile(**arguments)
    tune = {"last": {"prior": prior, name: None}}
    bt.BilevelModel.from_keras(plain, hp, tune=tune).compile(**arguments)


@pytest.mark.parametrize("given", ["dataset", "class_weight"])
def test_weights_that_come_otherwise_are_refused(given):
    x, y = data()
    weighted = tf.data.Dataset.from_tensor_slices((x, y, np.ones(COUNT))).batch(10)
    arguments = {
        "dataset": {"x": weighted},
        "class_weight": {"x": x, "y": np.ones(COUNT), "class_weight": {1: 2.0}},
    }[given]
    model = linear_model(method=bt.methods.GravesUpdate(), hp=only_precision())
    with pytest.raises(ValueError, match="`sample_weight` must be left out"):
        model.fit(**arguments, verbose=0)


def only_precision():
    return bt.HyperparameterSpace(a=bt.LogUniform(1e-3, 1e3, initial=PRECISION))


def test_method_must_be_given():
    inputs = keras.Input((FEATURES,))
    outputs = keras.layers.Dense(1)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space())
    with pytest.raises(ValueError, match="`method` must be given with ELBO"):
        model.compile(loss="mse", objective=bt.ELBO())
