"""What all hyper-layers share: inputs they refuse, references, helpers."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import references
from bilevel_tf.layers.response.structured import StructuredResponse


def make_space():
    return bt.HyperparameterSpace(
        a=bt.Positive(0.5), b=bt.Positive(0.25), c=bt.Positive(0.125)
    )


LAYERS = {
    "dense": (lambda **kwargs: bt.HyperDense(4, **kwargs), (6,)),
    "conv": (lambda **kwargs: bt.HyperConv2D(4, 2, **kwargs), (5, 5, 2)),
}


# Inputs


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("name", LAYERS)
def test_integer_inputs(name, dtype):
    make, shape = LAYERS[name]
    layer = make(name="first")
    expected = f"'first' needs floating-point inputs. Received: .* dtype {dtype}"
    with pytest.raises(TypeError, match=expected):
        layer(np.ones((2, *shape), dtype))


@pytest.mark.parametrize("name", LAYERS)
def test_model_on_integer_inputs(name):
    make, shape = LAYERS[name]
    inputs = keras.Input(shape, dtype="uint8")
    model = keras.Model(inputs, make()(inputs))
    with pytest.raises(TypeError, match="needs floating-point inputs"):
        model(np.ones((2, *shape), "uint8"))


@pytest.mark.parametrize("name", LAYERS)
def test_model_casts_integer_data_to_its_floating_inputs(name):
    make, shape = LAYERS[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, make()(inputs))
    data = np.random.randint(10, size=(2, *shape)).astype("uint8")
    np.testing.assert_array_equal(model(data), model(data.astype("float32")))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_floating_inputs_are_cast_as_keras_casts_them(name, dtype):
    make, shape = LAYERS[name]
    outputs = make()(tf.ones((2, *shape), dtype))
    assert outputs.dtype == tf.float32


# Arguments


def keras_accepts(make):
    """Whether the installed Keras has no objection; older releases check less."""
    try:
        make()
    except ValueError:
        return False
    return True


@pytest.mark.skipif(
    keras_accepts(lambda: keras.layers.Dense(0)), reason="this Keras does not check"
)
@pytest.mark.parametrize("units", [0, -3, 2.5, "4"])
def test_dense_units_not_positive(units):
    with pytest.raises(ValueError, match=f"`units`.*positive.*units={units}"):
        bt.HyperDense(units)


@pytest.mark.parametrize("filters", [0, -3])
def test_conv_filters_not_positive(filters):
    with pytest.raises(ValueError, match=f"`filters`.*positive.*filters={filters}"):
        bt.HyperConv2D(filters, 2)


def test_conv_filters_not_divisible_by_groups():
    with pytest.raises(ValueError, match=r"divisible.*groups=2, filters=5"):
        bt.HyperConv2D(5, 2, groups=2)


@pytest.mark.skipif(
    keras_accepts(lambda: keras.layers.Conv2D(4, 6).build((None, 5, 5, 2))),
    reason="this Keras does not check",
)
def test_conv_kernel_larger_than_the_inputs():
    with pytest.raises(ValueError, match="output"):
        bt.HyperConv2D(4, 6).build((None, 5, 5, 2))


@pytest.mark.parametrize("name", LAYERS)
def test_response_with_lora(name):
    make, shape = LAYERS[name]
    layer = make(lora_rank=1, name="tuned")
    layer.build((None, *shape))
    with pytest.raises(ValueError, match="'tuned' has LoRA or quantisation enabled"):
        layer.attach_response(StructuredResponse, 2)
    assert not layer.responses


def test_quantization():
    layer = bt.HyperDense(4)
    layer.build((None, 6))
    with pytest.raises(NotImplementedError, match="HyperDense does not have"):
        layer.quantize("int8")


def test_response_before_the_layer_is_built():
    with pytest.raises(AttributeError, match="build the layer before"):
        bt.HyperDense(4).attach_response(StructuredResponse, 2)


# References


@pytest.mark.parametrize("name", LAYERS)
def test_hyperparameters_are_those_of_all_regularizers(name):
    make, _ = LAYERS[name]
    space = make_space()
    layer = make(
        kernel_regularizer=bt.regularizers.L1L2(space["a"], 0.1),
        bias_regularizer=bt.L2(space["b"]),
        activity_regularizer=bt.L1(space["c"]),
    )
    assert [h.name for h in references(layer)] == ["c", "a", "b"]
    assert all(h.space is space for h in references(layer))


@pytest.mark.parametrize("name", LAYERS)
def test_no_hyperparameters(name):
    make, _ = LAYERS[name]
    assert references(make()) == []
    assert references(make(kernel_regularizer="l2")) == []
    function = make(kernel_regularizer=tf.reduce_sum)
    assert references(function) == []


@pytest.mark.parametrize("name", LAYERS)
def test_model_binds_the_references_of_a_config(name):
    make, shape = LAYERS[name]
    space = make_space()
    layer = make(
        kernel_regularizer=bt.L2(space["a"]), activity_regularizer=bt.L2(space["c"])
    )
    written = json.dumps(keras.saving.serialize_keras_object(layer))
    again = keras.saving.deserialize_keras_object(json.loads(written))
    assert [h.space for h in references(again)] == [None, None]
    inputs = keras.Input(shape)
    bt.BilevelModel(inputs, again(inputs), hyperparameters=space)
    assert [h.space for h in references(again)] == [space, space]
    assert again.activity_regularizer.l2.space is space


# Helpers


@pytest.mark.parametrize(
    ("layer", "input_shape", "expected"),
    [
        (bt.HyperDense(4), (None, 6), (3, 4)),
        (bt.HyperDense(4), (None, 2, 6), (3, 1, 4)),
        (bt.HyperConv2D(4, 2), (None, 5, 5, 2), (3, 1, 1, 4)),
        (
            bt.HyperConv2D(4, 2, data_format="channels_first"),
            (None, 2, 5, 5),
            (3, 4, 1, 1),
        ),
    ],
    ids=["dense", "dense_3d", "conv", "conv_channels_first"],
)
def test_factors_over_outputs(layer, input_shape, expected):
    factors = np.arange(12.0).reshape(3, 4)
    kernel = layer.linear_maps()[0]
    reshaped = kernel.over_outputs(tf.constant(factors), len(input_shape))
    assert reshaped.shape == expected
    np.testing.assert_array_equal(np.squeeze(reshaped), factors)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_responding_weights(name, use_bias):
    make, shape = LAYERS[name]
    layer = make(use_bias=use_bias)
    layer.build((None, *shape))
    layer.attach_response(StructuredResponse, 2)
    weights = layer.responding_weights()
    assert [id(w) for w in weights] == [id(w) for w in layer.trainable_weights]
