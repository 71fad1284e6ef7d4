"""Keras optimizers as pure functions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bilevel_tf.autodiff.functional_optimizer import FunctionalOptimizer
from bilevel_tf.autodiff.tuned_optimizer import TunedOptimizer
from tests.hypergradients.problems import central_differences

pytestmark = pytest.mark.usefixtures("float64")

optimizers = keras.optimizers


def schedule():
    return optimizers.schedules.ExponentialDecay(0.1, 2, 0.7)


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
}

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
    for w, v in zip(weights, variables, strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-12)
    for s, v in zip(state, pure_slots(optimizer), strict=True):
        np.testing.assert_allclose(s, v, rtol=1e-12, atol=1e-20)


def pure_slots(optimizer):
    return [v for v in optimizer.variables if v is not optimizer._learning_rate]


@pytest.mark.parametrize("name", MAKERS)
def test_derivatives_are_those_of_the_real_steps(name):
    def last(point):
        variables = variables_at_start()
        for v, w in zip(variables, point[1:], strict=True):
            v.assign(w)
        optimizer = MAKERS[name]()
        keras_steps(optimizer, variables, count=3, scale=point[0])
        return tf.add_n([tf.reduce_sum(tf.cos(v.value)) for v in variables])

    point = [tf.constant(1.3, tf.float64), *tensors_at_start()]
    pure = FunctionalOptimizer(MAKERS[name](), point[1:])
    with tf.GradientTape() as tape:
        tape.watch(point)
        weights, _ = steps(pure, point[1:], count=3, scale=point[0])
        total = tf.add_n([tf.reduce_sum(tf.cos(w)) for w in weights])
    gradients = tape.gradient(total, point)
    for a, b in zip(gradients, central_differences(last, point), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("jit", [False, True])
def test_works_inside_a_compiled_function(jit):
    optimizer = MAKERS["adam"]()

    @tf.function(jit_compile=jit)
    def run(weights):
        return steps(FunctionalOptimizer(optimizer, weights), weights)[0]

    pure = FunctionalOptimizer(optimizer, tensors_at_start())
    expected, _ = steps(pure, tensors_at_start())
    for a, b in zip(run(tensors_at_start()), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert not optimizer.built


@pytest.mark.parametrize("name", ["adam", "amsgrad", "nadam", "global", "clipnorm"])
@pytest.mark.parametrize("start", [[0.0, 1.0], [0.0, 0.0]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_of_zero_has_finite_derivatives(name, start, dtype):
    weights = [tf.constant([0.0, 1.0], dtype)]
    gradient = tf.constant(start, dtype)
    optimizer = MAKERS[name]()

    def last(gradient, count=2):
        pure = FunctionalOptimizer(optimizer, weights)
        after, state = weights, pure.initial_state()
        for _ in range(count):
            after, state = pure([gradient], after, state)
        return tf.reduce_sum(after[0])

    @tf.function(jit_compile=True)
    def derivatives(gradient):
        with tf.GradientTape() as tape:
            tape.watch(gradient)
            total = last(gradient)
        along = tf.ones_like(gradient)
        with tf.autodiff.ForwardAccumulator(gradient, along) as accumulator:
            total_again = last(gradient)
        return tape.gradient(total, gradient), accumulator.jvp(total_again)

    # XLA makes NaN of 0 · ∞ where TensorFlow's kernels say 0.
    reverse, forward = derivatives(gradient)
    assert np.isfinite(reverse).all()
    np.testing.assert_allclose(forward, tf.reduce_sum(reverse), rtol=1e-3)


def test_the_derivative_at_a_gradient_of_zero_is_right():
    optimizer = optimizers.Adam(0.1, epsilon=1e-2)
    weights = [tf.constant([0.0, 1.0], tf.float64)]
    pure = FunctionalOptimizer(optimizer, weights)

    def last(gradient):
        return tf.reduce_sum(pure([gradient], weights, pure.initial_state())[0][0])

    gradient = tf.constant([0.0, 1.0], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        total = last(gradient)
    expected = central_differences(last, gradient, step=1e-7)
    np.testing.assert_allclose(tape.gradient(total, gradient), expected, rtol=1e-3)


def test_continues_from_the_current_slots():
    optimizer = MAKERS["adam"]()
    variables = variables_at_start()
    keras_steps(optimizer, variables, count=2)
    weights = [tf.identity(v.value) for v in variables]
    pure = FunctionalOptimizer(optimizer, variables)
    weights, _ = steps(pure, weights, count=2, state=pure.current_state())
    keras_steps(optimizer, variables, count=2)
    for w, v in zip(weights, variables, strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-12)


def test_current_slots_of_an_unbuilt_optimizer_are_fresh_ones():
    pure = FunctionalOptimizer(MAKERS["adam"](), tensors_at_start())
    for a, b in zip(pure.current_state(), pure.initial_state(), strict=True):
        np.testing.assert_array_equal(a, b)


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
    "settings",
    [
        {"use_ema": True},
        {"use_ema": True, "ema_overwrite_frequency": 3},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 8.0},
    ],
)
def test_refuses_what_is_no_function_of_a_gradient(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        FunctionalOptimizer(optimizers.SGD(0.1, **settings), tensors_at_start())


def test_refuses_loss_scaling_around_an_optimizer():
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="inner optimizer"):
        FunctionalOptimizer(optimizer, tensors_at_start())


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
    for w, v in zip(weights, variables, strict=True):
        # Keras rounds numbers of its own to float32.
        np.testing.assert_allclose(w, v, rtol=1e-6)


@pytest.mark.parametrize("name", TUNED)
def test_derivatives_with_respect_to_tuned_numbers(name):
    make, functions = TUNED[name]
    pure = FunctionalOptimizer(TunedOptimizer(make(), **functions), tensors_at_start())

    def last(h):
        weights, _ = steps(pure, tensors_at_start(), hyperparameters=h)
        return tf.add_n([tf.reduce_sum(tf.cos(w)) for w in weights])

    h = tf.constant([-0.4, 0.3, 0.2], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(h)
        total = last(h)
    gradient = tape.gradient(total, h)
    assert (np.abs(gradient) > 1e-4).all()
    np.testing.assert_allclose(gradient, central_differences(last, h), rtol=1e-6)


def test_tuned_numbers_must_exist_and_be_functions_to_scalars():
    with pytest.raises(ValueError, match="no number `beta_1`"):
        TunedOptimizer(optimizers.SGD(), beta_1=lambda h: h)
    with pytest.raises(ValueError, match="no number `nesterov`"):
        TunedOptimizer(optimizers.SGD(), nesterov=lambda h: h)
    with pytest.raises(TypeError, match="`momentum` must be a hyperparameter"):
        TunedOptimizer(optimizers.SGD(), momentum=0.9)
    with pytest.raises(TypeError, match="`optimizer` must be"):
        TunedOptimizer(0.1)
    tuned = TunedOptimizer(optimizers.SGD(), momentum=lambda h: h)
    pure = FunctionalOptimizer(tuned, tensors_at_start())
    with pytest.raises(ValueError, match=r"`momentum` must return a scalar.*\(2,\)"):
        steps(pure, tensors_at_start(), hyperparameters=tf.zeros(2))
