"""Arguments that are a number or a hyperparameter, in layers and elsewhere."""

import copy
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import Hyperparameter, config_of, value_for


def make():
    return bt.HyperparameterSpace(
        inside=bt.Uniform(0.0, 1.0, initial=0.25),
        wide=bt.Uniform(0.0, 2.0, initial=0.5),
        positive=bt.Positive(0.5),
        free=bt.Unconstrained(0.5),
        count=bt.Integer(0, 1, initial=1),
        vector=bt.Uniform(0.0, 1.0, initial=[0.1, 0.2]),
    )


@keras.saving.register_keras_serializable("tests")
class Shrink(keras.layers.Layer):
    """A user's layer with a tunable argument."""

    factor = bt.Tunable(low=0.0, high=1.0)

    def __init__(self, factor=0.5, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.offset = self.add_weight(shape=input_shape[-1:], initializer="zeros")

    def call(self, inputs):
        return value_for(self.factor, inputs) * (inputs + self.offset)

    def get_config(self):
        return {**super().get_config(), "factor": config_of(self.factor)}


class Holder:
    """No Keras object."""

    closed = bt.Tunable(low=0.0, high=1.0)
    open = bt.Tunable(low=0.0, high=1.0, open_low=True, open_high=True)
    half = bt.Tunable(low=0.0, high=1.0, open_high=True)
    least = bt.Tunable(low=0.0)
    above = bt.Tunable(low=0.0, open_low=True)
    below = bt.Tunable(high=1.0, open_high=True)
    any = bt.Tunable()
    vector = bt.Tunable(low=0.0, vector=True)


CASES = {
    # Numbers and hyperparameters that are taken, and that are refused.
    "closed": ([0, 1, 0.5, 1.0], ["inside", "count"], [-0.1, 1.1], ["wide", "free"]),
    "open": ([0.5, 1e-9], ["inside"], [0, 1, 1.0], ["count", "positive"]),
    "half": ([0, 0.5], ["inside"], [1, 2.0], ["count", "wide"]),
    "least": ([0, 7, 1e9], ["inside", "count", "positive"], [-1e-9], ["free"]),
    "above": ([1e-9, 3], ["inside", "positive"], [0, -1], ["count", "free"]),
    "below": ([-1e9, 0.9], ["inside"], [1, 3], ["count", "positive", "free"]),
    "any": ([-1e9, 0, 3], ["inside", "count", "free"], [], []),
    "vector": ([0.5], ["vector", "inside"], [-1], ["free"]),
}
RANGES = {
    "closed": "at least 0 and at most 1",
    "open": "above 0 and below 1",
    "half": "at least 0 and below 1",
    "least": "at least 0 and finite",
    "above": "above 0 and finite",
    "below": "below 1",
    "any": "finite",
    "vector": "at least 0 and finite",
}


@pytest.mark.parametrize("name", CASES)
def test_takes(name):
    holder, space = Holder(), make()
    numbers, hyperparameters, *_ = CASES[name]
    for number in numbers:
        setattr(holder, name, number)
        assert getattr(holder, name) is number
    for hyperparameter in hyperparameters:
        given = space[hyperparameter]
        setattr(holder, name, given)
        assert getattr(holder, name) is given


@pytest.mark.parametrize("name", CASES)
def test_refuses(name):
    holder, space = Holder(), make()
    *_, numbers, hyperparameters = CASES[name]
    start = f"`{name}` of Holder must be {RANGES[name]}"
    for number in numbers:
        expected = f"{start}: a number, or a hyperparameter.*Received: {name}={number}"
        with pytest.raises(ValueError, match=expected):
            setattr(holder, name, number)
    for hyperparameter in hyperparameters:
        expected = f"{start}, and so must be all.*Received: .*'{hyperparameter}' of sc"
        with pytest.raises(ValueError, match=expected):
            setattr(holder, name, space[hyperparameter])
    assert not vars(holder)


NO_NUMBERS = [True, "0.5", None, [0.5], np.ones(2), 1j, {"a": 1}, float("nan")]


@pytest.mark.parametrize("value", [*NO_NUMBERS, float("inf"), -float("inf")])
def test_refuses_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"`any` of Holder must be finite: a number"):
        Holder().any = value


def test_refuses_a_scale():
    with pytest.raises(ValueError, match=r"scale in a HyperparameterSpace.*Received"):
        Holder().least = bt.Positive(0.5)


def test_refuses_a_vector():
    expected = r"`least` of Holder .* a scalar hyperparameter.*'vector' of shape \(2,\)"
    with pytest.raises(ValueError, match=expected):
        Holder().least = make()["vector"]


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1)])
def test_low_not_below_high(low, high):
    with pytest.raises(ValueError, match="`low` must be less than `high`"):
        bt.Tunable(low, high)


