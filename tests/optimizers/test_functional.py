"""Keras optimizers as pure functions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bilevel_tf.optimizers.first_step import first_step_forgets_gradient
from bilevel_tf.optimizers.functional import FunctionalOptimizer
from bilevel_tf.optimizers.tuned import TunedOptimizer
from tests.methods.problems import central_differences

pytestmark = pytest.mark.usefixtures("float64")

optimizers = keras.optimizers


def schedule():
    return optimizers.schedules.ExponentialDecay(0.1, 2, 0.7)


class Own(optimizers.Optimizer):
    """An optimizer of a user's own: w ← w − α · change(g)."""

    def update_step(self, gradient, variable, learning_rate):
        rate = keras.ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * self.change(gradient))

    def get_config(self):
        return super().get_config()


class Cubed(Own):
    def change(self, gradient):
        return gradient**3


class Signed(Own):
    def change(self, gradient):
        return keras.ops.sign(gradient)


class Centered(Own):
    """One whose step is the sign of the gradient until there is a second gradient."""

    def build(self, variables):
        super().build(variables)
        self.squares = self.add_optimizer_variables(variables, "square")

    def update_step(self, gradient, variable, learning_rate):
        square = self.squares[self._get_variable_index(variable)]
        self.assign(square, (square + gradient**2) / 2)
        root = keras.ops.sqrt(square + 1e-12)
        self.assign_sub(variable, learning_rate * gradient / root)


class Rounded(Own):
    def change(self, gradient):
        return keras.ops.round(gradient) + 1e-3 * gradient


class Stopped(Own):
    def change(self, gradient):
        return gradient * keras.ops.stop_gradient(gradient)


MAKERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optimizers.RMSprop(0.05, momentum=0.5, centered=True),
    "adam": lambda: optimizers.Adam(0.1),
    "amsgrad": lambda: optimizers.Adam(0.1, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.1, weight_decay=0.3),
    "nadam": lambda: optimizers.Nadam(0.1),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "decay": lambda: optimizers.SGD(0.1, weight_decay=0.2),
    "schedule": lambda: optimizers.SGD(schedule(), momentum=0.5),
    "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.5),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.3),
    "global": lambda: optimizers.Adam(0.1, global_clipnorm=0.5),
    "adadelta": lambda: optimizers.Adadelta(0.5),
    "adafactor": lambda: optimizers.Adafactor(0.1),
    "adafactor, no relative step": lambda: optimizers.Adafactor(
        0.1, relative_step=False
    ),
    "adamax": lambda: optimizers.Adamax(0.1),
    "ftrl": lambda: optimizers.Ftrl(
        0.1, l1_regularization_strength=0.1, l2_shrinkage_regularization_strength=0.1
    ),
    "nadam, decay": lambda: optimizers.Nadam(0.1, weight_decay=0.1),
    "cosine": lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 3)),
    "function": lambda: optimizers.Adam(lambda: tf.constant(0.1, tf.float64)),
    "own": lambda: Cubed(0.1),
    "own, with slots": lambda: Centered(0.1),
}
if hasattr(optimizers, "Muon"):
    MAKERS["muon"] = lambda: optimizers.Muon(0.1, weight_decay=0.1)

START = [np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([1.5, -0.2, 0.7])]


def gradients_at(weights, scale):
    return [tf.cast(scale, w.dtype) * tf.sin(2.0 * w) + 0.3 * w for w in weights]


def steps(pure, weights, count=4, scale=1.3, state=None, hyperparameters=None):
    state = state or pure.initial_state()
    for _ in range(count):
        gradients = gradients_at(weights, scale)
        weights, state = pure(gradients, weights, state, hyperparameters)
    return weights, state


def keras_steps(optimizer, variables, count=4, scale=1.3):
    for _ in range(count):
        gradients = gradients_at([v.value for v in variables], scale)
        optimizer.apply(gradients, variables)


def gradient(function, point):
    """That of a function of a tensor or a list of them, by a tape."""
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = function(point)
    return tape.gradient(value, point)


def total(weights):
    return tf.add_n([tf.reduce_sum(tf.cos(w)) for w in weights])


def assert_close(found, expected, rtol=1e-12, atol=0.0):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def variables_at_start():
    return [keras.Variable(w, dtype="float64") for w in START]


def tensors_at_start():
    return [tf.constant(w) for w in START]


