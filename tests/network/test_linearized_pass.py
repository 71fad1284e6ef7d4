"""The accumulator around the tape against the tape around the accumulator."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.network.linearized_pass import linearized_gradients

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def dense(inputs, hp):
    x = bt.HyperDense(5, activation="tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    x = bt.HyperDense(4, activation="gelu", bias_regularizer=bt.L2(hp["l2"]))(x)
    return bt.HyperDense(3)(x)


def softmax(inputs, hp):
    x = bt.HyperDense(5, activation="tanh")(inputs)
    return bt.HyperDense(3, activation="softmax")(x)


def residual(inputs, hp):
    x = bt.HyperDense(6, activation="tanh")(inputs)
    x = keras.layers.Add()([x, bt.HyperDense(6, activation="tanh")(x)])
    return bt.HyperDense(3, use_bias=False)(x)


def batch_normalization(inputs, hp):
    x = keras.layers.BatchNormalization()(bt.HyperDense(5)(inputs))
    return bt.HyperDense(3)(keras.layers.Activation("tanh")(x))


def activity(inputs, hp):
    x = bt.HyperDense(5, activation="tanh", activity_regularizer="l2")(inputs)
    return bt.HyperDense(3)(x)


def convolution(**arguments):
    def network(inputs, hp):
        x = keras.layers.Reshape((6, 6, 2))(inputs)
        x = bt.HyperConv2D(4, 3, activation="tanh", **arguments)(x)
        x = bt.HyperConv2D(4, 2, kernel_regularizer=bt.L2(hp["l2"]))(x)
        x = keras.layers.MaxPooling2D(2, padding="same")(x)
        x = keras.layers.AveragePooling2D(2, padding="same")(x)
        return bt.HyperDense(3)(keras.layers.Flatten()(x))

    return network


def two_outputs(inputs, hp):
    x = bt.HyperDense(5, activation="tanh")(inputs)
    return [bt.HyperDense(3, name="a")(x), bt.HyperDense(3, name="b")(x)]


NETWORKS = {
    "dense": dense,
    "softmax": softmax,
    "residual": residual,
    "batch_normalization": batch_normalization,
    "activity": activity,
    "conv": convolution(),
    "conv_strided": convolution(strides=2, padding="same"),
    "conv_grouped": convolution(groups=2),
    "conv_dilated": convolution(dilation_rate=2),
    "two_outputs": two_outputs,
}


def make(network):
    hp = bt.HyperparameterSpace(
        l2=bt.LogUniform(1e-4, 1.0, initial=0.1), other=bt.Uniform(0, 1, initial=0.5)
    )
    inputs = keras.Input((72 if network.__name__ == "network" else 6,))
    model = bt.BilevelModel(inputs, network(inputs, hp), hyperparameters=hp)
    from_logits = network is not softmax
    loss = keras.losses.CategoricalCrossentropy(from_logits=from_logits)
    model.compile(loss=loss, method=bt.DeltaSTN())
    for variable in model.network.response_variables:
        variable.assign(np.random.normal(size=variable.shape) * 0.3)
    x = tf.constant(np.random.normal(size=(7, inputs.shape[1])))
    y = tf.constant(np.eye(3)[np.random.randint(3, size=7)])
    return model, x, [y, y] if len(model.outputs) == 2 else y


def direct_gradients(model, x, y, delta, values, logits_of):
    """Gradients by differentiating the JVP: slow, and with nothing to get wrong."""
    variables = [v.value for v in model.network.response_variables]
    zero = tf.zeros_like(delta)
    with tf.GradientTape() as tape:
        tape.watch([*variables, delta])
        with tf.autodiff.ForwardAccumulator(zero, delta) as accumulator:
            with begin_pass(delta=zero, values=values, peeled=logits_of):
                outputs = model(x, training=True)
            added = model.network.added_losses()
            flat = keras.tree.flatten(outputs)
            moved = [t + accumulator.jvp(t) for t in [*flat, *added]]
        predictions = [t for t in moved[: len(flat)]]
        if logits_of:
            predictions = [keras.activations.softmax(t) for t in predictions]
        predictions = keras.tree.pack_sequence_as(outputs, predictions)
        scope = {"delta": delta, "values": values}
        with begin_pass(**scope):
            losses = [*moved[len(flat) :], *model.network.penalties()]
        with begin_pass(losses=tuple(losses)):
            loss = model.compute_loss(x, y, predictions)
    return loss, tape.gradient(loss, [*variables, delta])


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_tape_around_accumulator(name, float64):
    """With respect to every response weight, and to δ, whose gradient is λ's."""
    model, x, y = make(NETWORKS[name])
    space = model.hyperparameters
    delta = space.sample(7)
    values = space.constrain(delta + space.unconstrained)
    sources = [
        *model.network.response_variables,
        types.SimpleNamespace(value=delta, path="δ"),
    ]
    loss, _, gradients = linearized_gradients(
        model.network, x, y, None, sources, lambda t: t, delta=delta, values=values
    )
    _, peeled = model.network.output_heads()
    expected_loss, expected = direct_gradients(model, x, y, delta, values, peeled)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    for source, ours, theirs in zip(sources, gradients, expected, strict=True):
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-9, atol=1e-13, err_msg=source.path
        )
    assert np.all(np.abs(gradients[-1]) > 1e-9)


@pytest.mark.parametrize("name", ["dense", "conv", "two_outputs"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_equals_eager(name, jit_compile):
    # XLA on the CPU differentiates max-pooling twice in single precision only.
    dtype = "float32" if jit_compile else "float64"
    keras.backend.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    model, x, y = make(NETWORKS[name])
    x, y = keras.tree.map_structure(lambda a: tf.cast(a, dtype), (x, y))
    space = model.hyperparameters
    delta = space.sample(7)
    values = space.constrain(delta + space.unconstrained)

    def gradients():
        return linearized_gradients(
            model.network, x, y, None, model.network.response_variables, lambda t: t,
            delta=delta, values=values,
        )[2]  # fmt: skip

    compiled = tf.function(gradients, jit_compile=jit_compile)
    for a, b in zip(compiled(), gradients(), strict=True):
        atol = 1e-6 if jit_compile else 1e-12
        np.testing.assert_allclose(a, b, rtol=1e-4 if jit_compile else 1e-8, atol=atol)


def test_outer_gradient_equals_central_differences(float64):
    model, x, y = make(dense)
    space = model.hyperparameters

    def objective(delta):
        with begin_pass(delta=delta, penalties=False):
            return model.compute_loss(x, y, model(x, training=False))

    start = space.sample(7)
    with tf.GradientTape() as tape:
        tape.watch(start)
        value = objective(start)
    gradient = tf.reduce_sum(tape.gradient(value, start), 0).numpy()
    for k in range(space.size):
        step = np.zeros((1, space.size))
        step[0, k] = 1e-5
        difference = (objective(start + step) - objective(start - step)) / 2e-5
        np.testing.assert_allclose(gradient[k], difference, rtol=1e-7)
