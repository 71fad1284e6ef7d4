"""References are found wherever they are held, and bound after loading."""

import collections
import dataclasses
import functools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import config_of, read_config, references, value_for


def make():
    return bt.HyperparameterSpace(
        a=bt.Positive(1.0), b=bt.Positive(2.0), c=bt.Positive(3.0)
    )


class Anything:
    def __init__(self, **attributes):
        vars(self).update(attributes)


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("held",)
    held: object


class SlottedRegularizer(keras.regularizers.Regularizer):
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor


def loss_function(y_true, y_pred, factor):
    return factor.value() * tf.reduce_mean(tf.square(y_true - y_pred), -1)


def cycle(reference):
    first, second = Anything(), Anything(held=reference)
    first.other, second.other = second, first
    second.itself = second
    return first


HOLDERS = {
    "attribute": lambda h: Anything(private=1, _held=h),
    "list": lambda h: Anything(held=[1.0, h]),
    "tuple": lambda h: Anything(held=(h,)),
    "named_tuple": lambda h: collections.namedtuple("Pair", "x y")(1.0, h),
    "dict": lambda h: Anything(held={"x": {"y": h}}),
    "set": lambda h: Anything(held={h}),
    "deque": lambda h: Anything(held=collections.deque([h])),
    "namespace": lambda h: types.SimpleNamespace(held=h),
    "slots": Slotted,
    "slots_of_a_subclass": SlottedRegularizer,
    "partial": lambda h: functools.partial(loss_function, factor=h),
    "partial_in_an_object": lambda h: Anything(f=functools.partial(max, h)),
    "object_in_an_object": lambda h: Anything(x=[Anything(y=Anything(z=h))]),
    "regularizer": bt.L2,
    "prior": lambda h: bt.regularizers.ScaleMixturePrior((1.0, h), data_size=2),
    "regularizer_of_a_layer": lambda h: bt.HyperDense(2, bias_regularizer=bt.L2(h)),
    "initializer": lambda h: keras.layers.Dense(
        2, kernel_initializer=keras.initializers.Constant(h)
    ),
    "list_in_a_layer": lambda h: set_on(keras.layers.Dense(2), "held", [h]),
    "dict_in_a_layer": lambda h: set_on(keras.layers.Dense(2), "held", {"x": h}),
    "object_in_a_layer": lambda h: set_on(keras.layers.ReLU(), "o", Anything(x=h)),
    "private_in_a_layer": lambda h: set_on(keras.layers.ReLU(), "_held", {"x": [h]}),
    "regularizer_of_a_variable": lambda h: with_weight(bt.L1(h)),
    "loss": bt.losses.GaussianLikelihood,
    "loss_function": lambda h: set_on(
        keras.losses.MeanSquaredError(), "_fn_kwargs", {"factor": h}
    ),
    "dict_of_losses": lambda h: {"x": "mse", "y": bt.losses.GaussianLikelihood(h)},
    "optimizer": lambda h: bt.TunedOptimizer("sgd", learning_rate=h),
    "optimizer_function": lambda h: bt.TunedOptimizer(
        "sgd", learning_rate=functools.partial(min, h)
    ),
    "cycle": cycle,
    "itself": lambda h: h,
}


def set_on(holder, name, value):
    setattr(holder, name, value)
    return holder


def with_weight(regularizer):
    layer = keras.layers.Layer()
    layer.add_weight(shape=(2,), regularizer=regularizer)
    return layer


@pytest.mark.parametrize("name", HOLDERS)
def test_finds(name):
    reference = make()["a"]
    assert references(HOLDERS[name](reference)) == [reference]


def object_array(item):
    array = np.empty(1, object)
    array[0] = item
    return array


NOTHING = {
    "none": lambda h: None,
    "number": lambda h: 1.0,
    "sub_layer": lambda h: keras.layers.TimeDistributed(bt.HyperGaussianNoise(h)),
    "layer_in_an_object": lambda h: Anything(x=bt.HyperGaussianNoise(h)),
    "layer_in_a_list": lambda h: [[bt.HyperGaussianNoise(h)]],
    "function": lambda h: lambda: h,
    "class": lambda h: type("Class", (), {"h": h}),
    "module": lambda h: set_on(types.ModuleType("module"), "h", h),
    "array": lambda h: object_array(h),
    "space": lambda h: h.space,
    "tensor": lambda h: tf.ones(3),
}


@pytest.mark.parametrize("name", NOTHING)
def test_does_not_look_into(name):
    assert references(NOTHING[name](make()["a"])) == []


def test_order_and_each_once():
    hp = make()
    a, b, c = hp["a"], hp["b"], hp["c"]
    holder = Anything(x=[b, Anything(y=c)], z=(a, b), w=b)
    assert references(holder) == [b, c, a]
    # Two references to one hyperparameter are two.
    assert len(references([hp["a"], hp["a"]])) == 2


def test_a_built_model_is_not_searched_from_a_layer():
    hp = make()
    inputs = keras.Input((3,))
    first = bt.HyperDense(2, kernel_regularizer=bt.L2(hp["a"]))
    second = bt.HyperDense(2, kernel_regularizer=bt.L2(hp["b"]))
    model = keras.Model(inputs, second(first(inputs)))
    assert [h.name for h in references(first)] == ["a"]
    assert references(model) == []


