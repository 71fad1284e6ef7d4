"""Keras models under methods that differentiate training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.training.models import data

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

METHODS = {
    "ExactImplicit": bt.methods.ExactImplicit(train_steps=2),
    "ConjugateGradient": bt.ConjugateGradient(train_steps=2, damping=0.1),
    "HOAG": bt.methods.HOAG(damping=0.5, train_steps=2),
    "Neumann": bt.Neumann(3, train_steps=2),
    "T1T2": bt.methods.T1T2(train_steps=2),
    "EmpiricalFisher": bt.methods.EmpiricalFisher(train_steps=2, damping=0.5),
    "GaussNewton": bt.methods.GaussNewton(train_steps=2),
    "Greedy": bt.methods.Greedy(train_steps=2),
    "DARTS": bt.methods.DARTS(0.5, train_steps=2),
    "DARTS, differences": bt.methods.DARTS(0.5, "finite_difference", train_steps=2),
    "Unrolled": bt.Unrolled(3, train_steps=2),
    "forward, real time": bt.methods.ForwardMode(real_time=True, train_steps=2),
    "checkpointed": bt.Unrolled(4, truncation=3, checkpointed=True, train_steps=2),
}


def crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(method, random=True, **arguments):
    """A classifier with a penalty factor per weight, noise, and batch statistics."""
    hp = bt.HyperparameterSpace(
        l2=bt.LogUniform(1e-5, 1.0, initial=np.full((6, 8), 1e-2)),
        noise=bt.Uniform(0.0, 2.0, initial=0.3),
        seed=3,
    )
    inputs = keras.Input((6,))
    x = bt.HyperGaussianNoise(hp["noise"], seed=4)(inputs) if random else inputs
    x = keras.layers.Dense(8, "tanh", kernel_regularizer=bt.L2(hp["l2"]))(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2 if random else 0.0, seed=5)(x)
    model = bt.BilevelModel(inputs, keras.layers.Dense(3)(x), hyperparameters=hp)
    defaults = {
        "optimizer": keras.optimizers.Adam(0.01),
        "hyper_optimizer": keras.optimizers.SGD(0.1, momentum=0.5),
        # Made here: a loss computes in the float type of its making.
        "loss": crossentropy(),
    }
    model.compile(method=method, **{**defaults, **arguments})
    return model


def fit(model, epochs=1, **arguments):
    x, y = data(44)
    arguments = {"x": x, "y": y, "batch_size": 8, **arguments}
    return model.fit(
        validation_data=data(20, seed=1),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        **arguments,
    )


def stacked(*arrays):
    """A training batch as outer steps get it."""
    return tuple(None if a is None else tf.constant(a)[None] for a in arrays)


class Ridge:
    """A linear Keras model whose hypergradient is known: one factor per weight."""

    def __init__(self, method):
        generator = np.random.default_rng(0)
        self.x, self.y = generator.normal(size=(20, 4)), generator.normal(size=(20, 1))
        self.valid = generator.normal(size=(9, 4)), generator.normal(size=(9, 1))
        hp = bt.HyperparameterSpace(l2=bt.Positive(generator.uniform(0.5, 1, (4, 1))))
        inputs = keras.Input((4,))
        layer = keras.layers.Dense(
            1, use_bias=False, kernel_regularizer=bt.L2(hp["l2"])
        )
        self.model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
        self.model.compile(
            "sgd", hyper_optimizer=keras.optimizers.SGD(1.0), method=method, loss="mse"
        )
        self.space = hp
        layer.kernel.assign(self.optimum(tf.convert_to_tensor(hp.unconstrained)))

    def optimum(self, unconstrained):
        factors = tf.reshape(tf.nn.softplus(unconstrained), [-1])
        hessian = self.x.T @ self.x / 20 + tf.linalg.diag(factors)
        return tf.linalg.solve(hessian, self.x.T @ self.y / 20)

    def hypergradient(self):
        with tf.GradientTape() as tape:
            h = tf.convert_to_tensor(self.space.unconstrained)
            tape.watch(h)
            error = self.valid[0] @ self.optimum(h) - self.valid[1]
            loss = tf.reduce_mean(error**2)
        return tape.gradient(loss, h)


@pytest.mark.parametrize(
    "method",
    [
        bt.methods.ExactImplicit(),
        bt.ConjugateGradient(4, 1e-12),
        bt.Neumann(2000),
        bt.methods.GaussNewton(4, 1e-12, damping=0.0),
    ],
)
@pytest.mark.usefixtures("float64")
def test_the_outer_step_follows_the_closed_form(method):
    ridge = Ridge(method)
    expected = ridge.hypergradient()
    before = np.array(ridge.space.unconstrained)
    logs = ridge.model.outer_train_step((ridge.valid, stacked(ridge.x, ridge.y)))
    moved = before - np.array(ridge.space.unconstrained)
    np.testing.assert_allclose(moved, expected, rtol=1e-7)
    assert logs["hypergradient_converged"] == 1


@pytest.mark.usefixtures("float64")
def test_the_problem_is_that_of_fit():
    model = network(METHODS["T1T2"])
    x, y = data(8)
    weight = np.linspace(0.5, 2, 8)
    problem = model.network.problem(stacked(x, y, weight), (*data(6, seed=1), None))
    seeds = [v for v in model.variables if v.name == "seed_generator_state"]
    before = [np.array(v) for v in model.variables]
    loss = problem.inner(problem.weights, problem.hyperparameters)
    again = problem.inner(problem.weights, problem.hyperparameters)
    assert loss == again
    outer, _, direct = problem.outer_gradients()
    assert direct == [None]
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert len(seeds) == 3
    expected = model.compute_loss(x, y, model(x, training=True), weight, training=True)
    np.testing.assert_allclose(loss, expected)
    assert any(int(seed.value[1]) > 0 for seed in seeds)
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    logits = model(data(6, seed=1)[0], training=False)
    expected = crossentropy()(data(6, seed=1)[1], logits)
    np.testing.assert_allclose(outer, expected)


@pytest.mark.usefixtures("float64")
def test_the_parts_and_the_examples_make_up_the_loss():
    model = network(METHODS["T1T2"])
    x, y = data(8)
    weight = np.linspace(0.5, 2, 8)
    for weights in (None, weight):
        problem = model.network.problem(stacked(x, y, weights), (x, y, None))
        point = problem.weights, problem.hyperparameters
        expected = problem.inner(*point)
        np.testing.assert_allclose(problem.parts(*point), expected)
        losses = problem.example_losses(*point)
        assert losses.shape == (8,)
        np.testing.assert_allclose(tf.reduce_mean(losses), expected)


@pytest.mark.usefixtures("float64")
def test_example_losses_are_those_of_the_examples():
    ridge = Ridge(bt.methods.EmpiricalFisher())
    problem = ridge.model.network.problem(
        stacked(ridge.x, ridge.y, None), (*ridge.valid, None)
    )
    w = problem.weights[0]
    found = problem.example_losses(problem.weights, problem.hyperparameters)
    squares = np.square(ridge.x @ w - ridge.y)[:, 0]
    penalty = np.sum(ridge.space.values()["l2"] * np.square(w))
    np.testing.assert_allclose(found, squares + penalty)


@pytest.mark.usefixtures("float64")
def test_the_derivative_in_a_noise_strength_is_right():
    model = network(METHODS["T1T2"])
    x, y = data(8)
    problem = model.network.problem(stacked(x, y, None), (x, y, None))
    h = problem.hyperparameters[0]

    def loss(h):
        return problem.inner(problem.weights, [h])

    with tf.GradientTape() as tape:
        tape.watch(h)
        value = loss(h)
    found = tape.gradient(value, h)
    for index in (0, 17, 48):
        step = 1e-6 * tf.one_hot(index, 49, dtype=h.dtype)
        expected = (loss(h + step) - loss(h - step)) / 2e-6
        np.testing.assert_allclose(found[index], expected, rtol=1e-6)
    assert abs(found[48]) > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_fit_trains_and_tunes(name):
    model = network(METHODS[name])
    before = np.array(model.hyperparameters.unconstrained)
    history = fit(model, 4).history
    assert history["loss"][-1] < history["loss"][0]
    after = np.array(model.hyperparameters.unconstrained)
    assert np.all(after != before)
    assert {"l2_mean", "noise", "val_loss"} <= set(history)
    assert model.progress.outer_steps == 12


def test_xla_finds_the_same():
    values = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = network(METHODS["Neumann"], random=False, jit_compile=jit)
        fit(model)
        values.append(np.array(model.hyperparameters.unconstrained))
    np.testing.assert_allclose(*values, rtol=1e-4)


def test_another_method_takes_away_the_state_of_the_last():
    model = network(METHODS["HOAG"])
    count = len(model.variables)
    model.compile("sgd", method=METHODS["Neumann"], loss="mse")
    assert len(model.network_state) == 0
    assert len(model.variables) == count - 7
    model.compile("sgd", method=METHODS["HOAG"], loss="mse")
    assert len(model.network_state) == 7
    assert len(model.variables) == count


class Mixture(keras.layers.Layer):
    """One of DARTS's mixed operations: a tuned softmax over two activations."""

    def __init__(self, weights, **kwargs):
        super().__init__(**kwargs)
        self.mixture = weights

    def call(self, inputs):
        share = keras.ops.softmax(self.mixture.value())
        share = keras.ops.cast(share, inputs.dtype)
        return share[0] * keras.ops.tanh(inputs) + share[1] * keras.ops.relu(inputs)