@pytest.mark.parametrize("name", MAKERS)
def test_does_what_the_optimizer_does_to_variables(name):
    optimizer = MAKERS[name]()
    variables = variables_at_start()
    pure = FunctionalOptimizer(optimizer, tensors_at_start())
    weights, state = steps(pure, tensors_at_start())
    assert not optimizer.built
    assert int(optimizer.iterations) == 0
    keras_steps(optimizer, variables)
    assert_close(weights, variables)
    slots = [v for v in optimizer.variables if v is not optimizer._learning_rate]
    assert_close(state, slots, atol=1e-20)


@pytest.mark.parametrize("name", MAKERS)
def test_derivatives_are_those_of_the_real_steps(name):
    def real(point):
        variables = variables_at_start()
        for v, w in zip(variables, point[1:], strict=True):
            v.assign(w)
        keras_steps(MAKERS[name](), variables, count=3, scale=point[0])
        return total([v.value for v in variables])

    point = [tf.constant(1.3, tf.float64), *tensors_at_start()]
    pure = FunctionalOptimizer(MAKERS[name](), point[1:])
    found = gradient(lambda p: total(steps(pure, p[1:], count=3, scale=p[0])[0]), point)
    assert_close(
        found, central_differences(real, point, step=3e-6), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("jit", [False, True])
def test_works_inside_a_compiled_function(jit):
    optimizer = MAKERS["adam"]()

    @tf.function(jit_compile=jit)
    def run(weights):
        return steps(FunctionalOptimizer(optimizer, weights), weights)[0]

    pure = FunctionalOptimizer(optimizer, tensors_at_start())
    expected, _ = steps(pure, tensors_at_start())
    assert_close(run(tensors_at_start()), expected)
    assert not optimizer.built


@pytest.mark.parametrize(
    "name",
    ["adam", "amsgrad", "nadam", "global", "clipnorm", "adafactor", "adamax", "ftrl"],
)
@pytest.mark.parametrize("start", [[0.0, 1.0], [0.0, 0.0]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_of_zero_has_finite_derivatives(name, start, dtype):
    weights = [tf.constant([0.0, 1.0], dtype)]
    optimizer = MAKERS[name]()

    def last(g):
        pure = FunctionalOptimizer(optimizer, weights)
        after, state = weights, pure.initial_state()
        for _ in range(2):
            after, state = pure([g], after, state)
        return tf.reduce_sum(after[0])

    @tf.function(jit_compile=True)
    def derivatives(g):
        with tf.autodiff.ForwardAccumulator(g, tf.ones_like(g)) as accumulator:
            value = last(g)
        return gradient(last, g), accumulator.jvp(value)

    # XLA makes NaN of 0 · ∞ where TensorFlow's kernels say 0.
    reverse, forward = derivatives(tf.constant(start, dtype))
    assert np.isfinite(reverse).all()
    np.testing.assert_allclose(forward, tf.reduce_sum(reverse), rtol=1e-3)


def test_the_derivative_at_a_gradient_of_zero_is_right():
    optimizer = optimizers.Adam(0.1, epsilon=1e-2)
    weights = [tf.constant([0.0, 1.0], tf.float64)]
    pure = FunctionalOptimizer(optimizer, weights)

    def last(g):
        return tf.reduce_sum(pure([g], weights, pure.initial_state())[0][0])

    point = tf.constant([0.0, 1.0], tf.float64)
    expected = central_differences(last, point, step=1e-7)
    np.testing.assert_allclose(gradient(last, point), expected, rtol=1e-3)


def test_continues_from_the_current_slots():
    optimizer = MAKERS["adam"]()
    variables = variables_at_start()
    keras_steps(optimizer, variables, count=2)
    weights = [tf.identity(v.value) for v in variables]
    pure = FunctionalOptimizer(optimizer, variables)
    weights, _ = steps(pure, weights, count=2, state=pure.current_state())
    keras_steps(optimizer, variables, count=2)
    assert_close(weights, variables)


def test_current_slots_of_an_unbuilt_optimizer_are_fresh_ones():
    pure = FunctionalOptimizer(MAKERS["adam"](), tensors_at_start())
    assert_close(pure.current_state(), pure.initial_state(), rtol=0)


def test_current_slots_of_other_weights_are_refused():
    optimizer = MAKERS["adam"]()
    optimizer.build([keras.Variable(np.zeros(5))])
    pure = FunctionalOptimizer(optimizer, tensors_at_start())
    with pytest.raises(ValueError, match="other weights"):
        pure.current_state()


def test_the_learning_rate_is_read_at_every_call():
    optimizer = optimizers.SGD(0.1)

    @tf.function
    def run(weights):
        return FunctionalOptimizer(optimizer, weights)(weights, weights, [0])[0]

    weights = [tf.ones(1, tf.float64)]
    np.testing.assert_allclose(run(weights)[0], [0.9], rtol=1e-7)
    optimizer.learning_rate = 0.5
    np.testing.assert_allclose(run(weights)[0], [0.5], rtol=1e-7)


def test_keeps_constraints_and_exclusions_of_variables():
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    variables = [
        keras.Variable([0.2, -0.1], name="kernel"),
        keras.Variable([1.0], name="bias"),
    ]
    variables[0].constraint = keras.constraints.NonNeg()
    pure = FunctionalOptimizer(optimizer, variables)
    values = [tf.identity(v.value) for v in variables]
    gradients = [tf.constant([0.0, 0.0]), tf.constant([0.0])]
    gradients = [tf.cast(g, v.dtype) for g, v in zip(gradients, values, strict=True)]
    kernel, bias = pure(gradients, values, pure.initial_state())[0]
    np.testing.assert_allclose(kernel, [0.2 * 0.95, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(bias, [1.0])
    with pytest.raises(ValueError, match="exclude_from_weight_decay"):
        FunctionalOptimizer(optimizer, values)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optimizers.SGD(use_ema=True), "use_ema"),
        (optimizers.SGD(use_ema=True, ema_overwrite_frequency=3), "use_ema"),
        (optimizers.SGD(gradient_accumulation_steps=2), "gradient_accumulation_steps"),
        (optimizers.SGD(loss_scale_factor=8.0), "loss_scale_factor"),
        (optimizers.LossScaleOptimizer(optimizers.SGD()), "inner optimizer"),
        (optimizers.Lion(), "sign of the gradient"),
        (optimizers.Lamb(), "all 0"),
        (Signed(0.1), "derivative there is 0. Neither"),
        (Rounded(0.1), "rounding"),
        (Stopped(0.1), "`stop_gradient`"),
    ],
)
def test_refuses_what_is_no_function_of_a_gradient(optimizer, message):
    with pytest.raises(ValueError, match=message):
        FunctionalOptimizer(optimizer, tensors_at_start())


@pytest.mark.parametrize(
    ("name", "argument"),
    [("ScheduleFreeAdamW", 0.1), ("MultiOptimizer", [(optimizers.SGD(0.1), [])])],
)
def test_refuses_optimizers_that_keep_weights_of_their_own(name, argument):
    if not hasattr(optimizers, name):
        pytest.skip("not in this release of Keras")
    optimizer = getattr(optimizers, name)(argument)
    with pytest.raises(ValueError, match=f"{name} cannot be differentiated"):
        FunctionalOptimizer(optimizer, tensors_at_start())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "weight", "gradient"),
    [
        ("Adafactor", np.zeros([2, 2]), np.ones([2, 2])),
        ("Adafactor", np.ones(3), np.zeros(3)),
        ("Muon", np.zeros([2, 2]), np.ones([2, 2])),
        ("Muon", np.ones([2, 2]), np.zeros([2, 2])),
    ],
)
def test_roots_of_norms_have_finite_derivatives(kind, weight, gradient, dtype):
    if not hasattr(optimizers, kind):
        pytest.skip("not in this release of Keras")
    weight, gradient = tf.constant(weight, dtype), tf.constant(gradient, dtype)
    optimizer = getattr(optimizers, kind)(0.1)
    pure = FunctionalOptimizer(optimizer, [weight])

    @tf.function(jit_compile=True)
    def derivatives(w, g):
        with tf.GradientTape() as tape:
            tape.watch([w, g])
            after, state = pure([g], [w], pure.initial_state())
            after, _ = pure([g], after, state)
        return after[0], *tape.gradient(after[0], [w, g])

    value, *slopes = derivatives(weight, gradient)
    assert all(np.isfinite(slope).all() for slope in slopes)
    variable = keras.Variable(weight, dtype=dtype)
    for _ in range(2):
        optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(value, variable, rtol=1e-5, atol=1e-8)


