"""Nothing of a model is lost by conversion in either direction, or by loading."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.layers.counterparts import plain_class
from bilevel_tf.training.conversion import layer_state
from tests.training.models import data, space

layers = keras.layers


@keras.saving.register_keras_serializable("inventory")
class Gate(layers.Layer):
    """A block of the user's own: sublayers, state, a loss and a plain attribute."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = layers.Dense(units, activation="sigmoid")
        self.noise = layers.Dropout(0.5, seed=5)

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.count = self.add_weight(name="count", shape=(), trainable=False)
        self.table = np.zeros(2)

    def call(self, inputs, training=None):
        self.add_loss(0.1 * keras.ops.mean(inputs**2))
        return self.noise(inputs, training=training) * self.inner(inputs)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["table"] = self.table

    def load_own_variables(self, store):
        self.table = np.array(store["table"])
        super().load_own_variables({"0": store["0"]})

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("inventory")
class Doubled(keras.Model):
    """A functional model whose call is more than its graph."""

    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs, training=training, mask=mask)


@keras.saving.register_keras_serializable("inventory")
class OptionalSum(layers.Layer):
    def call(self, one, other=None):
        return one if other is None else one + other

    def compute_output_shape(self, one_shape, other_shape=None):
        return one_shape


def frozen_backbone():
    """A frozen nested model, which is called in inference mode; a nested one in it."""
    block = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6), layers.BatchNormalization()], name="block"
    )
    inner = keras.Input((6,))
    base = keras.Model(
        inner, layers.Dropout(0.3, seed=2)(layers.Dense(4)(block(inner))), name="base"
    )
    base.trainable = False
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(base(inputs, training=False)))


def partly_frozen():
    """A model that is trained though its layers are not, and the other way round."""
    base = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4), layers.Dense(4)], name="base"
    )
    base.trainable = False
    base.layers[1].trainable = True
    model = keras.Sequential([keras.Input((6,)), base, layers.Dense(3)])
    model.layers[1].bias.trainable = False
    return model


def frozen_whole():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(4)(inputs)), name="whole")
    model.trainable = False
    model.layers[1].trainable = True
    return model


def arguments():
    """All arguments of a Dense layer, dtypes, and attributes that are set later."""
    inputs = keras.Input((6,))
    x = layers.Dense(
        5, "tanh", kernel_regularizer="l1", bias_regularizer=keras.regularizers.L2(0.3),
        activity_regularizer="l2", kernel_constraint="non_neg",
        bias_constraint=keras.constraints.MaxNorm(1.0), kernel_initializer="ones",
        name="argued", dtype="mixed_float16",
    )(inputs)  # fmt: skip
    x = layers.Dropout(0.2, seed=4, noise_shape=(None, 1), activity_regularizer="l2")(x)
    noted = layers.Dense(4, dtype="float64", activity_regularizer="l1")
    noted.supports_masking = False
    noted.note = {"origin": ["here", 3]}
    model = keras.Model(inputs, layers.Dense(3)(noted(x)))
    model.classes = ["a", "b", "c"]
    return model


def quantized():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(3)])
    model.layers[0].quantize("int8")
    return model


