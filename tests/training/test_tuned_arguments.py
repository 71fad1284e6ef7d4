"""What a layer's own constructor can tune, `from_keras` can tune."""

import inspect

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from bilevel_tf.layers.counterparts import HYPER, VARIATIONAL, plain_class

layers = keras.layers

# A layer of every class with a counterpart, and the shape of its inputs.
ROWS = {
    layers.Dense: ((6,), lambda: layers.Dense(3)),
    layers.EinsumDense: ((6,), lambda: layers.EinsumDense("ab,bc->ac", 3)),
    layers.Embedding: ((6,), lambda: layers.Embedding(4, 3)),
    layers.Conv1D: ((6, 2), lambda: layers.Conv1D(3, 2)),
    layers.Conv2D: ((6, 6, 2), lambda: layers.Conv2D(3, 2)),
    layers.Conv3D: ((4, 4, 4, 2), lambda: layers.Conv3D(3, 2)),
    layers.Conv1DTranspose: ((6, 2), lambda: layers.Conv1DTranspose(3, 2)),
    layers.Conv2DTranspose: ((6, 6, 2), lambda: layers.Conv2DTranspose(3, 2)),
    layers.Conv3DTranspose: ((4, 4, 4, 2), lambda: layers.Conv3DTranspose(3, 2)),
    layers.DepthwiseConv1D: ((6, 2), lambda: layers.DepthwiseConv1D(2)),
    layers.DepthwiseConv2D: ((6, 6, 2), lambda: layers.DepthwiseConv2D(2)),
    layers.SeparableConv1D: ((6, 2), lambda: layers.SeparableConv1D(3, 2)),
    layers.SeparableConv2D: ((6, 6, 2), lambda: layers.SeparableConv2D(3, 2)),
    layers.Dropout: ((6,), lambda: layers.Dropout(0.2)),
    layers.GaussianNoise: ((6,), lambda: layers.GaussianNoise(0.2)),
}
# Layers without a counterpart are copied, and have the same arguments.
OTHERS = {
    layers.BatchNormalization: ((6,), lambda: layers.BatchNormalization()),
    layers.Activation: ((6,), lambda: layers.Activation("relu")),
    layers.GRU: ((6, 2), lambda: layers.GRU(2)),
}
NUMBERS = {layers.Dropout: "rate", layers.GaussianNoise: "stddev"}


def space():
    return bt.HyperparameterSpace(
        factor=bt.LogUniform(1e-4, 1.0, initial=1e-2),
        number=bt.Uniform(0.0, 0.9, initial=0.3),
    )


def plain_model(kind):
    shape, make = {**ROWS, **OTHERS}[kind]
    inputs = keras.Input(shape)
    return keras.Model(inputs, make()(inputs))


def regularizer_arguments(kind):
    """Names of all arguments that take a penalty."""
    tuned = HYPER.get(kind, kind)
    own = inspect.signature(tuned.__init__).parameters
    base = inspect.signature(kind.__init__).parameters
    names = {n for n in [*own, *base] if n.endswith("_regularizer")}
    # Every layer of Keras takes this one, some in `**kwargs`.
    return sorted(names | {"activity_regularizer"})


CASES = [(k, n) for k in {**ROWS, **OTHERS} for n in regularizer_arguments(k)]


def test_every_counterpart_has_a_row():
    assert set(HYPER) == set(ROWS)
    assert set(VARIATIONAL) <= set(ROWS)
    assert len(CASES) >= 40


@pytest.mark.parametrize(
    ("kind", "name"), CASES, ids=[f"{k.__name__}-{n}" for k, n in CASES]
)
def test_every_penalty_can_be_tuned(kind, name):
    hp, model = space(), plain_model(kind)
    tune = {kind: {name: bt.L2(hp["factor"])}}
    new = bt.BilevelModel.from_keras(model, hp, tune)
    layer = new.layers[1]
    held = getattr(layer, name)
    assert type(held) is bt.L2
    assert held.l2.space is hp
    hp.assign({"factor": 0.25})
    # Keras's layer with the same number has the same losses.
    plain = new.to_keras()
    assert type(getattr(plain.layers[1], name)) is keras.regularizers.L2
    assert type(plain.layers[1]) is plain_class(type(layer))
    x = np.random.default_rng(0).integers(4, size=(5, *model.input_shape[1:]))
    x = x.astype("float32")
    outputs = new(x), plain(x)
    np.testing.assert_allclose(*outputs, rtol=1e-5)
    ours, theirs = (sum(float(v) for v in m.losses) for m in (new, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_number_can_be_tuned(kind):
    hp, model = space(), plain_model(kind)
    tune = {kind: {NUMBERS[kind]: hp["number"], "seed": 4}}
    layer = bt.BilevelModel.from_keras(model, hp, tune).layers[1]
    assert getattr(layer, NUMBERS[kind]).space is hp
    assert layer.seed == 4


@pytest.mark.parametrize("kind", VARIATIONAL)
def test_arguments_of_every_layer_also_go_to_a_variational_one(kind):
    hp, model = space(), plain_model(kind)
    prior = bt.NormalPrior(hp["factor"], data_size=10)
    tune = {kind: {"prior": prior, "activity_regularizer": bt.L2(hp["number"])}}
    layer = bt.BilevelModel.from_keras(model, hp, tune).layers[1]
    assert type(layer) is VARIATIONAL[kind]
    assert layer.activity_regularizer.l2.space is hp


@pytest.mark.parametrize("argument", ["trainable", "dtype", "autocast"])
def test_arguments_of_every_layer_can_be_given(argument):
    given = {"trainable": False, "dtype": "float64", "autocast": False}[argument]
    model = plain_model(layers.Dense)
    tune = {layers.Dense: {argument: given}}
    layer = bt.BilevelModel.from_keras(model, space(), tune).layers[1]
    assert getattr(layer, argument) == given


def test_no_argument_that_the_layer_lacks():
    model = plain_model(layers.Conv1D)
    with pytest.raises(ValueError, match=r"Conv1D '.*' unknown arguments: rank"):
        bt.BilevelModel.from_keras(model, space(), {layers.Conv1D: {"rank": 2}})