TUNED = {
    "sgd": (
        lambda: optimizers.SGD(0.7),
        {
            "learning_rate": lambda h: tf.exp(h[0]),
            "momentum": lambda h: tf.sigmoid(h[1]),
            "weight_decay": lambda h: h[2] ** 2,
        },
    ),
    "rmsprop": (
        lambda: optimizers.RMSprop(0.7),
        {
            "learning_rate": lambda h, step: tf.exp(h[0] * tf.cast(step, h.dtype)) / 9,
            "momentum": lambda h: tf.sigmoid(h[1]),
            "rho": lambda h: tf.sigmoid(h[2]),
        },
    ),
    "adam": (
        lambda: optimizers.Adam(0.05),
        {
            "beta_1": lambda h: tf.sigmoid(h[0]),
            "beta_2": lambda h: tf.sigmoid(h[1]),
            "epsilon": lambda h: h[2] ** 2,
        },
    ),
    "clipping": (
        lambda: optimizers.SGD(0.1, clipnorm=3.0),
        {
            "clipnorm": lambda h: tf.exp(h[0]) / 2,
            "momentum": lambda h: h[1],
            "weight_decay": lambda h: h[2],
        },
    ),
}


@pytest.mark.parametrize("name", TUNED)
def test_tuned_numbers_are_the_optimizers_own(name):
    make, functions = TUNED[name]
    h = tf.constant([-0.4, 0.3, 0.2], tf.float64)
    pure = FunctionalOptimizer(TunedOptimizer(make(), **functions), tensors_at_start())
    weights, _ = steps(pure, tensors_at_start(), hyperparameters=h)
    values = TunedOptimizer(make(), **functions).values(h, tf.constant(0))
    config = make().get_config()
    if name == "rmsprop":
        rates = [float(functions["learning_rate"](h, t)) for t in range(4)]
        values["learning_rate"] = rates[0]
    config.update({k: float(v) for k, v in values.items()})
    optimizer = make().from_config(config)
    variables = variables_at_start()
    for t in range(4):
        if name == "rmsprop":
            optimizer.learning_rate = rates[t]
        keras_steps(optimizer, variables, count=1)
    # Keras rounds numbers of its own to float32.
    assert_close(weights, variables, rtol=1e-6)