def adapted():
    """With LoRA, whose weights a file has merged into the kernel."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(3)])
    model.layers[0].enable_lora(2)
    return model


def sharing():
    """A layer and a model that are called twice."""
    inner = keras.Input((6,))
    body = keras.Model(inner, layers.Dense(6)(inner), name="body")
    dense = layers.Dense(6, name="twice")
    inputs = [keras.Input((6,), name="left"), keras.Input((6,), name="right")]
    x = layers.Add()([body(dense(inputs[0])), body(dense(inputs[1]))])
    return keras.Model(inputs, {"a": layers.Dense(3)(x), "b": layers.Dense(1)(x)})


def sharing_across():
    """Layers and a model that occur both in nested models and outside of them."""
    dense, drop = layers.Dense(6, name="everywhere"), layers.Dropout(0.2, seed=1)
    first, second = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(first, layers.ReLU()(drop(dense(first))), name="inner")
    outer = keras.Model(second, dense(inner(second)), name="outer")
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(inner(drop(dense(outer(inputs))))))


def own_layers():
    inputs = keras.Input((6,))
    gate = Gate(6, name="gate")
    x = gate(inputs)
    gate.inner.trainable = False
    gate.table = np.array([3.0, 4.0])
    gate.count.assign(7.0)
    inner = keras.Input((6,))
    doubled = Doubled(inner, layers.Dense(4)(inner), name="doubled")
    return keras.Model(inputs, layers.Dense(3)(doubled(x)))


def own_call():
    inner = keras.Input((6,))
    return Doubled(inner, layers.Dense(3)(inner), name="outermost")


def sequences():
    """Masks, wrapped layers, attention with a frozen part, operations."""
    inputs = keras.Input((6,))
    x = layers.Masking()(keras.ops.reshape(inputs, (-1, 3, 2)))
    x = layers.TimeDistributed(layers.Dense(4, name="wrapped"))(x)
    attention = layers.MultiHeadAttention(2, 3)
    x = attention(x, x)
    attention.query_dense.trainable = False
    x = layers.Bidirectional(layers.GRU(2, seed=1, recurrent_dropout=0.1))(x)
    x = keras.ops.concatenate([x, inputs[:, :2]], axis=1)
    return keras.Model(inputs, layers.Dense(3)(x))


def optional_input():
    inputs = [keras.Input((6,)), keras.Input((6,), optional=True, name="more")]
    return keras.Model(inputs, layers.Dense(3)(OptionalSum()(*inputs)))


def words():
    """Adapted vocabularies, of which a config says nothing."""
    inputs = keras.Input((1,), dtype="string", name="words")
    lookup, vectors = layers.StringLookup(), layers.TextVectorization()
    shares = layers.TextVectorization(output_mode="tf_idf")
    lookup.adapt(np.array([["red"], ["green"], ["green"]]))
    vectors.adapt(np.array(["red blue", "green blue"]))
    shares.adapt(np.array(["red blue", "green blue"]))
    x = layers.Flatten()(layers.Embedding(9, 3)(lookup(inputs)))
    y = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(vectors(inputs)))
    x = layers.Concatenate()([x, y, layers.Flatten()(shares(inputs))])
    return keras.Model(inputs, layers.Dense(3)(x))


def buckets():
    """Preprocessing layers with other things that they have learnt."""
    inputs = keras.Input((6,))
    buckets, normal = layers.Discretization(num_bins=4), layers.Normalization()
    buckets.adapt(data(30)[0])
    normal.adapt(5.0 + data(30)[0])
    x = layers.Concatenate()([normal(inputs), layers.Rescaling(0.1)(buckets(inputs))])
    return keras.Model(inputs, layers.Dense(3)(x))


def compiled():
    def unregistered(targets, predictions):
        return keras.ops.mean((targets - predictions) ** 2)

    base = keras.Sequential([keras.Input((6,)), layers.Dense(4)], name="base")
    base.compile("sgd", unregistered)
    model = keras.Sequential([keras.Input((6,)), base, layers.Dense(3)])
    model.compile("adam", unregistered, metrics=[unregistered])
    return model


NETWORKS = {
    build.__name__: build
    for build in (
        frozen_backbone, partly_frozen, frozen_whole, arguments, quantized, adapted,
        sharing, sharing_across, own_layers, own_call, sequences, optional_input,
        words, buckets, compiled,
    )
}  # fmt: skip


def scrambled(model):
    generator = np.random.default_rng(1)
    for weight in model.weights:
        # Normalization computes with what it made of its weights when it was adapted.
        adapted_to_data = weight.path.startswith("normalization")
        if weight.dtype.startswith("float") and weight.ndim and not adapted_to_data:
            weight.assign(generator.normal(size=weight.shape) ** 2)
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            variable.assign([5, 6])
    return model


def example(model):
    x = data(4, seed=2)[0]
    count = len(model.inputs)
    if model.inputs[0].dtype == "string":
        return tf.constant([["red"], ["green"], ["blue"], ["white"]])
    return x if count == 1 else [x + i for i in range(count)]


def inventory(model):
    """All that layers have, one entry per layer."""
    named = set(names(model))
    parts = layer_state.walk(model)
    parts = [la for la in parts if not isinstance(la, (layers.InputLayer, Doubled))]
    return [entry_of(layer, layer.name in named) for layer in parts]


def names(model):
    """Names of the layers of a graph; Keras names the parts of layers as it likes."""
    nested = [la for la in model.layers if isinstance(la, keras.Model)]
    return [la.name for part in [model, *nested] for la in part.layers]


def bare(config):
    """A config without what depends on how an object was made."""
    if isinstance(config, dict):
        how = ("module", "registered_name", "build_config", "name")
        return {k: bare(v) for k, v in config.items() if k not in how}
    return [bare(v) for v in config] if isinstance(config, (list, tuple)) else config


def entry_of(layer, named):
    entry = {
        "class": plain_class(type(layer)).__name__,
        "name": layer.name if named else None,
        "trainable": layer.trainable,
        "policy": layer.dtype_policy.name,
        "masks": layer.supports_masking,
        "autocast": layer.autocast,
        "note": str(getattr(layer, "note", None)),
        "table": str(getattr(layer, "table", None)),
    }
    if isinstance(layer, keras.Model):
        # Its graph is compared by what it computes, its layers one by one.
        return {**entry, "class": None}
    own = bare({**layer.get_config(), "trainable": None, "dtype": None})
    states = [(v.name, v.trainable, v.dtype) for v in layer.variables]
    values = [np.array(v.value).tolist() for v in layer.variables]
    return {**entry, "config": own, "variables": states, "values": values}


def assert_same(one, other, read_from_file=False):
    inventories = inventory(one), inventory(other)
    if type(one) is Doubled:
        # A functional model stands around the copy of it.
        inventories = inventories[0], inventories[1][1:]
    for theirs, ours in zip(*inventories, strict=True):
        if read_from_file:
            # Keras's files do not have them.
            assert {**ours, "note": None} == {**theirs, "note": None}
        else:
            assert ours == theirs
    x = example(one)
    for training in (False, True):
        # Layers without a seed of their own draw from Keras's generator.
        keras.tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            one(x, training=training),
            other(x, training=training),
        )
    ours, theirs = ([float(loss) for loss in m.losses] for m in (other, one))
    np.testing.assert_allclose(sum(ours), sum(theirs), rtol=1e-5)


@pytest.fixture(params=NETWORKS)
def plain(request):
    return scrambled(NETWORKS[request.param]())


def converted(plain):
    return bt.BilevelModel.from_keras(plain, space())


def reloaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def test_from_keras(plain):
    assert_same(plain, converted(plain))


def test_to_keras(plain):
    assert_same(plain, converted(plain).to_keras())


def test_loading(plain, tmp_path):
    loaded = reloaded(converted(plain), tmp_path)
    merge_lora(plain, tmp_path)
    assert_same(plain, loaded, read_from_file=True)
    assert_same(plain, loaded.to_keras(), read_from_file=True)


def merge_lora(model, tmp_path):
    """Do to a plain model what a file does: its LoRA weights go into the kernel."""
    if any("lora" in weight.path for weight in model.weights):
        model.save_weights(tmp_path / "merged.weights.h5")
        model.load_weights(tmp_path / "merged.weights.h5")
