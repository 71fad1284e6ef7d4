"""Networks with a `call` of their own: in a graph, around one and in place of one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import config_of, read_config
from bilevel_tf.training.conversion import layer_state
from tests.training.models import classifier, compiled, data, network, space

register = keras.saving.register_keras_serializable("subclasses")


@register
class Classifier(keras.Model):
    """A subclassed model with hyper-layers and tuned arguments."""

    def __init__(self, rate, l2, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units, self.tuned = units, read_config({"rate": rate, "l2": l2})
        penalty = bt.L2(self.tuned["l2"])
        self.hidden = bt.HyperDense(units, "tanh", kernel_regularizer=penalty)
        self.drop = bt.HyperDropout(self.tuned["rate"], seed=7)
        self.head = bt.HyperDense(3)

    def call(self, inputs, training=None):
        hidden = self.drop(self.hidden(inputs), training=training)
        return self.head(hidden)

    def get_config(self):
        tuned = config_of(dict(self.tuned))
        return {**super().get_config(), **tuned, "units": self.units}


@register
class Block(keras.layers.Layer):
    """A layer that makes hyper-layers itself, in a list."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = read_config(rate)
        self.parts = [bt.HyperDense(6, "tanh"), bt.HyperDropout(self.rate, seed=1)]

    def call(self, inputs, training=None):
        for part in self.parts:
            inputs = part(inputs)
        return inputs

    def get_config(self):
        return {**super().get_config(), "rate": config_of(self.rate)}


def subclassed(hp):
    inputs = keras.Input((6,))
    return bt.BilevelModel(
        inputs, Classifier(hp["rate"], hp["l2"])(inputs), hyperparameters=hp
    )


def block(hp):
    inputs = keras.Input((6,))
    outputs = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))(
        Block(hp["rate"])(inputs)
    )
    return bt.BilevelModel(inputs, outputs, hyperparameters=hp)


def wrapped(hp):
    inputs = keras.Input((6,))
    x = keras.layers.Reshape((3, 2))(inputs)
    penalty = bt.L2(hp["l2"])
    x = keras.layers.TimeDistributed(bt.HyperDense(2, kernel_regularizer=penalty))(x)
    x = keras.layers.TimeDistributed(bt.HyperDropout(hp["rate"], seed=3))(x)
    outputs = bt.HyperDense(3)(keras.layers.Flatten()(x))
    return bt.BilevelModel(inputs, outputs, hyperparameters=hp)


MODELS = {make.__name__: make for make in (subclassed, block, wrapped)}


def scrambled(model):
    generator = np.random.default_rng(1)
    for weight in [*model.weights]:
        if "hyperparameter" not in weight.path and weight.dtype == "float32":
            weight.assign(generator.normal(size=weight.shape) * 0.3)
    model.hyperparameters.assign({"rate": 0.6, "l2": 0.25})
    return model


@pytest.mark.parametrize("method", [bt.DeltaSTN, bt.STN])
@pytest.mark.parametrize("name", MODELS)
def test_they_become_plain_at_the_weights_in_force(name, method):
    model = scrambled(compiled(MODELS[name](space()), method()))
    plain = model.to_keras()
    x = data(5)[0]
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)
    if method is bt.DeltaSTN:
        # The weights that STN predicts with are not those that it penalises.
        ours, theirs = sum(model.losses), sum(plain.losses)
        np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    parts = layer_state.walk(plain)
    rates = [la.rate for la in parts if hasattr(la, "rate")]
    np.testing.assert_allclose(rates, 0.6, rtol=1e-6)
    assert not any(bt.hyperparameters.references(la) for la in parts)
    plain.compile("sgd", "sparse_categorical_crossentropy")
    plain.fit(*data(8), verbose=0)


def test_wrapped_layers_become_those_of_keras():
    plain = compiled(wrapped(space())).to_keras()
    kinds = [type(la.layer) for la in plain.layers if hasattr(la, "layer")]
    assert kinds == [keras.layers.Dense, keras.layers.Dropout]


@pytest.mark.parametrize("name", MODELS)
def test_they_are_saved_and_exported(name, tmp_path):
    model = scrambled(compiled(MODELS[name](space()), bt.STN()))
    x = data(5)[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)
    assert loaded.hyperparameters.values() == model.hyperparameters.values()
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_subclassed_model_in_a_graph_trains():
    hp = space()
    model = compiled(subclassed(hp))
    assert len(model.network.responding_layers) == 2
    model.fit(*data(16), validation_data=data(16, seed=1), batch_size=4, verbose=0)
    assert hp.values()["rate"] != pytest.approx(0.3, rel=1e-4)


# Subclasses of BilevelModel


@register
class Doubled(bt.BilevelModel):
    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs, training=training, mask=mask)


class OwnConstructor(bt.BilevelModel):
    def __init__(self, units, **kwargs):
        inputs, outputs = network(space())
        super().__init__(inputs, outputs, hyperparameters=space(), **kwargs)


