"""Per-example penalties against each example's own weights and factor."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.layers.response.full import FullResponse
from bilevel_tf.layers.response.penalty import response_penalty
from bilevel_tf.layers.response.structured import StructuredResponse

BATCH, SIZE = 5, 2
RESPONSES = [StructuredResponse, FullResponse]
FACTORS = {"a": np.linspace(0.1, 0.9, BATCH), "b": np.linspace(2.0, 0.5, BATCH)}


def space():
    return bt.HyperparameterSpace(
        a=bt.Uniform(0.0, 1.0, initial=0.3), b=bt.Positive(0.7)
    )


@keras.saving.register_keras_serializable("bilevel_tf_tests")
class Cosh(keras.regularizers.Regularizer):
    """A regularizer that the library does not know, with all derivatives."""

    def __call__(self, x):
        return tf.reduce_sum(tf.cosh(x))

    def get_config(self):
        return {}


def make(response_class, convolution=False, **arguments):
    layer = bt.HyperDense(4, **arguments)
    shape = (None, 3)
    if convolution:
        layer, shape = bt.HyperConv2D(4, (3, 2), **arguments), (None, 6, 5, 2)
    layer.build(shape)
    layer.attach_response(response_class, SIZE)
    for variable in layer.weights:
        variable.assign(np.random.normal(size=variable.shape) * 0.5)
    return layer


def moved(layer, which, delta):
    """w + Δw_i for every example, `[batch, ...]`."""
    weight = getattr(layer, which).numpy()
    rows = [layer.responses[which].shift(tf.constant(d[None])) for d in delta]
    return np.stack([weight + row.numpy() for row in rows])


def squares(weights):
    return np.sum(weights**2, axis=tuple(range(1, weights.ndim)))


def absolutes(weights):
    return np.sum(np.abs(weights), axis=tuple(range(1, weights.ndim)))


def penalty(layer, which, regularizer, delta, factors=FACTORS):
    values = {name: tf.constant(factor) for name, factor in factors.items()}
    delta = tf.constant(delta)
    with begin_pass(delta=delta, values=values):
        weight = getattr(layer, which)
        response = layer.responses[which]
        return response_penalty(regularizer, response, weight, delta)


@pytest.mark.parametrize("which", ["kernel", "bias"])
@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("response_class", RESPONSES)
def test_l2_is_exact(response_class, convolution, which, float64):
    layer = make(response_class, convolution)
    delta = np.random.normal(size=(BATCH, SIZE))
    ours = penalty(layer, which, bt.L2(space()["b"]), delta)
    expected = FACTORS["b"] * squares(moved(layer, which, delta))
    assert ours.shape == (BATCH,)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


@pytest.mark.parametrize("response_class", RESPONSES)
def test_fixed_factor(response_class, float64):
    layer = make(response_class)
    delta = np.random.normal(size=(BATCH, SIZE))
    expected = 0.3 * squares(moved(layer, "kernel", delta))
    ours = penalty(layer, "kernel", bt.L2(0.3), delta)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    # Keras keeps the factor in single precision.
    theirs = penalty(layer, "kernel", keras.regularizers.L2(0.3), delta)
    np.testing.assert_allclose(theirs, expected, rtol=1e-7)


@pytest.mark.parametrize("response_class", RESPONSES)
def test_l1_is_exact_where_no_weight_changes_sign(response_class, float64):
    layer = make(response_class)
    delta = np.random.normal(size=(BATCH, SIZE)) * 1e-3
    weights = moved(layer, "kernel", delta)
    assert np.all(np.sign(weights) == np.sign(layer.kernel.numpy()))
    ours = penalty(layer, "kernel", bt.L1(space()["a"]), delta)
    np.testing.assert_allclose(ours, FACTORS["a"] * absolutes(weights), rtol=1e-12)


@pytest.mark.parametrize("response_class", RESPONSES)
def test_l1_is_of_first_order(response_class, float64):
    layer = make(response_class)
    delta = np.random.normal(size=(BATCH, SIZE)) * 3
    weight = layer.kernel.numpy()
    shifts = moved(layer, "kernel", delta) - weight
    expected = np.sum(np.abs(weight) + np.sign(weight) * shifts, axis=(1, 2))
    ours = penalty(layer, "kernel", bt.L1(space()["a"]), delta)
    np.testing.assert_allclose(ours, FACTORS["a"] * expected, rtol=1e-10)
    # The exact norm is larger where weights change sign, and they do so here.
    exact = FACTORS["a"] * absolutes(weight + shifts)
    assert np.all(exact > ours - 1e-12)
    assert np.any(exact > ours + 0.1)


@pytest.mark.parametrize("response_class", RESPONSES)
@pytest.mark.parametrize("regularizer", ["tuned", "keras"])
def test_l1l2_is_the_sum(regularizer, response_class, float64):
    layer = make(response_class)
    delta = np.random.normal(size=(BATCH, SIZE)) * 1e-3
    weights = moved(layer, "kernel", delta)
    if regularizer == "tuned":
        hp = space()
        ours = penalty(layer, "kernel", bt.regularizers.L1L2(hp["a"], hp["b"]), delta)
        expected = FACTORS["a"] * absolutes(weights) + FACTORS["b"] * squares(weights)
    else:
        ours = penalty(layer, "kernel", keras.regularizers.L1L2(0.3, 0.2), delta)
        expected = 0.3 * absolutes(weights) + 0.2 * squares(weights)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("response_class", RESPONSES)
def test_keras_l1(response_class, float64):
    layer = make(response_class)
    delta = np.random.normal(size=(BATCH, SIZE)) * 1e-3
    ours = penalty(layer, "kernel", keras.regularizers.L1(0.3), delta)
    expected = 0.3 * absolutes(moved(layer, "kernel", delta))
    np.testing.assert_allclose(ours, expected, rtol=1e-7)


@pytest.mark.parametrize("response_class", RESPONSES)
def test_unknown_regularizer_is_of_first_order(response_class, float64):
    layer = make(response_class)
    direction = np.random.normal(size=(BATCH, SIZE))

    def error(size):
        delta = size * direction
        exact = np.sum(np.cosh(moved(layer, "kernel", delta)), axis=(1, 2))
        return np.abs(penalty(layer, "kernel", Cosh(), delta) - exact)

    # The error is quadratic in δ: a tenth of δ, a hundredth of the error.
    np.testing.assert_allclose(error(1e-2) / error(1e-3), 100.0, rtol=0.1)
    # And it is the second derivative's, cosh again.
    weight = layer.kernel.numpy()
    shifts = moved(layer, "kernel", 1e-3 * direction) - weight
    second = 0.5 * np.sum(np.cosh(weight) * shifts**2, axis=(1, 2))
    np.testing.assert_allclose(error(1e-3), second, rtol=1e-2)


@pytest.mark.parametrize("response_class", RESPONSES)
def test_orthogonal_regularizer_of_keras(response_class):
    # Keras's does not take weights in double precision.
    layer = make(response_class)
    regularizer = keras.regularizers.OrthogonalRegularizer(1.0)
    delta = np.random.normal(size=(BATCH, SIZE)).astype("float32") * 1e-2
    ours = penalty(layer, "kernel", regularizer, delta)
    exact = [regularizer(weight) for weight in moved(layer, "kernel", delta)]
    change = np.array(exact) - regularizer(layer.kernel)
    assert np.min(np.abs(change)) > 1e-4
    np.testing.assert_allclose(ours - regularizer(layer.kernel), change, rtol=0.05)


def test_unknown_regularizer_with_one_value_per_example(float64):
    class PerExample(Cosh):
        """Takes its factor for all examples where it should take one."""

        def __init__(self, factor):
            self.factor = factor

        def __call__(self, x):
            return self.factor.value() * tf.reduce_sum(tf.cosh(x))

    layer = make(StructuredResponse)
    delta = np.random.normal(size=(BATCH, SIZE))
    with pytest.raises(ValueError, match=r"PerExample.* must return a scalar"):
        penalty(layer, "kernel", PerExample(space()["a"]), delta)


@pytest.mark.parametrize(
    "regularizer", [bt.L1(0.3), bt.L2(0.3), bt.regularizers.L1L2(0.3, 0.2), Cosh()]
)
@pytest.mark.parametrize("response_class", RESPONSES)
def test_zero_delta_is_the_ordinary_penalty(response_class, regularizer, float64):
    layer = make(response_class)
    ours = penalty(layer, "kernel", regularizer, np.zeros((BATCH, SIZE)))
    np.testing.assert_allclose(
        ours, np.full(BATCH, regularizer(layer.kernel)), rtol=1e-12
    )


# The layer's sum over kernel and bias


@pytest.mark.parametrize("response_class", RESPONSES)
def test_layer_penalty_sums_kernel_and_bias(response_class, float64):
    hp = space()
    layer = make(
        response_class,
        kernel_regularizer=bt.L2(hp["b"]),
        bias_regularizer=bt.L2(hp["a"]),
    )
    delta = np.random.normal(size=(BATCH, SIZE))
    values = {name: tf.constant(factor) for name, factor in FACTORS.items()}
    with begin_pass(values=values):
        ours = layer.penalty(tf.constant(delta))
    expected = FACTORS["b"] * squares(moved(layer, "kernel", delta))
    expected += FACTORS["a"] * squares(moved(layer, "bias", delta))
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_layer_penalty_without_regularizer():
    layer = make(StructuredResponse)
    assert layer.penalty(tf.zeros([BATCH, SIZE])) is None


def test_layer_penalty_without_bias(float64):
    layer = make(
        StructuredResponse,
        use_bias=False,
        kernel_regularizer=bt.L2(0.3),
        bias_regularizer=bt.L2(0.7),
    )
    delta = np.random.normal(size=(BATCH, SIZE))
    expected = 0.3 * squares(moved(layer, "kernel", delta))
    np.testing.assert_allclose(layer.penalty(tf.constant(delta)), expected, rtol=1e-10)


@pytest.mark.parametrize("response_class", RESPONSES)
def test_gradient_reaches_weights_and_response(response_class, float64):
    layer = make(response_class, kernel_regularizer=bt.L2(space()["b"]))
    delta = tf.constant(np.random.normal(size=(BATCH, SIZE)))
    variables = [layer.kernel, *layer.responses["kernel"].variables]
    if response_class is FullResponse:
        variables = variables[:2]

    def total():
        values = {name: tf.constant(factor) for name, factor in FACTORS.items()}
        with begin_pass(values=values):
            return tf.reduce_sum(layer.penalty(delta))

    sources = [v.value for v in variables]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        value = total()
    for variable, gradient in zip(
        variables, tape.gradient(value, sources), strict=True
    ):
        start, step = variable.numpy(), np.random.normal(size=variable.shape) * 1e-6
        variable.assign(start + step)
        above = total()
        variable.assign(start - step)
        difference = above - total()
        variable.assign(start)
        np.testing.assert_allclose(
            np.sum(gradient * 2 * step), difference, rtol=1e-6, err_msg=variable.path
        )


class Doubled(keras.regularizers.L2):
    """A subclass that computes something else."""

    def __call__(self, x):
        return 2.0 * super().__call__(x)


def test_subclass_of_a_known_regularizer_is_called():
    layer = bt.HyperDense(2, kernel_regularizer=Doubled(0.5))
    layer.build((None, 3))
    layer.attach_response(StructuredResponse, 1)
    at_zero = layer.penalty(tf.zeros((1, 1)))
    np.testing.assert_allclose(at_zero, [float(Doubled(0.5)(layer.kernel))], rtol=1e-6)
