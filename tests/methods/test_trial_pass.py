"""What a perturbed pass cannot get through, found when the model is compiled."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.training.models import METHODS

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

STEPS = 4


class Accumulate(keras.layers.Layer):
    """Sums over time, in a loop of TensorFlow's."""

    def call(self, inputs):
        turned = tf.transpose(inputs, [1, 0, 2])
        return tf.transpose(tf.scan(lambda a, b: a + b, turned), [1, 0, 2])


class Folding(bt.layers.HyperLayer, keras.layers.Layer):
    """Applies a map to all steps of all examples at once."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")

    def linear_maps(self):
        return [bt.layers.LinearMap("kernel", keras.ops.matmul)]

    def call(self, inputs):
        folded = keras.ops.reshape(inputs, (-1, inputs.shape[-1]))
        folded = self.respond("kernel", folded)
        return keras.ops.reshape(folded, (-1, *inputs.shape[1:-1], 2))


def space():
    return bt.HyperparameterSpace(
        l2=bt.LogUniform(1e-5, 1.0, initial=1e-2), noise=bt.Positive(0.1)
    )


def dense(hp, units=3, **arguments):
    return bt.HyperDense(units, kernel_regularizer=bt.L2(hp["l2"]), **arguments)


def compiled(network, method, **arguments):
    hp, inputs = space(), keras.Input((STEPS, 3))
    model = bt.BilevelModel(inputs, network(inputs, hp), hyperparameters=hp)
    model.compile("sgd", "mse", method=method, **arguments)
    return model


def fit(model):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(6, STEPS, 3))
    y = generator.normal(size=(6, *model.outputs[0].shape[1:]))
    before = np.array(model.hyperparameters.unconstrained)
    model.fit(x, y, 3, validation_data=(x, y), verbose=0)
    assert np.any(before != np.array(model.hyperparameters.unconstrained))


def nested(x, hp):
    inner = keras.Input((STEPS, 3))
    return keras.Model(inner, keras.layers.LSTM(2, name="looping")(inner))(dense(hp)(x))


LOOPS = {
    "LSTM": lambda x, hp: keras.layers.LSTM(2, name="looping")(dense(hp)(x)),
    "cell": lambda x, hp: keras.layers.RNN(
        keras.layers.SimpleRNNCell(2), name="looping"
    )(dense(hp)(x)),
    "Bidirectional": lambda x, hp: keras.layers.Bidirectional(
        keras.layers.GRU(2, name="looping")
    )(dense(hp)(x)),
    "ConvLSTM": lambda x, hp: keras.layers.ConvLSTM1D(2, 1, name="looping")(
        keras.layers.Reshape((STEPS, 3, 1))(dense(hp)(x))
    ),
    "nested": nested,
    "TimeDistributed": lambda x, hp: keras.layers.TimeDistributed(
        keras.layers.LSTM(2, name="looping")
    )(keras.layers.Reshape((STEPS, 3, 1))(dense(hp)(x))),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_above_a_response_is_refused(name):
    with pytest.raises(ValueError, match=r"looping'.* set unroll=True"):
        compiled(LOOPS[name], bt.DeltaSTN())


def test_a_loop_of_ones_own_is_refused():
    with pytest.raises(ValueError, match="loop over time in Accumulate 'own'"):
        compiled(lambda x, hp: Accumulate(name="own")(dense(hp)(x)), bt.DeltaSTN())


def test_other_methods_loop():
    compiled(LOOPS["LSTM"], bt.methods.CenteredSTN())
    compiled(LOOPS["LSTM"], bt.Neumann(2))
    compiled(LOOPS["LSTM"], bt.DeltaSTN(), run_eagerly=True)


LOOPS_ALLOWED = {
    "above noise": lambda x, hp: dense(hp)(
        keras.layers.LSTM(2)(bt.HyperGaussianNoise(hp["noise"])(x))
    ),
    "unrolled": lambda x, hp: keras.layers.GRU(2, unroll=True)(dense(hp)(x)),
    "started by a response": lambda x, hp: keras.layers.GRU(2)(
        x, initial_state=dense(hp, 2)(keras.layers.GlobalAveragePooling1D()(x))
    ),
}


@pytest.mark.parametrize("name", LOOPS_ALLOWED)
def test_a_loop_that_needs_no_forward_mode(name):
    fit(compiled(LOOPS_ALLOWED[name], bt.DeltaSTN(train_steps=1)))


def folded(layer):
    """A network that applies a layer to all steps of all examples at once."""

    def network(x, hp):
        rows = layer(hp)(keras.ops.reshape(x, (-1, 3)))
        return dense(hp)(keras.ops.reshape(rows, (-1, STEPS, 3)))

    return network


FOLDED = {
    "respond": folded(lambda hp: dense(hp, name="folded")),
    "noise": folded(lambda hp: bt.HyperGaussianNoise(hp["noise"], name="folded")),
    "own": lambda x, hp: Folding(name="folded")(x),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FOLDED)
def test_time_folded_into_the_batch_is_refused(name, method):
    message = (
        r"'folded'.* one row per example.*TimeDistributed.*\(28, 3\) for 7 examples"
    )
    with pytest.raises(ValueError, match=message):
        compiled(FOLDED[name], METHODS[method]())


def test_folding_elsewhere():
    """Where no layer has hyperparameters, or for methods that perturb nothing."""

    def network(x, hp):
        rows = keras.layers.Dense(3)(keras.ops.reshape(x, (-1, 3)))
        return dense(hp)(keras.ops.reshape(rows, (-1, STEPS, 3)))

    fit(compiled(network, bt.DeltaSTN(train_steps=1)))
    fit(compiled(FOLDED["respond"], bt.methods.T1T2(train_steps=1)))


def test_the_trial_leaves_no_trace():
    """Variables, seeds and the layers are as they were."""

    def network(x, hp):
        x = keras.ops.tanh(keras.layers.Dropout(0.5, seed=1)(x))
        return dense(hp)(keras.layers.BatchNormalization()(x))

    def states(model):
        return [np.array(v) for v in model.variables if "response" not in v.path]

    hp, inputs = space(), keras.Input((STEPS, 3))
    model = bt.BilevelModel(inputs, network(inputs, hp), hyperparameters=hp)
    before = states(model)
    model.compile("sgd", "mse", method=bt.DeltaSTN())
    for a, b in zip(before, states(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any("call" in vars(layer) for layer in model.network.layers)
