"""Hyperparameters that nothing uses, and those that layers add to their own judge."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt

Dense = keras.layers.Dense
T1T2 = bt.methods.T1T2
IMPLICIT = {"method": T1T2()}


def compiled(build, scale=None, **arguments):
    """A compiled model whose outputs `build` makes of inputs and a hyperparameter."""
    hp = bt.HyperparameterSpace(a=scale or bt.Uniform(0.1, 0.9, initial=0.5))
    inputs = keras.Input((3,))
    model = bt.BilevelModel(inputs, build(inputs, hp["a"]), hyperparameters=hp)
    if arguments.get("optimizer") == "tuned":
        arguments["optimizer"] = bt.TunedOptimizer("sgd", learning_rate=hp["a"])
    elif arguments.get("optimizer") == "function":
        rate = lambda h: h["a"]  # noqa: E731
        arguments["optimizer"] = bt.TunedOptimizer("sgd", learning_rate=rate)
    model.compile(**{"loss": "mse", "method": bt.DeltaSTN(), **arguments})
    return model


def data(count=16):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype("float32")
    return x, x.sum(1, keepdims=True)


def penalised(a, layer=bt.HyperDense, **arguments):
    return layer(1, kernel_regularizer=bt.L2(a), **arguments)


def two_heads(inputs, a, shared=False):
    x = bt.HyperDense(4)(inputs) if shared else inputs
    return [bt.HyperDense(1, name="one")(x), penalised(a, name="two")(x)]


def frozen(inputs, a):
    return bt.HyperDense(1)(penalised(a, trainable=False)(inputs))


def frozen_nested(inputs, a):
    nested = keras.Sequential([keras.Input((3,)), penalised(a)])
    nested.trainable = False
    return bt.HyperDense(1)(nested(inputs))


class Constant(keras.layers.Layer):
    """Adds a loss that no weight is in."""

    def __init__(self, a, **kwargs):
        super().__init__(**kwargs)
        self.a = a

    def call(self, inputs):
        self.add_loss(bt.hyperparameters.mean_value(self.a))
        return inputs


class Dead(keras.layers.Layer):
    """Holds a hyperparameter and does not look at it."""

    def __init__(self, a, **kwargs):
        super().__init__(**kwargs)
        self.a = a

    def call(self, inputs):
        bt.hyperparameters.value_for(self.a, inputs)
        return inputs


WITHOUT_ADDED = bt.objectives.ValidationLoss(added_losses=False)
USELESS = {
    "nowhere": (lambda x, a: bt.HyperDense(1)(x), {}),
    "nowhere, implicit": (lambda x, a: Dense(1)(x), IMPLICIT),
    "penalty of a frozen layer": (frozen, {}),
    "penalty of a frozen layer, implicit": (frozen, IMPLICIT),
    "penalty in a frozen model": (frozen_nested, {}),
    "head without a loss": (two_heads, {"loss": ["mse", None]}),
    "head without a loss, by name": (two_heads, {"loss": {"one": "mse", "two": None}}),
    "head that is not judged": (two_heads, {"outer_loss": ["mse", None]}),
    "held and not used": (lambda x, a: bt.HyperDense(1)(Dead(a)(x)), {}),
    "a loss without weights": (
        lambda x, a: Dense(1)(Constant(a)(x)),
        {**IMPLICIT, "objective": WITHOUT_ADDED},
    ),
    "first order of DARTS": (
        lambda x, a: penalised(a, Dense)(x),
        {"method": bt.methods.DARTS(second_order=None)},
    ),
    "cross-validation": (
        lambda x, a: Dense(1)(x),
        {**IMPLICIT, "objective": bt.CrossValidation(2)},
    ),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_hyperparameter_that_reaches_nothing_is_named(name):
    build, arguments = USELESS[name]
    with pytest.raises(ValueError, match="depends on hyperparameter 'a'"):
        compiled(build, **arguments)


def noise_above_all_weights(x, a):
    return bt.HyperDropout(a)(bt.HyperDense(1)(x))


def read_in_a_lambda(x, a):
    scaled = keras.layers.Lambda(lambda t: t * a.value(), output_shape=(3,))
    return Dense(1)(scaled(x))


def rounded(x, a):
    def call(t):
        shift = tf.cast(tf.reduce_mean(a.value()), tf.int32)
        return tf.roll(t, shift, 1)

    return bt.HyperDense(1)(keras.layers.Lambda(call, output_shape=(3,))(x))


def inside_wrappers(x, a):
    x = keras.layers.Reshape((3, 1))(x)
    x = keras.layers.TimeDistributed(penalised(a, Dense))(x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(2, kernel_regularizer="l2"))(x)
    return Dense(1)(x)


UNROLLED = {"method": bt.Unrolled(2)}
USEFUL = {
    "dropout": (lambda x, a: bt.HyperDense(1)(bt.HyperDropout(a)(x)), {}),
    "dropout above all weights": (noise_above_all_weights, {}),
    "penalty": (lambda x, a: penalised(a)(x), {}),
    "penalty of a bias": (
        lambda x, a: bt.HyperDense(1, bias_regularizer=bt.L1(a))(x),
        {},
    ),
    "shared trunk below a head that is not judged": (
        lambda x, a: two_heads(x, a, shared=True),
        {"outer_loss": ["mse", None]},
    ),
    "clipped together": (
        two_heads,
        {
            "optimizer": keras.optimizers.SGD(global_clipnorm=1.0),
            "outer_loss": ["mse", None],
        },
    ),
    "lambda": (read_in_a_lambda, IMPLICIT),
    "rounded": (rounded, {}),
    "wrappers": (inside_wrappers, IMPLICIT),
    "optimizer": (lambda x, a: Dense(1)(x), {**UNROLLED, "optimizer": "tuned"}),
    "optimizer, function": (
        lambda x, a: Dense(1)(x),
        {**UNROLLED, "optimizer": "function"},
    ),
    "cross-validation": (
        lambda x, a: penalised(a, Dense)(x),
        {**IMPLICIT, "objective": bt.CrossValidation(2)},
    ),
}


@pytest.mark.parametrize("name", USEFUL)
def test_a_hyperparameter_that_reaches_something_is_taken(name):
    build, arguments = USEFUL[name]
    assert compiled(build, **arguments).waiting_names == frozenset()


def test_only_the_useless_ones_are_named():
    hp = bt.HyperparameterSpace({f"h{i}": bt.Positive(1.0) for i in range(9)})
    inputs = keras.Input((3,))
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["h0"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    with pytest.raises(ValueError, match="'h1', 'h2', 'h3', 'h4', 'h5', …: nei"):
        model.compile(loss="mse")


def test_weights_of_examples_are_known_in_fit():
    scale = bt.Uniform(0.0, 1.0, initial=np.full(16, 0.5))
    model = compiled(lambda x, a: Dense(1)(x), scale, **IMPLICIT)
    x, y = data()
    arguments = {"validation_data": (x, y), "verbose": 0}
    before = model.get_weights()
    with pytest.raises(ValueError, match="depends on hyperparameter 'a'"):
        model.fit(x, y, **arguments)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    model.fit(x, y, sample_weight=model.hyperparameters["a"], **arguments)


@pytest.mark.parametrize("used", [True, False])
def test_a_loss_of_ones_own_is_known_in_fit(used):
    holder = {}

    def loss(y_true, y_pred):
        factor = holder["a"].value() if used else 1.0
        return factor * keras.ops.mean((y_true - y_pred) ** 2, -1)

    model = compiled(lambda x, a: Dense(1)(x), loss=loss, outer_loss="mse", **IMPLICIT)
    holder["a"] = model.hyperparameters["a"]
    x, y = data()
    if used:
        model.fit(x, y, validation_data=(x, y), verbose=0)
        return
    with pytest.raises(ValueError, match="depends on hyperparameter 'a'"):
        model.fit(x, y, validation_data=(x, y), verbose=0)


# What layers add


class Divergence(keras.layers.Layer):
    """β times a divergence, as a variational autoencoder adds it."""

    def __init__(self, beta, mode="mean", **kwargs):
        super().__init__(**kwargs)
        self.beta, self.mode = beta, mode

    def call(self, inputs):
        terms = keras.ops.mean(inputs**2, -1)
        if self.mode == "scalar":
            self.add_loss(self.beta.value() * keras.ops.mean(terms))
            return inputs
        factor = bt.hyperparameters.value_for(self.beta, terms)
        losses = factor * terms
        self.add_loss(losses if self.mode == "vector" else keras.ops.mean(losses))
        return inputs


def autoencoder(mode, nested=False):
    def build(x, a):
        layers = [bt.HyperDense(2), Divergence(a, mode, name="kl"), bt.HyperDense(1)]
        if nested:
            return keras.Sequential(layers, name="nested")(x)
        for layer in layers:
            x = layer(x)
        return x

    return build


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_adds_its_own_judge_warns(nested):
    with pytest.warns(UserWarning, match="'a' stands in what Divergence 'kl' adds to"):
        compiled(autoencoder("mean", nested))
    compiled(autoencoder("mean", nested), objective=WITHOUT_ADDED)
    with pytest.warns(UserWarning, match="'a' stands in what Divergence 'kl' adds to"):
        compiled(autoencoder("mean", nested), outer_loss="mse")


def test_a_tuned_activity_regularizer_warns():
    def build(x, a):
        return bt.HyperDense(1, activity_regularizer=bt.L2(a), name="out")(x)

    with pytest.warns(UserWarning, match="'a' stands in what HyperDense 'out' adds to"):
        compiled(build)
    compiled(build, objective=WITHOUT_ADDED)


def test_a_fixed_added_loss_does_not_warn():
    def build(x, a):
        x = keras.layers.ActivityRegularization(0.1)(x)
        return penalised(a, activity_regularizer="l2")(x)

    compiled(build)


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("method", [bt.DeltaSTN(entropy_weight=0.0), T1T2()])
@pytest.mark.filterwarnings("ignore:Hyperparameter 'a' stands in:UserWarning")
def test_added_losses_count_if_they_are_to(added, method):
    objective = bt.objectives.ValidationLoss(added_losses=added)
    model = compiled(autoencoder("mean"), objective=objective, method=method)
    x, y = data()
    hidden = model.layers[1](x)
    expected = np.mean((model.predict(x, verbose=0) - y) ** 2)
    if added:
        factor = model.hyperparameters.values()["a"]
        expected += factor * np.mean(np.square(hidden))
    np.testing.assert_allclose(model.evaluate_objective(x, y), expected, rtol=1e-5)
    before = np.array(model.hyperparameters.unconstrained)
    training = tuple(
        None if a is None else tf.constant(a)[None] for a in (*data(), None)
    )
    model.outer_train_step(((x, y), training)[: 1 + method.inner_batches])
    if isinstance(method, bt.DeltaSTN):
        # A new response has no effect, so that only a direct part moves the factor.
        after = np.array(model.hyperparameters.unconstrained)
        assert after < before if added else after == before


@pytest.mark.parametrize("objective", [bt.objectives.ValidationLoss(), WITHOUT_ADDED])
def test_the_choice_is_saved(objective, tmp_path):
    model = compiled(lambda x, a: penalised(a)(x), objective=objective)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.objective.added_losses is objective.added_losses


@pytest.mark.parametrize("method", [bt.DeltaSTN(), bt.STN()])
def test_a_factor_of_a_scalar_is_refused_under_a_response(method):
    with pytest.raises(
        ValueError, match="Divergence 'kl' adds a loss in which a hyper"
    ):
        compiled(autoencoder("scalar"), method=method)
    with pytest.warns(UserWarning, match="'a' stands in what"):
        compiled(autoencoder("scalar"), method=bt.Neumann(2))


@pytest.mark.filterwarnings("ignore:Hyperparameter 'a' stands in:UserWarning")
@pytest.mark.parametrize("mode", ["mean", "vector"])
def test_every_example_has_its_own_factor_of_what_is_added(mode):
    model = compiled(autoencoder(mode))
    x, y = data()
    values = tf.constant(np.linspace(0.2, 0.8, 16), tf.float32)
    with bt.hyperparameters.pass_in_force.begin_pass(values={"a": values}):
        outputs = model(x, training=True)
        found = model.compute_loss(x, y, outputs)
    terms = values * tf.reduce_mean(tf.square(model.layers[1](x)), -1)
    combine = tf.reduce_mean if mode == "mean" else tf.reduce_sum
    expected = np.mean(np.square(outputs - y)) + combine(terms)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Hyperparameter 'a' stands in:UserWarning")
def test_every_example_has_its_own_factor_of_an_activity_penalty():
    held = []

    def build(x, a):
        held.append(bt.L2(a))
        x = bt.HyperDense(2, activity_regularizer=held[0])(x)
        return bt.HyperDense(1, kernel_regularizer=held[0])(x)

    model = compiled(build)
    x, _ = data()
    values = tf.constant(np.linspace(0.2, 0.8, 16), tf.float32)
    with bt.hyperparameters.pass_in_force.begin_pass(values={"a": values}):
        model(x, training=True)
        (found,) = model.network.added_losses()
    expected = tf.reduce_mean(values * tf.reduce_sum(model.layers[1](x) ** 2, -1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # The same object penalises a weight, with the mean of the factors.
    weight = model.layers[2].kernel
    with bt.hyperparameters.pass_in_force.begin_pass(values={"a": values}):
        found = weight.regularizer(weight)
    expected = tf.reduce_mean(values) * tf.reduce_sum(weight.value**2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not held[0].of_outputs


@pytest.mark.parametrize("tuned", [False, True])
def test_one_of_many_that_is_unused_is_named(tuned):
    rates = {f"a{i}": bt.Uniform(0.1, 0.9, initial=0.5) for i in range(40)}
    hp = bt.HyperparameterSpace(**rates)
    inputs = x = keras.Input((3,))
    for i in range(39):
        x = bt.HyperGaussianNoise(hp[f"a{i}"])(x)
    model = bt.BilevelModel(inputs, bt.HyperDense(1)(x), hyperparameters=hp)
    optimizer = bt.TunedOptimizer("sgd", learning_rate=hp["a0"]) if tuned else "sgd"
    method = bt.methods.Unrolled(1) if tuned else T1T2()
    with pytest.raises(ValueError, match="depends on hyperparameter 'a39'"):
        model.compile(optimizer, loss="mse", method=method)