@pytest.mark.usefixtures("float64")
def test_architecture_weights_have_a_direct_part():
    hp = bt.HyperparameterSpace(mixture=bt.Unconstrained([0.3, -0.2]))
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4)(inputs)
    outputs = keras.layers.Dense(3)(Mixture(hp["mixture"])(x))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    x, y = data(12, seed=1)
    start = np.array(hp.unconstrained)

    def loss(h):
        hp.unconstrained.assign(h)
        return float(crossentropy()(y, model(x, training=False)))

    steps = 1e-5 * np.eye(2)
    expected = [(loss(start + s) - loss(start - s)) / 2e-5 for s in steps]
    hp.unconstrained.assign(start)
    found = {}
    for name, method in {
        "first order": bt.methods.DARTS(0.1, None),
        "second order": bt.methods.DARTS(0.1),
        "implicit": bt.ConjugateGradient(damping=1e8),
    }.items():
        sgd = keras.optimizers.SGD(1.0)
        model.compile("sgd", hyper_optimizer=sgd, method=method, loss=crossentropy())
        model.outer_train_step(((x, y), stacked(*data(12))))
        found[name] = start - np.array(hp.unconstrained)
        hp.unconstrained.assign(start)
    np.testing.assert_allclose(found["first order"], expected, rtol=1e-6)
    # So large a damping leaves nothing but the direct part.
    np.testing.assert_allclose(found["implicit"], expected, rtol=1e-5)
    assert np.max(np.abs(found["second order"] - expected)) > 1e-4