@register
class OwnConfig(bt.BilevelModel):
    def __init__(self, units, **kwargs):
        hp = space()
        self.units = units
        super().__init__(*network(hp), hyperparameters=hp, **kwargs)

    def get_config(self):
        return {"units": self.units, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


class NoGraph(bt.BilevelModel):
    def __init__(self, hp):
        super().__init__(hyperparameters=hp)
        self.dense = bt.HyperDense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_call_around_the_graph(tmp_path):
    hp = space()
    model = compiled(Doubled(*network(hp), hyperparameters=hp))
    x = data(5)[0]
    model.save(tmp_path / "model.keras")
    loaded = bt.load_model(tmp_path / "model.keras")
    assert type(loaded) is Doubled
    np.testing.assert_allclose(loaded(x), model(x))
    with pytest.raises(ValueError, match=r"Doubled 'doubled.*`call` of its own"):
        model.to_keras()
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_constructor_of_its_own(tmp_path):
    class Own(OwnConstructor):
        def __init__(self):
            hp = space()
            bt.BilevelModel.__init__(self, *network(hp), hyperparameters=hp)

    with pytest.raises(ValueError, match=r"Own 'own.*cannot be saved.*`from_config`"):
        Own().save(tmp_path / "model.keras")
    model = compiled(OwnConfig(4))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = data(5)[0]
    np.testing.assert_allclose(loaded(x), model(x))


def test_a_model_without_a_graph_is_told_what_to_do():
    with pytest.raises(TypeError, match=r"NoGraph needs `inputs`.*`call` of NoGraph"):
        NoGraph(space())
    with pytest.raises(TypeError, match=r"needs `outputs`.*Received: inputs"):
        bt.BilevelModel(keras.Input((6,)), hyperparameters=space())
    with pytest.raises(TypeError, match=r"not a model.*from_keras.*type Functional"):
        bt.BilevelModel(classifier().to_keras(), hyperparameters=space())
    with pytest.raises(TypeError, match=r"`inputs` .*symbolic.*type ndarray"):
        bt.BilevelModel(np.ones(3), np.ones(3), hyperparameters=space())


# What cannot be copied or saved


class TakesNoName(keras.Model):
    def __init__(self, units=3):
        super().__init__()
        self.dense = keras.layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)


class HidesHyperparameter(keras.layers.Layer):
    def __init__(self, hp, **kwargs):
        super().__init__(**kwargs)
        self.drop = bt.HyperDropout(hp["rate"])

    def call(self, inputs, training=None):
        return self.drop(inputs, training=training)


SPACE = space()


class ReadsGlobal(HidesHyperparameter):
    def __init__(self, **kwargs):
        super().__init__(SPACE, **kwargs)


def around(layer, hp):
    inputs = keras.Input((6,))
    return bt.BilevelModel(inputs, bt.HyperDense(3)(layer(inputs)), hyperparameters=hp)


def test_layers_that_a_config_cannot_make(tmp_path):
    hp, inputs = space(), keras.Input((6,))
    plain = keras.Model(inputs, TakesNoName()(inputs))
    with pytest.raises(ValueError, match=r"TakesNoName 'takes.*cannot be converted"):
        bt.BilevelModel.from_keras(plain, hp)
    model = around(TakesNoName(), hp)
    with pytest.warns(UserWarning, match=r"saved, but TakesNoName 'takes.*\*\*kwargs"):
        model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"Layer 'takes.*of class TakesNoName"):
        keras.models.load_model(
            tmp_path / "model.keras", custom_objects={"TakesNoName": TakesNoName}
        )
    hidden = around(HidesHyperparameter(hp), hp)
    with pytest.raises(ValueError, match=r"HidesHyp.*cannot be saved.*config_of"):
        hidden.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"HidesHyp.*cannot be converted"):
        hidden.to_keras()
    reading = around(ReadsGlobal(), SPACE)
    with pytest.raises(ValueError, match=r"ReadsGlobal 'reads.*hyperparameter 'rate'"):
        reading.to_keras()


def test_subclassed_models_are_wrapped():
    model = TakesNoName()
    model(data(4)[0])
    with pytest.raises(ValueError, match=r"BilevelModel\(inputs, model\(inputs\)"):
        bt.BilevelModel.from_keras(model, space())


# Spaces


def test_two_spaces_are_told_apart():
    one = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.9, initial=0.1), name="space")
    two = space()
    inputs = keras.Input((6,))
    outputs = bt.HyperDense(3)(bt.HyperDropout(two["rate"], name="drop")(inputs))
    words = r"HyperDropout 'drop': .*with rate, l2\), in a model of .*with rate\)"
    with pytest.raises(ValueError, match=words):
        bt.BilevelModel(inputs, outputs, hyperparameters=one)


def test_a_bilevel_model_in_another_one_shares_its_space_when_loaded(tmp_path):
    hp, inputs = space(), keras.Input((6,))
    inner = bt.BilevelModel(*network(hp), hyperparameters=hp, name="inner")
    model = bt.BilevelModel(inputs, bt.HyperDense(3)(inner(inputs)), hyperparameters=hp)
    model.save(tmp_path / "model.keras")
    loaded = bt.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("inner").hyperparameters is loaded.hyperparameters
    x = data(5)[0]
    np.testing.assert_allclose(loaded(x), model(x))
    np.testing.assert_allclose(model.to_keras()(x), model(x))