def test_numpy_numbers_become_python_numbers():
    holder = Holder()
    holder.least = np.float32(0.5)
    assert type(holder.least) is float
    holder.least = np.int64(3)
    assert type(holder.least) is int


def test_is_there_once_it_is_set():
    holder = Holder()
    assert not hasattr(holder, "least")
    with pytest.raises(AttributeError, match="Holder has no `least` yet"):
        _ = holder.least
    holder.least = 1.0
    assert copy.deepcopy(holder).least == 1.0
    del holder.least
    assert not hasattr(holder, "least")
    with pytest.raises(AttributeError, match="Holder has no `least` yet"):
        del holder.least
    assert isinstance(Holder.least, bt.Tunable)


def test_entries_of_a_list():
    tunable, space = bt.Tunable(low=0.0), make()
    given = [1.0, space["positive"]]
    assert [tunable.check(v, "factors", Holder()) for v in given] == given
    with pytest.raises(ValueError, match="`factors` of Holder must be at least 0"):
        tunable.check(-1.0, "factors", Holder())


# In a Keras layer


def test_error_names_the_layer():
    expected = r"`factor` of Shrink 'mine' must be at least 0 and at most 1.*factor=2"
    with pytest.raises(ValueError, match=expected):
        Shrink(2, name="mine")


def test_serialised_hyperparameter_is_read():
    # Keras wraps dicts that are set on a layer.
    written = json.loads(json.dumps(Shrink(make()["inside"]).get_config()))
    assert isinstance(written["factor"], dict)
    again = Shrink.from_config(written)
    assert isinstance(again.factor, Hyperparameter)
    assert again.factor.scale == make().scales["inside"]
    assert again.factor.space is None
    assert again.get_config() == written


@keras.saving.register_keras_serializable("tests")
class LeakyReLU(keras.layers.LeakyReLU):
    """A Keras layer whose own constructor sets the argument."""

    negative_slope = bt.Tunable(low=0.0)

    def __init__(self, negative_slope=0.3, **kwargs):
        super().__init__(**kwargs)
        self.negative_slope = negative_slope

    def call(self, inputs):
        slope = value_for(self.negative_slope, inputs)
        return tf.maximum(inputs, 0.0) + slope * tf.minimum(inputs, 0.0)

    def get_config(self):
        slope = config_of(self.negative_slope)
        return {**super().get_config(), "negative_slope": slope}


def test_an_argument_that_keras_sets_too():
    hp = make()
    layer = LeakyReLU(hp["positive"])
    np.testing.assert_allclose(layer(np.float32([[-2.0, 4.0]])), [[-1.0, 4.0]])
    assert LeakyReLU(0.25).negative_slope == 0.25


LAYERS = {"Shrink": (Shrink, "inside"), "LeakyReLU": (LeakyReLU, "positive")}


@pytest.mark.parametrize("method", [bt.methods.T1T2(), bt.DeltaSTN(train_steps=1)])
@pytest.mark.parametrize("name", LAYERS)
def test_a_model_tunes_it_and_finds_it_after_loading(name, method, tmp_path):
    layer, hyperparameter = LAYERS[name]
    scales = make().scales
    hp = bt.HyperparameterSpace({hyperparameter: scales[hyperparameter]})
    inputs = keras.Input((3,))
    x = bt.HyperDense(4)(inputs)
    model = bt.BilevelModel(
        inputs, bt.HyperDense(3)(layer(hp[hyperparameter])(x)), hyperparameters=hp
    )
    model.compile(loss="mse", method=method)
    x = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
    before = hp.values()[hyperparameter]
    model.fit(x, x, validation_data=(x, -x), batch_size=8, epochs=4, verbose=0)
    after = hp.values()[hyperparameter]
    assert abs(after - before) > 1e-4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    tuned = [la for la in loaded.layers if isinstance(la, layer)]
    assert tuned[0].get_config() == model.get_layer(tuned[0].name).get_config()


def test_conversion_puts_in_the_number():
    hp = make()
    inputs = keras.Input((3,))
    model = bt.BilevelModel(inputs, Shrink(hp["inside"])(inputs), hyperparameters=hp)
    hp.assign({"inside": 0.75})
    plain = model.to_keras()
    assert plain.layers[1].factor == pytest.approx(0.75)
    x = np.ones((2, 3), "float32")
    np.testing.assert_allclose(plain.predict(x), model.predict(x), rtol=1e-6)