@pytest.mark.parametrize("name", TUNED)
def test_derivatives_with_respect_to_tuned_numbers(name):
    make, functions = TUNED[name]
    pure = FunctionalOptimizer(TunedOptimizer(make(), **functions), tensors_at_start())

    def last(h):
        return total(steps(pure, tensors_at_start(), hyperparameters=h)[0])

    h = tf.constant([-0.4, 0.3, 0.2], tf.float64)
    found = gradient(last, h)
    assert (np.abs(found) > 1e-4).all()
    np.testing.assert_allclose(found, central_differences(last, h), rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "functions", "error", "message"),
    [
        (optimizers.SGD(), {"beta_1": lambda h: h}, ValueError, "no number `beta_1`"),
        (optimizers.SGD(), {"nesterov": lambda h: h}, ValueError, "no number `nest"),
        (optimizers.SGD(), {"momentum": 0.9}, TypeError, "`momentum` must be a hyper"),
        (0.1, {}, TypeError, "`optimizer` must be"),
    ],
)
def test_tuned_numbers_must_exist_and_be_functions(
    optimizer, functions, error, message
):
    with pytest.raises(error, match=message):
        TunedOptimizer(optimizer, **functions)


def test_tuned_numbers_must_be_scalars():
    tuned = TunedOptimizer(optimizers.SGD(), momentum=lambda h: h)
    pure = FunctionalOptimizer(tuned, tensors_at_start())
    with pytest.raises(ValueError, match=r"`momentum` must return a scalar.*\(2,\)"):
        steps(pure, tensors_at_start(), hyperparameters=tf.zeros(2))


FORGETFUL = ("Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Adadelta")
KINDS = (*FORGETFUL, "SGD", "Adagrad", "Adafactor", "Ftrl", "Muon")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_whose_first_step_forgets_the_gradient(kind, dtype):
    keras.backend.set_floatx(dtype)
    if not hasattr(optimizers, kind):
        pytest.skip("not in this release of Keras")
    optimizer = getattr(optimizers, kind)(0.1)
    assert first_step_forgets_gradient(optimizer) == (kind in FORGETFUL)
