"""`tune` and layers inside other layers."""

import warnings

import keras
import pytest

import bilevel_tf as bt

Dense, Dropout = keras.layers.Dense, keras.layers.Dropout


@keras.saving.register_keras_serializable("test_inner_layers")
class Block(keras.layers.Layer):
    """Two layers of its own, in a list and in an attribute."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [Dense(4, name="first")]
        self.drop = Dropout(0.5, name="drop")

    def build(self, input_shape):
        self.parts[0].build(input_shape)
        self.drop.build((*input_shape[:-1], 4))

    def call(self, inputs, training=False):
        return self.drop(self.parts[0](inputs), training=training)


def convert(layers, tune, shape=(6, 3)):
    hp = bt.HyperparameterSpace(a=bt.Uniform(0.0, 0.9, initial=0.5))
    model = keras.Sequential([keras.Input(shape), *layers])
    arguments = {"rate": hp["a"]} if Dropout in tune else {}
    arguments = arguments or {"kernel_regularizer": bt.L2(hp["a"])}
    return bt.BilevelModel.from_keras(model, hp, dict.fromkeys(tune, arguments))


WRAPPERS = {
    "TimeDistributed": lambda: keras.layers.TimeDistributed(Dense(2, name="inner")),
    "Bidirectional": lambda: keras.layers.Bidirectional(
        keras.layers.LSTM(2, return_sequences=True, name="inner")
    ),
    "Block": lambda: Block(name="block"),
}


@pytest.mark.parametrize(
    ("kind", "key", "inner"),
    [
        ("TimeDistributed", Dense, "'inner' in TimeDistributed"),
        ("Block", Dense, "'first' in Block 'block'"),
    ],
)
def test_inner_layers_of_a_class_are_named(kind, key, inner):
    with pytest.warns(UserWarning, match=f"does not reach .*{inner}"):
        model = convert([WRAPPERS[kind](), Dense(1)], [key])
    assert type(model.layers[-1]) is bt.HyperDense


def test_a_nested_block_is_found_in_a_nested_model():
    nested = keras.Sequential([keras.Input((6, 3)), Block(name="block"), Dropout(0.1)])
    with pytest.warns(UserWarning, match="'drop' in Block 'block'"):
        model = convert([nested, Dense(1)], [Dropout])
    rates = [la.rate for la in model.network.layers if isinstance(la, bt.HyperDropout)]
    assert [rate.name for rate in rates] == ["a"]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("TimeDistributed", "inner"),
        ("Bidirectional", keras.layers.LSTM),
        ("Block", "first"),
        ("Block", Dropout),
    ],
)
def test_what_is_inside_alone_is_refused(kind, key):
    with pytest.raises(ValueError, match=r"does not reach .* Received: tune="):
        convert([WRAPPERS[kind]()], [key])


def test_what_is_reached_does_not_warn():
    nested = keras.Sequential([keras.Input((6, 3)), Dense(4), Dropout(0.1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        convert([nested, Dense(1)], [Dense])
        convert([nested, Dense(1, name="out"), Block()], ["out"])