def test_outer_steps_do_not_retrace():
    model = network(METHODS["ConjugateGradient"])
    traces = []
    step = model.stacked_outer_step
    model.stacked_outer_step = lambda data: traces.append(1) or step(data)
    fit(model, 3)
    assert len(traces) == 1


def test_outer_steps_leave_batch_statistics_and_seeds_alone():
    model = network(METHODS["Neumann"])
    before = [np.array(v) for v in model.non_trainable_variables]
    batch = data(8)
    model.outer_train_step((data(6, seed=1), stacked(*batch)))
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        same = np.array_equal(variable, value)
        assert same == (variable is not model.hyperparameters.unconstrained)


@pytest.mark.parametrize("kind", ["dataset", "ragged dataset", "PyDataset"])
def test_training_batches_are_drawn_from_any_data(kind):
    x, y = data(44)
    if kind == "PyDataset":
        source = Batches(workers=1)
    else:
        size = 8 if kind == "ragged dataset" else 11
        source = tf.data.Dataset.from_tensor_slices((x, y)).batch(size)
    model = network(METHODS["Neumann"])
    model.fit(source, validation_data=data(20, seed=1), epochs=2, verbose=0)
    assert model.progress.outer_steps > 0


class Batches(keras.utils.PyDataset):
    """Six batches, the last a smaller one."""

    @property
    def num_batches(self):
        return 6

    def __getitem__(self, index):
        return tuple(array[8 * index : 8 * index + 8] for array in data(44))