def test_every_layer_is_searched_once():
    visits = []

    class Probe:
        @property
        def __dict__(self):
            visits.append(self)
            return {}

    layers = [set_on(keras.layers.ReLU(), "probe", Probe()) for _ in range(5)]
    x = inputs = keras.Input((2,))
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    for layer in [*layers, model]:
        references(layer)
    assert visits == [layer.probe for layer in layers]


# Found, bound, and loaded


@keras.saving.register_keras_serializable("tests")
class Polynomial(keras.layers.Layer):
    """A user's layer whose argument is a list or dict of hyperparameters."""

    def __init__(self, factors, **kwargs):
        super().__init__(**kwargs)
        self.factors = read_config(factors)

    def call(self, inputs):
        factors = self.factors
        factors = factors.values() if isinstance(factors, dict) else factors
        terms = [value_for(f, inputs) * inputs**i for i, f in enumerate(factors)]
        return tf.add_n([tf.broadcast_to(term, tf.shape(inputs)) for term in terms])

    def get_config(self):
        return {**super().get_config(), "factors": config_of(self.factors)}


@keras.saving.register_keras_serializable("tests")
class RawPolynomial(Polynomial):
    """Leaves it to Keras to serialise what is in the list."""

    def get_config(self):
        factors = self.factors
        plain = dict(factors) if isinstance(factors, dict) else list(factors)
        return {**super().get_config(), "factors": plain}


STRUCTURES = {
    "list": lambda hp: [hp["a"], 0.5, hp["b"]],
    "tuple": lambda hp: (0.0, hp["a"]),
    "dict": lambda hp: {"x": hp["a"], "y": 0.25},
    "nested": lambda hp: {"x": hp["c"], "y": hp["b"]},
}


@pytest.mark.parametrize("layer_class", [Polynomial, RawPolynomial])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_loaded_model_predicts_with_what_was_tuned(structure, layer_class, tmp_path):
    hp = make()
    inputs = keras.Input((2,))
    outputs = layer_class(STRUCTURES[structure](hp))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    hp.assign({"a": 5.0, "b": 7.0, "c": 9.0})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    found = references(loaded.layers[1])
    assert found
    assert all(reference.space is loaded.hyperparameters for reference in found)
    # As a plain Keras model, with the numbers of now.
    plain = model.to_keras()
    assert references(plain.layers[1]) == []
    np.testing.assert_allclose(plain.predict(x), model.predict(x), rtol=1e-6)


def test_a_reference_to_another_space_is_refused_in_a_list_too():
    inputs = keras.Input((2,))
    outputs = Polynomial([make()["a"]])(inputs)
    with pytest.raises(ValueError, match="'a' belongs to another HyperparameterSpace"):
        bt.BilevelModel(inputs, outputs, hyperparameters=make())


@keras.saving.register_keras_serializable("tests")
class WeightedErrors(keras.losses.Loss):
    def __init__(self, factors, name="weighted_errors", **kwargs):
        super().__init__(name=name, **kwargs)
        self.factors = read_config(factors)

    def call(self, y_true, y_pred):
        factor = value_for(self.factors["first"][0], y_pred)
        return tf.reduce_mean(factor * tf.square(y_true - y_pred), -1)

    def get_config(self):
        return {**super().get_config(), "factors": config_of(self.factors)}


def compiled(hp, given):
    inputs = keras.Input((2,))
    outputs = {
        "one": bt.HyperDense(2, name="one")(inputs),
        "two": bt.HyperDense(2, name="two")(inputs),
    }
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    loss = WeightedErrors({"first": [hp["a"]]})
    loss = {"one": loss, "two": "mse"} if given == "dict" else loss
    optimizer = "sgd"
    if given == "optimizer":
        optimizer, loss = bt.TunedOptimizer("sgd", learning_rate=hp["b"]), "mse"
    model.compile(optimizer, loss, method=bt.Unrolled(steps=1))
    return model


@pytest.mark.usefixtures("spare_hyperparameters")
@pytest.mark.filterwarnings("ignore:Hyperparameter 'a' stands in:UserWarning")
@pytest.mark.parametrize("given", ["loss", "dict", "optimizer"])
def test_losses_and_optimizers_are_bound_after_loading(given, tmp_path):
    hp = make()
    model = compiled(hp, given)
    hp.assign({"a": 5.0, "b": 1e-3})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.ones((4, 2), "float32")
    y = {"one": 2 * x, "two": 3 * x}
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    held = loaded.stepping_optimizer if given == "optimizer" else loaded.loss
    found = references(held)
    assert [reference.space for reference in found] == [loaded.hyperparameters]
    for either in (model, loaded):
        either.fit(x, y, validation_data=(x, y), verbose=0, shuffle=False)
    name = "b" if given == "optimizer" else "a"
    moved = model.hyperparameters.values()[name]
    np.testing.assert_allclose(loaded.hyperparameters.values()[name], moved, rtol=1e-6)
