"""Padded steps: what a mask leaves out changes nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf import _keras
from bilevel_tf.network.linearized_pass import linearized_gradients
from bilevel_tf.objectives.cross_validation.fold_passes import fold_losses
from tests.network.test_contract import METHODS

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

EXAMPLES, STEPS = 8, 5


def sequences(seed=0):
    """Sequences padded with zeros, their targets, weights by position, and masks."""
    generator = np.random.default_rng(seed)
    lengths = np.array([5, 2, 3, 1, 4, 5, 1, 2])
    mask = np.arange(STEPS) < lengths[:, None]
    x = generator.normal(size=(EXAMPLES, STEPS, 3)) * mask[..., None]
    y = generator.normal(size=(EXAMPLES, STEPS, 2))
    weight = generator.uniform(0.5, 1.5, size=(EXAMPLES, STEPS))
    return x, y, weight, mask


def space():
    return bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2), seed=1)


def network(hp, masked=True):
    inputs = keras.Input((STEPS, 3))
    x = keras.layers.Masking()(inputs) if masked else inputs
    x = bt.HyperDense(3, activation="tanh", kernel_regularizer=bt.L2(hp["l2"]))(x)
    return inputs, bt.HyperDense(2)(x)


def errors_of_kept_steps(targets, outputs):
    """Squared errors whose mean over all steps is that over the steps kept.

    The last column of the targets says which steps these are.
    """
    kept = targets[..., -1]
    share = tf.reduce_mean(kept)
    errors = tf.reduce_mean(tf.square(targets[..., :-1] - outputs), -1)
    return errors * kept / share


def trained(method, y, weight, masked=True, **arguments):
    """What `fit` shows, the weights, and λ after two steps."""
    keras.utils.set_random_seed(0)
    hp, x = space(), sequences()[0]
    model = bt.BilevelModel(*network(hp, masked), hyperparameters=hp)
    arguments = {
        "loss": "mse" if masked else errors_of_kept_steps,
        "hyper_optimizer": keras.optimizers.SGD(1.0),
        "run_eagerly": True,
        **arguments,
    }
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), method=method, **arguments)
    judged_on_validation = model.objective.judged_on == "validation"
    history = model.fit(
        x, y, 4, sample_weight=weight, shuffle=False, verbose=0,
        validation_data=(x, y, weight) if judged_on_validation else None,
    )  # fmt: skip
    numbers = {name: values[0] for name, values in history.history.items()}
    return numbers, [*map(np.array, model.weights), np.array(hp.unconstrained)]


def assert_same(one, other, rtol=1e-8):
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        np.testing.assert_allclose(
            value, other[0][name], rtol=rtol, atol=1e-12, err_msg=name
        )
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_leaves_padded_steps_out(name, float64):
    """The same as with a loss that leaves these steps out, in a model without mask."""
    _, y, weight, mask = sequences()
    found = trained(METHODS[name], y, weight)
    padded = np.where(mask[..., None], y, 50.0), np.where(mask, weight, 7.0)
    assert_same(found, trained(METHODS[name], *padded))
    targets = np.concatenate([y, mask[..., None]], -1)
    # Keras 3.10 divides by the share of the kept steps in single precision.
    other = trained(METHODS[name], targets, weight, masked=False)
    assert_same(found, other, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_graph(jit_compile, float64):
    _, y, weight, mask = sequences()
    method = bt.DeltaSTN(shared_pass=True, train_steps=1)
    arguments = {"run_eagerly": False, "jit_compile": jit_compile}
    found = trained(method, y, weight, **arguments)
    padded = np.where(mask[..., None], y, 50.0), np.where(mask, weight, 7.0)
    assert_same(found, trained(method, *padded, **arguments))


# Wherever the mask comes from


class HalfMask(keras.layers.Layer):
    """Masks the second half of the steps."""

    supports_masking = True

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, previous_mask=None):
        kept = keras.ops.arange(STEPS) < STEPS // 2
        return keras.ops.logical_and(kept, keras.ops.ones_like(inputs[..., 0], "bool"))


def masked_nested(x):
    inner = keras.Input((STEPS, 3))
    outputs = bt.HyperDense(2, activation="tanh")(keras.layers.Masking()(inner))
    return keras.Model(inner, outputs)(x)


SOURCES = {
    "Masking": lambda x: bt.HyperDense(2)(keras.layers.Masking()(x)),
    "softmax": lambda x: bt.HyperDense(2, activation="softmax")(
        keras.layers.Masking()(x)
    ),
    "custom": lambda x: bt.HyperDense(2)(HalfMask()(x)),
    "TimeDistributed": lambda x: keras.layers.TimeDistributed(bt.HyperDense(2))(
        keras.layers.Masking()(x)
    ),
    "LSTM": lambda x: bt.HyperDense(2)(
        keras.layers.LSTM(3, return_sequences=True)(keras.layers.Masking()(x))
    ),
    "Bidirectional": lambda x: keras.layers.Bidirectional(
        keras.layers.GRU(1, return_sequences=True, unroll=True)
    )(bt.HyperDense(2)(keras.layers.Masking()(x))),
    "nested": lambda x: masked_nested(x),
    "dict": lambda x: {
        "plain": bt.HyperDense(2)(x),
        "masked": bt.HyperDense(2)(HalfMask()(x)),
    },
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_linearised_pass_hands_masks_on(name):
    hp, inputs = space(), keras.Input((STEPS, 3))
    model = bt.BilevelModel(inputs, SOURCES[name](inputs), hyperparameters=hp)
    model.compile(loss="mse", method=bt.DeltaSTN())
    x, y, _, _ = sequences()
    x = tf.constant(x, "float32")
    expected = [_keras.get_mask(o) for o in keras.tree.flatten(model(x))]
    assert any(mask is not None for mask in expected)
    delta = hp.sample(EXAMPLES)
    _, predictions, _ = linearized_gradients(
        model.network, x, keras.tree.map_structure(lambda _: y, model(x)), None,
        model.network.response_variables, lambda loss: loss,
        delta=delta, values=hp.constrain(delta + hp.unconstrained),
    )  # fmt: skip
    for prediction, mask in zip(keras.tree.flatten(predictions), expected, strict=True):
        found = _keras.get_mask(prediction)
        assert (found is None) == (mask is None)
        if mask is not None:
            np.testing.assert_array_equal(found, mask)


def test_embedding_with_a_mask():
    """Δ-STN on a model whose mask comes from a responding embedding."""
    tokens = np.random.default_rng(0).integers(0, 4, size=(EXAMPLES, STEPS))
    y = np.random.default_rng(1).normal(size=(EXAMPLES, STEPS, 2))

    def trained(y):
        keras.utils.set_random_seed(0)
        hp, inputs = space(), keras.Input((STEPS,), dtype="int32")
        x = bt.layers.HyperEmbedding(4, 3, mask_zero=True)(inputs)
        outputs = bt.HyperDense(2, kernel_regularizer=bt.L2(hp["l2"]))(x)
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        method = bt.DeltaSTN(train_steps=1)
        model.compile("sgd", "mse", method=method, run_eagerly=True)
        model.fit(tokens, y, 4, validation_data=(tokens, y), verbose=0, shuffle=False)
        return model.evaluate_objective(tokens, y), hp.values()["l2"]

    assert trained(y) == trained(np.where(tokens[..., None] > 0, y, 50.0))


# Objectives


def test_cross_validation_leaves_padded_steps_out(float64):
    _, y, weight, mask = sequences()
    method = bt.methods.T1T2(train_steps=1)
    arguments = {"objective": bt.CrossValidation(2), "run_eagerly": False}
    found = trained(method, y, weight, **arguments)
    padded = np.where(mask[..., None], y, 50.0), np.where(mask, weight, 7.0)
    assert_same(found, trained(method, *padded, **arguments))


def test_losses_of_folds_are_means_over_kept_steps(float64):
    x, y, weight, mask = sequences()
    hp = space()
    model = bt.BilevelModel(*network(hp), hyperparameters=hp)
    objective = bt.CrossValidation(3)
    model.compile("sgd", "mse", method=bt.methods.T1T2(), objective=objective)
    (x, folds), _, _ = objective.prepare(model.network, x, y, None)
    weights = [
        tf.constant(np.random.normal(size=(3, *w.shape))) for w in model.network.weights
    ]
    h = [tf.convert_to_tensor(hp.unconstrained)]
    batch = tf.nest.map_structure(tf.constant, ((x, folds), y, weight))
    found = fold_losses(model.network, weights, h, batch, 3)
    for fold in range(3):
        w, b, v, c = (w[fold].numpy() for w in weights)
        errors = np.mean((np.tanh(x @ w + b) @ v + c - y) ** 2, -1)
        kept = mask & (folds != fold)[:, None]
        expected = np.sum(errors * weight * kept) / np.sum(kept)
        expected += hp.values()["l2"] * np.sum(w**2)
        np.testing.assert_allclose(found[fold], expected, rtol=1e-6)
    # Q is the mean over all kept steps, predicted by copies that have not seen them.
    w, b, v, c = (w.numpy()[folds] for w in weights)
    outputs = np.tanh(x @ w + b[:, None]) @ v + c[:, None]
    expected = np.sum(np.mean((outputs - y) ** 2, -1) * weight * mask) / np.sum(mask)
    q = objective.outer_loss(model.network, weights, h, batch)
    np.testing.assert_allclose(q, expected, rtol=1e-6)


class MaskedExamples(keras.layers.Layer):
    """Masks examples whose first feature is negative."""

    supports_masking = True

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, previous_mask=None):
        return inputs[:, 0] >= 0


@pytest.mark.parametrize("name", ["ELBO", "LaplaceEvidence"])
def test_likelihoods_refuse_masks(name):
    hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e2, initial=1.0))
    prior = bt.NormalPrior(hp["precision"], data_size=8)
    inputs = keras.Input((3,))
    x = MaskedExamples(name="chooser")(inputs)
    if name == "ELBO":
        outputs = bt.VariationalDense(3, prior=prior, name="last")(x)
    else:
        layer = keras.layers.Dense(
            3, kernel_regularizer=prior, bias_regularizer=prior, name="last"
        )
        outputs = layer(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    with pytest.raises(ValueError, match=r"'chooser'.*Received: output 'last'"):
        model.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            method=bt.methods.DARTS(second_order=None),
            objective=getattr(bt.objectives, name)(),
        )


# Conversion


def test_to_keras_keeps_the_mask():
    hp = space()
    model = bt.BilevelModel(*network(hp), hyperparameters=hp)
    model.compile("sgd", "mse")
    x, _, _, mask = sequences()
    plain = model.to_keras()
    np.testing.assert_array_equal(_keras.get_mask(plain(np.float32(x))), mask)