def test_a_generator_has_no_fixed_batches():
    model = network(bt.Unrolled(2, fixed_batches=True))
    batches = (data(8) for _ in range(4))
    with pytest.raises(TypeError, match=r"`x` must be arrays, .* type generator"):
        model.fit(batches, validation_data=data(20))


def test_class_weight_is_refused():
    with pytest.raises(ValueError, match="Use `sample_weight` instead"):
        fit(network(METHODS["Neumann"]), class_weight={0: 1.0, 1: 2.0, 2: 1.0})


@pytest.mark.parametrize(("name", "steps"), [("Neumann", 1), ("HOAG", 4)])
def test_it_goes_on_as_if_never_saved(tmp_path, name, steps):
    options = {"steps_per_execution": steps}
    straight = network(METHODS[name], **options)
    fit(straight, 2)
    fit(straight, 1)
    keras.utils.set_random_seed(0)
    stopped = network(METHODS[name], **options)
    fit(stopped, 2)
    stopped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.method.get_config() == METHODS[name].get_config()
    state = stopped.network_state
    for key, variable in state.items():
        np.testing.assert_array_equal(variable, loaded.network_state[key])
        assert np.any(np.array(variable))
    assert len(state) == (7 if name == "HOAG" else 0)
    fit(loaded, 1)
    for a, b in zip(straight.variables, loaded.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=b.path)


def test_it_exports_and_converts(tmp_path):
    model = network(METHODS["Neumann"])
    fit(model)
    x, _ = data(5)
    model.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    served = saved.serve(x)
    np.testing.assert_allclose(served, model.predict(x, verbose=0), rtol=1e-5)
    converted = model.to_keras().predict(x, verbose=0)
    np.testing.assert_allclose(converted, served, rtol=1e-5)


def test_it_exports_with_a_tuned_learning_rate(tmp_path):
    hp = bt.HyperparameterSpace(rate=bt.LogUniform(1e-4, 1.0, initial=0.05))
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(3)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    optimizer = bt.TunedOptimizer("adam", learning_rate=hp["rate"])
    method = bt.Unrolled(steps=2)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        method=method,
    )
    fit(model)
    x, _ = data(5)
    model.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(saved.serve(x), model.predict(x, verbose=0), rtol=1e-5)
    fit(model)


def refuse(space, layers, message, method=None):
    inputs = x = keras.Input((6,))
    for layer in layers:
        x = layer(x)
    model = bt.BilevelModel(inputs, x, hyperparameters=space)
    with pytest.raises(ValueError, match=message):
        model.compile("sgd", method=method or bt.Neumann(), loss="mse")


def test_a_dropout_rate_cannot_be_reached():
    hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.9, initial=0.3))
    layers = [bt.HyperDropout(hp["rate"]), keras.layers.Dense(1)]
    refuse(hp, layers, "Neumann cannot reach 'rate', the rate of the dropout.*DeltaSTN")


def test_a_whole_number_cannot_be_reached():
    hp = bt.HyperparameterSpace(holes=bt.Integer(0, 5, initial=1))
    refuse(hp, [keras.layers.Dense(1)], "cannot reach 'holes', a whole number")


def test_a_prior_has_no_use():
    prior = bt.scales.GaussianHyperprior(0.1, 1.0)
    hp = bt.HyperparameterSpace(l2=bt.Positive(0.1, prior=prior))
    layers = [keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["l2"]))]
    refuse(hp, layers, "`prior` of 'l2' has no effect under Neumann")


def test_a_response_takes_no_factor_per_weight():
    hp = bt.HyperparameterSpace(l2=bt.Positive(np.ones((6, 1))))
    layers = [bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))]
    message = r"DeltaSTN needs one penalty factor.*'l2' of shape \(6, 1\)"
    refuse(hp, layers, message, bt.DeltaSTN())


def test_factors_that_do_not_fit_are_refused():
    hp = bt.HyperparameterSpace(l2=bt.Positive(np.ones((5, 1))))
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    message = r"'l2' of shape \(5, 1\) cannot be the penalty factor.*\(6, 1\)"
    with pytest.raises(ValueError, match=message):
        bt.BilevelModel(inputs, outputs, hyperparameters=hp)
