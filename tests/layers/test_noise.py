"""Dropout and Gaussian noise with a tuned strength."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import references
from bilevel_tf.hyperparameters.pass_in_force import begin_pass

COUNT = 40_000


def make():
    return bt.HyperparameterSpace(
        rate=bt.Uniform(0.0, 0.95, initial=0.25),
        stddev=bt.Positive(0.5),
        vector=bt.Uniform(0.0, 1.0, initial=[0.1, 0.2]),
        free=bt.Unconstrained(2.0),
    )


def layers(space):
    return {
        "dropout": bt.HyperDropout(space["rate"], seed=1),
        "gaussian_noise": bt.HyperGaussianNoise(space["stddev"], seed=1),
    }


def check_dropout(outputs, rate, draws):
    """Share of zeros within six standard errors; the rest scaled up exactly."""
    dropped = np.mean(outputs == 0)
    spread = np.sqrt(rate * (1 - rate) / draws)
    assert abs(dropped - rate) <= 6 * spread
    np.testing.assert_allclose(outputs[outputs != 0], 1 / (1 - rate), rtol=1e-5)
    # Unbiased: the mean of ones stays one.
    assert abs(np.mean(outputs) - 1) <= 6 * spread / (1 - rate)


def test_rate_follows_the_hyperparameter():
    space = make()
    layer = layers(space)["dropout"]
    ones = np.ones((4, COUNT // 4), "float32")
    check_dropout(layer(ones, training=True).numpy(), 0.25, COUNT)
    space.assign({"rate": 0.8})
    check_dropout(layer(ones, training=True).numpy(), 0.8, COUNT)


def test_stddev_follows_the_hyperparameter():
    space = make()
    layer = layers(space)["gaussian_noise"]
    zeros = np.zeros((4, COUNT // 4), "float32")
    for stddev in (0.5, 3.0):
        space.assign({"stddev": stddev})
        noise = layer(zeros, training=True).numpy()
        assert abs(noise.mean()) < 6 * stddev / np.sqrt(COUNT)
        assert abs(noise.std() - stddev) < 6 * stddev / np.sqrt(2 * COUNT)


def test_rate_of_every_example():
    layer = layers(make())["dropout"]
    rates = np.array([0.0, 0.1, 0.5, 0.9], "float32")
    with begin_pass(values={"rate": tf.constant(rates)}):
        outputs = layer(np.ones((4, COUNT), "float32"), training=True).numpy()
    np.testing.assert_array_equal(outputs[0], np.ones(COUNT))
    for example, rate in zip(outputs[1:], rates[1:], strict=True):
        check_dropout(example, rate, COUNT)


def test_stddev_of_every_example():
    layer = layers(make())["gaussian_noise"]
    stddevs = np.array([1e-3, 0.1, 1.0, 5.0], "float32")
    with begin_pass(values={"stddev": tf.constant(stddevs)}):
        noise = layer(np.zeros((4, COUNT), "float32"), training=True).numpy()
    for example, stddev in zip(noise, stddevs, strict=True):
        assert abs(example.mean()) < 6 * stddev / np.sqrt(COUNT)
        assert abs(example.std() - stddev) < 6 * stddev / np.sqrt(2 * COUNT)


def test_noise_is_added_to_the_inputs():
    layer = bt.HyperGaussianNoise(make()["stddev"], seed=1)
    again = bt.HyperGaussianNoise(make()["stddev"], seed=1)
    x = np.random.normal(size=(3, 4)).astype("float32")
    noise = again(np.zeros((3, 4), "float32"), training=True)
    np.testing.assert_allclose(layer(x, training=True), x + noise, rtol=1e-6)


def test_rate_one_drops_everything():
    layer = layers(make())["dropout"]
    with begin_pass(values={"rate": tf.constant([1.0, 1.0])}):
        outputs = layer(np.ones((2, 100), "float32"), training=True)
    np.testing.assert_array_equal(outputs, np.zeros((2, 100)))


def test_scope_without_values_has_the_current_rate():
    layer = layers(make())["dropout"]
    with begin_pass(delta=tf.zeros([4, 5])):
        outputs = layer(np.ones((4, COUNT // 4), "float32"), training=True)
    check_dropout(outputs.numpy(), 0.25, COUNT)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", ["dropout", "gaussian_noise"])
def test_strength_of_every_example_at_any_rank(name, shape):
    layer = layers(make())[name]
    values = {"rate": tf.constant([0.0, 0.9]), "stddev": tf.constant([0.0, 0.9])}
    x = np.random.normal(size=shape).astype("float32")
    with begin_pass(values=values):
        outputs = layer(x, training=True).numpy()
    assert outputs.shape == shape
    np.testing.assert_array_equal(outputs[0], x[0])
    assert np.any(outputs[1] != x[1])


@pytest.mark.parametrize("arguments", [{}, {"training": False}])
@pytest.mark.parametrize("perturbed", [False, True])
@pytest.mark.parametrize("name", ["dropout", "gaussian_noise"])
def test_inference_is_identity(name, perturbed, arguments):
    layer = layers(make())[name]
    x = np.random.normal(size=(2, 50)).astype("float32")
    values = {"rate": tf.constant([0.5, 0.9]), "stddev": tf.constant([0.5, 0.9])}
    with begin_pass(values=values if perturbed else None):
        np.testing.assert_array_equal(layer(x, **arguments), x)


@pytest.mark.parametrize("name", ["dropout", "gaussian_noise"])
def test_draws_differ_and_follow_the_seed(name):
    x = np.ones((2, 500), "float32")
    first, second = layers(make())[name], layers(make())[name]
    a, b = first(x, training=True), first(x, training=True)
    assert np.any(a != b)
    np.testing.assert_array_equal(second(x, training=True), a)


@pytest.mark.parametrize("noise_shape", [(None, 1, None), (6, 1, 10), (None, 1, 10)])
@pytest.mark.parametrize("perturbed", [False, True])
def test_noise_shape(noise_shape, perturbed):
    layer = bt.HyperDropout(make()["rate"], noise_shape=noise_shape)
    rates = tf.constant(np.full(6, 0.5, "float32"))
    with begin_pass(values={"rate": rates} if perturbed else None):
        outputs = layer(np.ones((6, 5, 10), "float32"), training=True).numpy()
    np.testing.assert_array_equal(outputs, np.repeat(outputs[:, :1], 5, axis=1))
    assert len(np.unique(outputs[:, 0], axis=0)) > 1
    assert np.any(outputs == 0)
    assert np.any(outputs != 0)


def test_noise_shared_over_examples_with_different_rates():
    layer = bt.HyperDropout(make()["rate"], noise_shape=(1, None))
    with begin_pass(values={"rate": tf.constant([0.3, 0.6])}):
        outputs = layer(np.ones((2, COUNT), "float32"), training=True).numpy()
    check_dropout(outputs[0], 0.3, COUNT)
    check_dropout(outputs[1], 0.6, COUNT)
    # What the lower rate drops, the higher one drops too.
    assert np.all(outputs[1][outputs[0] == 0] == 0)


@pytest.mark.parametrize("name", ["dropout", "gaussian_noise"])
def test_unknown_batch_size(name):
    layer = layers(make())[name]

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 4]), tf.TensorSpec([None])])
    def call(x, strength):
        with begin_pass(values={"rate": strength, "stddev": strength}):
            return layer(x, training=True)

    outputs = call(tf.ones([5, 3, 4]), tf.zeros([5]))
    np.testing.assert_array_equal(outputs, np.ones((5, 3, 4)))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "float64"])
@pytest.mark.parametrize("name", ["dropout", "gaussian_noise"])
def test_output_has_the_compute_dtype(name, dtype):
    space = make()
    layer_class, argument = {
        "dropout": (bt.HyperDropout, space["rate"]),
        "gaussian_noise": (bt.HyperGaussianNoise, space["stddev"]),
    }[name]
    layer = layer_class(argument, dtype=dtype)
    x = np.ones((2, 50), "float64")
    assert layer(x, training=True).dtype == layer.compute_dtype
    values = {"rate": tf.constant([0.5, 0.9]), "stddev": tf.constant([0.5, 0.9])}
    with begin_pass(values=values):
        outputs = layer(x, training=True)
    assert outputs.dtype == layer.compute_dtype
    assert np.any(tf.cast(outputs, tf.float32) != 1.0)


# Without a space


def reserialized(layer):
    written = json.dumps(keras.saving.serialize_keras_object(layer))
    return keras.saving.deserialize_keras_object(json.loads(written))


def test_standalone_dropout_has_the_initial_rate():
    space = make()
    space.assign({"rate": 0.9})
    layer = reserialized(layers(space)["dropout"])
    assert layer.rate.space is None
    ones = np.ones((4, COUNT // 4), "float32")
    check_dropout(layer(ones, training=True).numpy(), 0.25, COUNT)


def test_standalone_noise_has_the_initial_stddev():
    layer = reserialized(layers(make())["gaussian_noise"])
    noise = layer(np.zeros((4, COUNT // 4), "float32"), training=True).numpy()
    assert abs(noise.std() - 0.5) < 6 * 0.5 / np.sqrt(2 * COUNT)


@pytest.mark.parametrize("name", ["dropout", "gaussian_noise"])
def test_config_round_trip(name):
    layer = layers(make())[name]
    again = reserialized(layer)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert again.seed == 1
    assert again.name == layer.name
    x = np.ones((2, 500), "float32")
    np.testing.assert_array_equal(again(x, training=True), layer(x, training=True))


def test_config_round_trip_of_a_noise_shape():
    layer = bt.HyperDropout(make()["rate"], noise_shape=(None, 1))
    # Older releases of Keras leave it a list.
    assert tuple(reserialized(layer).noise_shape) == (None, 1)


def test_hyperparameters():
    space = make()
    dropout, noise = layers(space).values()
    assert [h.name for h in references(dropout)] == ["rate"]
    assert [h.name for h in references(noise)] == ["stddev"]
    assert references(bt.HyperDropout(0.5)) == []
    assert references(bt.HyperGaussianNoise(0.5)) == []


def test_hyperparameters_of_an_activity_regularizer():
    space = make()
    layer = bt.HyperDropout(space["rate"], activity_regularizer=bt.L2(space["stddev"]))
    assert [h.name for h in references(layer)] == ["stddev", "rate"]


def test_stddev_above_one():
    scale = bt.Positive(0.5)
    space = bt.HyperparameterSpace(stddev=scale)
    space.assign({"stddev": 4.0})
    layer = bt.HyperGaussianNoise(space["stddev"], seed=1)
    noise = layer(np.zeros((1, COUNT), "float32"), training=True).numpy()
    assert abs(noise.std() - 4) < 6 * 4 / np.sqrt(2 * COUNT)


# What is refused


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=f"`rate`.* between 0 and 1.*rate={rate}"):
        bt.HyperDropout(rate)


@pytest.mark.parametrize("stddev", [-0.1, 1.5, float("nan")])
def test_stddev_out_of_range(stddev):
    expected = f"`stddev`.* between 0 and 1.*stddev={stddev}"
    with pytest.raises(ValueError, match=expected):
        bt.HyperGaussianNoise(stddev)


STARTS_AT_2 = (
    r"`rate` of HyperDropout 'drop' must be at least 0 and at most 1, .*'free' "
    r"of scale Unconstrained, with values from -inf to inf and the initial value 2\.0"
)


def test_tuned_rate_starts_out_of_range():
    with pytest.raises(ValueError, match=STARTS_AT_2):
        bt.HyperDropout(make()["free"], name="drop")


def test_tuned_stddev_starts_out_of_range():
    space = bt.HyperparameterSpace(stddev=bt.Unconstrained(-0.5))
    with pytest.raises(
        ValueError, match=r"`stddev` of .* at least 0.*'stddev'.* -0\.5"
    ):
        bt.HyperGaussianNoise(space["stddev"])


def test_vector_valued_rate():
    expected = r"`rate` of .* a scalar hyperparameter.*'vector' of shape \(2,\)"
    with pytest.raises(ValueError, match=expected):
        bt.HyperDropout(make()["vector"])


def test_vector_valued_stddev():
    expected = r"`stddev` of .* a scalar hyperparameter.*'vector' of shape \(2,\)"
    with pytest.raises(ValueError, match=expected):
        bt.HyperGaussianNoise(make()["vector"])


@pytest.mark.parametrize(
    "scale",
    [bt.Uniform(0.0, 2.0, initial=0.5), bt.Positive(0.5), bt.Unconstrained(0.5)],
)
def test_a_rate_that_could_leave_its_range(scale):
    hp = bt.HyperparameterSpace(r=scale)
    with pytest.raises(ValueError, match=r"`rate` of .* at most 1, and so must be all"):
        bt.HyperDropout(hp["r"])


def test_a_stddev_that_could_become_negative():
    hp = bt.HyperparameterSpace(s=bt.Unconstrained(0.5))
    with pytest.raises(ValueError, match=r"`stddev` of .* at least 0 .*so must be all"):
        bt.HyperGaussianNoise(hp["s"])
