"""Responses against plain Keras layers that hold each example's own weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.autodiff.tangents import Tangents
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.layers.response.full import FullResponse
from bilevel_tf.layers.response.structured import StructuredResponse

BATCH, SIZE = 3, 3
RESPONSES = {"structured": StructuredResponse, "full": FullResponse}


def dense(**arguments):
    return lambda: bt.HyperDense(4, **arguments)


def conv(**arguments):
    return lambda: bt.HyperConv2D(4, (3, 2), **arguments)


# How to make the layer, and the shape of one example.
LAYERS = {
    "dense": (dense(), (6,)),
    "dense_no_bias": (dense(use_bias=False), (6,)),
    "dense_activation": (dense(activation="tanh"), (6,)),
    "dense_3d": (dense(activation="tanh"), (3, 6)),
    "dense_4d": (dense(), (2, 3, 6)),
    "conv": (conv(activation="tanh"), (6, 5, 2)),
    "conv_no_bias": (conv(use_bias=False), (6, 5, 2)),
    "conv_same": (conv(padding="same"), (6, 5, 2)),
    "conv_strided": (conv(strides=(2, 1)), (6, 5, 2)),
    "conv_strided_same": (conv(strides=2, padding="same"), (6, 5, 2)),
    "conv_dilated": (conv(dilation_rate=(1, 2)), (6, 5, 2)),
    "conv_grouped": (conv(groups=2), (6, 5, 2)),
    "conv_grouped_dilated_same": (
        conv(groups=2, dilation_rate=2, padding="same"),
        (6, 5, 2),
    ),
}


def make(name, response):
    """A layer with random weights and response, inputs, and a δ per example."""
    make_layer, shape = LAYERS[name]
    layer = make_layer()
    layer.build((None, *shape))
    layer.attach_response(RESPONSES[response], SIZE)
    for variable in layer.weights:
        variable.assign(np.random.normal(size=variable.shape) * 0.5)
    x = np.random.normal(size=(BATCH, *shape))
    delta = np.random.normal(size=(BATCH, SIZE))
    return layer, x, delta


def moved_weights(layer, delta):
    """Kernel and bias at one δ of shape `[h]`, formed as the papers write them."""
    weights = []
    for name in ("kernel", "bias"):
        weight, response = getattr(layer, name), layer.responses.get(name)
        if weight is None:
            weights.append(None)
        elif isinstance(response, StructuredResponse):
            shift = (delta @ response.factor.numpy()) * response.direction.numpy()
            weights.append(weight.numpy() + shift)
        else:
            shift = np.einsum("k,k...->...", delta, response.jacobian.numpy())
            weights.append(weight.numpy() + shift)
    return weights


def plain_layer(layer, input_shape, kernel, bias):
    """The Keras counterpart with these weights."""
    keras_class = type(layer).__mro__[2]
    assert keras_class in (keras.layers.Dense, keras.layers.Conv2D)
    plain = keras_class.from_config(layer.get_config())
    plain.build(input_shape)
    plain.set_weights([kernel] if bias is None else [kernel, bias])
    return plain


def explicit_loop(layer, x, delta):
    outputs = []
    for i in range(len(x)):
        kernel, bias = moved_weights(layer, delta[i])
        example = x[i : i + 1]
        outputs.append(plain_layer(layer, example.shape, kernel, bias)(example))
    return np.concatenate(outputs)


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", LAYERS)
def test_equals_each_examples_own_layer(name, response, float64):
    layer, x, delta = make(name, response)
    with begin_pass(delta=tf.constant(delta)):
        ours = layer(x)
    expected = explicit_loop(layer, x, delta)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
    # The response is no small part of it.
    assert np.max(np.abs(ours - layer(x))) > 0.1


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", LAYERS)
def test_shared_delta_equals_one_per_example(name, response, float64):
    layer, x, delta = make(name, response)
    with begin_pass(delta=tf.constant(delta[:1])):
        folded = layer(x)
    with begin_pass(delta=tf.constant(np.repeat(delta[:1], BATCH, 0))):
        per_example = layer(x)
    np.testing.assert_allclose(folded, per_example, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [1, BATCH])
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", LAYERS)
def test_zero_delta_is_keras_exactly(name, response, rows):
    layer, x, _ = make(name, response)
    x = x.astype("float32")
    bias = layer.bias.numpy() if layer.use_bias else None
    plain = plain_layer(layer, x.shape, layer.kernel.numpy(), bias)
    with begin_pass(delta=tf.zeros([rows, SIZE])):
        np.testing.assert_array_equal(layer(x), plain(x))


@pytest.mark.parametrize("name", LAYERS)
def test_without_scope_is_keras_exactly(name):
    layer, x, _ = make(name, "structured")
    x = x.astype("float32")
    bias = layer.bias.numpy() if layer.use_bias else None
    plain = plain_layer(layer, x.shape, layer.kernel.numpy(), bias)
    np.testing.assert_array_equal(layer(x), plain(x))
    with begin_pass(penalties=False):
        np.testing.assert_array_equal(layer(x), plain(x))


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", ["dense", "dense_3d", "conv_grouped"])
def test_unknown_batch_size(name, response, float64):
    layer, x, delta = make(name, response)

    @tf.function
    def call(x, delta):
        with begin_pass(delta=delta):
            return layer(x)

    unknown = [
        tf.TensorSpec([None, *x.shape[1:]], tf.float64),
        tf.TensorSpec([None, SIZE], tf.float64),
    ]
    ours = call.get_concrete_function(*unknown)(tf.constant(x), tf.constant(delta))
    expected = explicit_loop(layer, x, delta)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", ["dense_no_bias", "dense_3d", "conv_strided"])
def test_linearized_carries_the_response_as_tangent(name, response, float64):
    layer, x, delta = make(name, response)
    layer.activation = keras.activations.linear
    delta = tf.constant(delta)
    with Tangents(delta, delta) as tangents:
        with begin_pass(delta=delta, tangents=tangents):
            outputs = layer(x)
        tangent = tangents.of(outputs)
    np.testing.assert_allclose(outputs, layer(x), rtol=1e-12, atol=1e-14)
    change = explicit_loop(layer, x, delta.numpy()) - layer(x)
    np.testing.assert_allclose(tangent, change, rtol=1e-10, atol=1e-12)


def test_peeled_layer_leaves_out_its_activation(float64):
    layer, x, delta = make("dense_activation", "structured")
    delta = tf.constant(delta)
    with begin_pass(delta=delta):
        activated = layer(x)
    with begin_pass(delta=delta, peeled=frozenset([layer])):
        peeled = layer(x)
    assert np.max(np.abs(peeled - activated)) > 0.1
    np.testing.assert_allclose(np.tanh(peeled), activated, rtol=1e-12)


def channels_first():
    """A layer and one that is equal but for its data format.

    Its outputs are five wide and it has four filters: where both are equal, Keras
    3.15 on TensorFlow adds the bias along the width.
    """
    layers = []
    for data_format, shape in [("channels_first", (2, 6, 6)), ("channels_last", None)]:
        layer = bt.HyperConv2D(4, (3, 2), data_format=data_format)
        layer.build((None, *(shape or (6, 6, 2))))
        layer.attach_response(StructuredResponse, SIZE)
        layers.append(layer)
    for variable in layers[0].weights:
        variable.assign(np.random.normal(size=variable.shape) * 0.5)
    layers[1].set_weights(layers[0].get_weights())
    x = np.random.normal(size=(BATCH, 2, 6, 6)).astype("float32")
    try:
        keras.layers.Conv2D(4, 2, data_format="channels_first")(x)
    except tf.errors.UnimplementedError:
        pytest.skip("This device has no convolution with channels first.")
    return *layers, x


@pytest.mark.parametrize("rows", [1, BATCH])
def test_channels_first(rows):
    first, last, x = channels_first()
    with begin_pass(delta=tf.random.normal([rows, SIZE])):
        ours = first(x)
        expected = last(np.moveaxis(x, 1, -1))
    expected = np.moveaxis(expected, -1, 1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    assert np.max(np.abs(ours - first(x))) > 0.1


def test_channels_first_with_zero_delta_is_keras():
    layer, _, x = channels_first()
    plain = plain_layer(layer, x.shape, layer.kernel.numpy(), layer.bias.numpy())
    with begin_pass(delta=tf.zeros([BATCH, SIZE])):
        np.testing.assert_array_equal(layer(x), plain(x))


# Δw itself, and inner products with it


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", ["dense", "conv", "conv_grouped"])
@pytest.mark.parametrize("which", ["kernel", "bias"])
def test_inner_products(which, name, response, float64):
    layer, _, delta = make(name, response)
    index = ["kernel", "bias"].index(which)
    weight = getattr(layer, which).numpy()
    shifts = [moved_weights(layer, row)[index] - weight for row in delta]
    direction = np.random.normal(size=weight.shape)
    ours = layer.responses[which]
    np.testing.assert_allclose(
        ours.inner(tf.constant(direction), tf.constant(delta)),
        [np.sum(direction * shift) for shift in shifts],
        rtol=1e-10,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        ours.squared_norm(tf.constant(delta)),
        [np.sum(shift**2) for shift in shifts],
        rtol=1e-10,
    )
    for i in range(BATCH):
        shift = ours.shift(tf.constant(delta[i : i + 1]))
        np.testing.assert_allclose(shift, shifts[i], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", ["dense", "dense_no_bias", "conv"])
def test_weights_at(name, response, float64):
    layer, _, delta = make(name, response)
    ours = layer.weights_at(tf.constant(delta[:1]))
    expected = [w for w in moved_weights(layer, delta[0]) if w is not None]
    assert len(ours) == (2 if layer.use_bias else 1)
    for weight, moved in zip(ours, expected, strict=True):
        np.testing.assert_allclose(weight, moved, rtol=1e-12, atol=1e-14)


# How a response starts


def fresh(name, response_class=StructuredResponse, **arguments):
    make_layer, shape = LAYERS[name]
    layer = type(make_layer()).from_config({**make_layer().get_config(), **arguments})
    layer.build((None, *shape))
    layer.attach_response(response_class, SIZE)
    return layer, np.random.normal(size=(BATCH, *shape)).astype("float32")


@pytest.mark.parametrize("rows", [1, BATCH])
@pytest.mark.parametrize("name", ["dense", "dense_3d", "conv"])
def test_new_structured_response_changes_nothing(name, rows):
    layer, x = fresh(name)
    kernel, bias = layer.responses.values()
    np.testing.assert_array_equal(kernel.factor, 0.0 * np.ones((3, 4)))
    np.testing.assert_array_equal(bias.factor, 0.0 * np.ones((3, 4)))
    with begin_pass(delta=tf.random.normal([rows, SIZE])):
        perturbed = layer(x)
    np.testing.assert_array_equal(perturbed, layer(x))


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_response_kernel_starts_at_the_kernel(name):
    layer, _ = fresh(name)
    np.testing.assert_array_equal(layer.responses["kernel"].direction, layer.kernel)


@pytest.mark.parametrize("initializer", ["kernel", "random"])
def test_response_kernel_never_starts_at_zero(initializer):
    layer = bt.HyperDense(4, kernel_initializer="zeros")
    layer.build((None, 6))
    layer.attach_response(StructuredResponse, SIZE, initializer=initializer)
    direction = layer.responses["kernel"].direction
    assert np.min(np.abs(direction)) > 0
    assert np.max(np.abs(direction)) <= np.sqrt(6 / (6 + 4))


def initial_weights(shape, dtype=None):
    return keras.random.normal(shape, dtype=dtype)


@pytest.mark.parametrize(
    "initializer",
    [
        "glorot_uniform",
        keras.initializers.HeNormal(seed=3),
        keras.initializers.Orthogonal(),
        keras.initializers.RandomNormal(seed=keras.random.SeedGenerator(5)),
        initial_weights,
    ],
    ids=["unseeded", "seeded", "orthogonal", "seed_generator", "function"],
)
@pytest.mark.parametrize("layer_class", [bt.HyperDense, bt.HyperConv2D])
def test_response_kernel_is_another_draw(layer_class, initializer):
    shape = (None, 50) if layer_class is bt.HyperDense else (None, 6, 5, 6)
    size = {"units": 40} if layer_class is bt.HyperDense else {"filters": 40}
    size |= {} if layer_class is bt.HyperDense else {"kernel_size": 3}
    layer = layer_class(**size, kernel_initializer=initializer)
    layer.build(shape)
    layer.attach_response(StructuredResponse, SIZE, initializer="random")
    kernel = layer.kernel.numpy()
    response = layer.responses["kernel"].direction.numpy()
    assert response.shape == kernel.shape
    # Uncorrelated, within six standard errors, and of one spread.
    correlation = np.corrcoef(kernel.ravel(), response.ravel())[0, 1]
    assert abs(correlation) < 6 / np.sqrt(kernel.size)
    np.testing.assert_allclose(response.std(), kernel.std(), rtol=0.1)


def test_response_bias_is_bounded_by_fan_in():
    layer = bt.HyperConv2D(400, (3, 2))
    layer.build((None, 6, 5, 2))
    layer.attach_response(StructuredResponse, SIZE)
    bias = layer.responses["bias"].direction.numpy()
    bound = 1 / np.sqrt(3 * 2 * 2)
    assert np.max(np.abs(bias)) <= bound
    assert np.max(np.abs(bias)) > 0.9 * bound
    assert bias.min() < 0 < bias.max()


def test_full_response_starts_small():
    layer, _ = fresh("dense", FullResponse)
    kernel = layer.responses["kernel"].jacobian.numpy()
    assert kernel.shape == (SIZE, 6, 4)
    np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.4)


# Attaching


@pytest.mark.parametrize("response_class", RESPONSES.values())
@pytest.mark.parametrize("name", ["dense", "dense_no_bias", "conv"])
def test_response_weights_are_not_trainable(name, response_class):
    layer, _ = fresh(name, response_class)
    kinds = 2 if response_class is StructuredResponse else 1
    weights = 2 if layer.use_bias else 1
    assert len(layer.response_variables) == kinds * weights
    assert len(layer.trainable_weights) == weights
    assert len(layer.non_trainable_weights) == kinds * weights
    assert len({v.path for v in layer.weights}) == len(layer.weights)


def test_attaching_again_keeps_the_response():
    layer, _ = fresh("dense")
    responses = dict(layer.responses)
    values = [np.random.normal(size=v.shape) for v in layer.response_variables]
    for variable, value in zip(layer.response_variables, values, strict=True):
        variable.assign(value)
    layer.attach_response(StructuredResponse, SIZE)
    assert layer.responses == responses
    for variable, value in zip(layer.response_variables, values, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-6)


@pytest.mark.parametrize(
    ("response_class", "size"), [(FullResponse, SIZE), (StructuredResponse, 7)]
)
def test_attaching_another_replaces_the_response(response_class, size):
    layer, x = fresh("dense")
    layer.attach_response(response_class, size)
    assert list(layer.responses) == ["kernel", "bias"]
    for response in layer.responses.values():
        assert type(response) is response_class
        assert response.size == size
    # The old one's weights are gone from the layer.
    ours = {id(v) for v in [layer.kernel, layer.bias, *layer.response_variables]}
    assert {id(v) for v in layer.weights} == ours
    with begin_pass(delta=tf.ones([1, size])):
        assert layer(x).shape == (BATCH, 4)


def test_layer_can_be_attached_after_it_was_called():
    layer = bt.HyperDense(4)
    layer(np.ones((2, 6), "float32"))
    layer.attach_response(StructuredResponse, SIZE)
    with pytest.raises(ValueError, match="cannot add new elements"):
        layer.extra = keras.layers.Dense(1)


def test_frozen_layers_do_not_respond():
    hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 1.0, initial=0.5))
    inputs = keras.Input((6,))
    frozen = bt.HyperDense(5, trainable=False, name="frozen")
    free = bt.HyperDense(4, name="free")
    outputs = free(bt.HyperDropout(hp["rate"])(frozen(inputs)))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(loss="mse")
    assert model.network.responding_layers == [free]
    assert not frozen.responses
    assert isinstance(free.responses["kernel"], StructuredResponse)
    x = np.ones((3, 6), "float32")
    with begin_pass(delta=tf.ones([3, 1])):
        within = frozen(x)
    np.testing.assert_array_equal(within, frozen(x))


# Precision


@pytest.mark.parametrize("rows", [1, BATCH])
@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("name", ["dense", "dense_3d", "conv"])
def test_mixed_bfloat16(name, response, rows):
    make_layer, shape = LAYERS[name]
    config = {**make_layer().get_config(), "dtype": "mixed_bfloat16"}
    layer = type(make_layer()).from_config(config)
    layer.build((None, *shape))
    layer.attach_response(RESPONSES[response], SIZE)
    assert {v.dtype for v in layer.weights} == {"float32"}

    single, x, delta = make(name, response)
    layer.set_weights(single.get_weights())
    delta = delta[:rows].astype("float32")
    x = x.astype("float32")
    with begin_pass(delta=tf.constant(delta)):
        ours = layer(x)
        expected = single(x)
    assert ours.dtype == tf.bfloat16
    # bfloat16 has eight bits; a dozen products of numbers around one are summed.
    error = np.abs(tf.cast(ours, tf.float32) - expected)
    assert np.max(error) < 12 * 2.0**-8 * max(1, np.max(np.abs(expected)))
    layer_without = np.abs(single(x) - expected)
    assert np.max(layer_without) > 3 * np.max(error)


def test_sparse_inputs_respond(float64):
    layer, x, delta = make("dense", "structured")
    x = x * (np.random.uniform(size=x.shape) < 0.5)
    delta = tf.constant(delta)
    for linearized in (False, True):
        with (
            Tangents(delta, delta) as tangents,
            begin_pass(delta=delta, tangents=tangents if linearized else None),
        ):
            expected, ours = layer(x), layer(tf.sparse.from_dense(x))
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_a_shared_layer_on_inputs_of_two_ranks(float64):
    layer = bt.HyperDense(3)
    layer.build((None, 4))
    layer.attach_response(StructuredResponse, 2)
    layer.responses["kernel"].factor.assign(np.random.normal(size=(2, 3)))
    x, delta = np.random.normal(size=(5, 4)), np.random.normal(size=(5, 2))
    with begin_pass(delta=tf.constant(delta)):
        flat, long = layer(x), layer(np.stack([x, 2 * x], 1))
    np.testing.assert_allclose(long[:, 0], flat, rtol=1e-12)
    np.testing.assert_allclose(long[:, 1], 2 * flat, rtol=1e-12)
