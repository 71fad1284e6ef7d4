"""Many hyperparameters, and large ones."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import config_of, read_config, value_for
from bilevel_tf.hyperparameters.pass_in_force import begin_pass


def scales(count):
    """Scales of three kinds in turn, no two of which have the same numbers."""
    made = {}
    for i in range(count):
        share = (i + 1) / (count + 1)
        made[f"h{i}"] = [
            lambda share=share: bt.LogUniform(1e-6, 1.0 + share, initial=share),
            lambda share=share: bt.Positive(share),
            lambda share=share: bt.Uniform(-share, 1.0, initial=share / 2),
        ][i % 3]()
    return made


def test_each_has_its_own_range():
    made = scales(60)
    space = bt.HyperparameterSpace(
        {
            **made,
            "vector": bt.Positive([0.5, 2.0]),
            "count": bt.Integer(0, 9, initial=4),
        }
    )
    vectors = tf.random.normal([4, space.size], dtype=tf.float64)
    values = space.constrain(vectors)
    assert list(values) == space.names
    for i, (name, scale) in enumerate(made.items()):
        expected = scale.constrain(vectors[:, i])
        np.testing.assert_allclose(values[name], expected, rtol=1e-12)
        np.testing.assert_allclose(space.values()[name], scale.initial, rtol=1e-5)
    assert space.values()["count"] == 4
    np.testing.assert_allclose(space.values()["vector"], [0.5, 2.0], rtol=1e-5)


def test_derivative_and_inverse(float64):
    space = bt.HyperparameterSpace(scales(60))
    vector = tf.random.normal([space.size], dtype=tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(vector)
        values = space.constrain(vector)
        again = space.unconstrain(values)
    np.testing.assert_allclose(again, vector, rtol=1e-8)
    # Each value depends on its own λ; of the way there and back the derivative is 1.
    for i in (0, 1, 2, 59):
        slope = tape.gradient(values[f"h{i}"], vector)
        assert isinstance(slope, tf.Tensor)
        assert np.flatnonzero(slope).tolist() == [i]
    np.testing.assert_allclose(tape.gradient(again, vector), np.ones(60), rtol=1e-8)


def test_forward_derivative(float64):
    space = bt.HyperparameterSpace(scales(9))
    vector, direction = tf.random.normal([2, 1, 9], dtype=tf.float64)
    with tf.autodiff.ForwardAccumulator(vector, direction) as forward:
        values = tf.stack(list(space.constrain(vector).values()), -1)
    step = 1e-6
    up, down = (
        tf.stack(list(space.constrain(vector + s * direction).values()), -1)
        for s in (step, -step)
    )
    np.testing.assert_allclose(forward.jvp(values), (up - down) / (2 * step), rtol=1e-6)


def count_operations(count):
    space = bt.HyperparameterSpace(scales(count))

    @tf.function
    def values():
        return tf.add_n(list(space.current().values()))

    return len(values.get_concrete_function().graph.get_operations())


def test_values_take_as_many_operations_however_many_there_are():
    assert count_operations(600) == count_operations(60)


class Own(bt.scales.Scale):
    """A user's scale whose map depends on what is no number to be stacked."""

    ends = (0.0, float("inf"))

    def __init__(self, initial, base=10.0, **kwargs):
        self.base = base
        super().__init__(initial, **kwargs)

    def constrain(self, unconstrained):
        return self.initial * self.base ** tf.convert_to_tensor(unconstrained)

    def unconstrain(self, value):
        ratio = tf.convert_to_tensor(value) / self.initial
        return tf.math.log(ratio) / np.log(self.base)

    def allows(self, value):
        return value > 0

    def describe(self):
        return "positive"


def test_scales_of_ones_own_are_mapped_together_only_if_they_are_equal():
    own = [Own(2.0), Own(3.0), Own(2.0), Own(2.0, base=3.0), Own([2.0, 3.0])]
    space = bt.HyperparameterSpace({f"h{i}": scale for i, scale in enumerate(own)})
    vector = tf.constant([1.0, 2.0, 3.0, 1.0, 0.5, 0.25])
    values = space.constrain(vector)
    expected = [20.0, 300.0, 2000.0, 6.0, [2 * 10**0.5, 3 * 10**0.25]]
    for value, right in zip(values.values(), expected, strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-5)
    np.testing.assert_allclose(space.unconstrain(values), vector, rtol=1e-5)


def test_assign_of_some_leaves_the_rest():
    space = bt.HyperparameterSpace(scales(60))
    before = space.unconstrained.numpy()
    space.assign({"h7": 0.25, "h33": 0.5, "h2": 0.125})
    changed = np.flatnonzero(space.unconstrained.numpy() != before)
    assert changed.tolist() == [2, 7, 33]
    values = space.values()
    got = [values["h7"], values["h33"], values["h2"]]
    np.testing.assert_allclose(got, [0.25, 0.5, 0.125], rtol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Sum(keras.layers.Layer):
    """Adds the mean of all factors, each times a weight of its own."""

    def __init__(self, factors, **kwargs):
        super().__init__(**kwargs)
        self.factors = read_config(factors)

    def build(self, input_shape):
        count = len(self.factors)
        self.scale = self.add_weight(shape=(count,), initializer="ones", name="scale")

    def call(self, inputs):
        factors = tf.stack([value_for(f, inputs) for f in self.factors], -1)
        factors = tf.reshape(factors, [-1, len(self.factors)])
        return inputs + tf.reduce_mean(factors * self.scale, -1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "factors": config_of(self.factors)}


def make_model(count, method):
    space = bt.HyperparameterSpace(scales(count))
    inputs = keras.Input((3,))
    hidden = bt.HyperDense(2)(inputs)
    hidden = Sum([space[name] for name in space.names])(hidden)
    outputs = bt.HyperDense(1)(hidden)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space)
    model.compile("sgd", loss="mse", method=method)
    return model, space


METHODS = [
    bt.DeltaSTN(train_steps=2),
    bt.Neumann(2, power_iterations=2, train_steps=2),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_they_train(method):
    model, space = make_model(300, method)
    before = space.unconstrained.numpy()
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    y = x.sum(1, keepdims=True)
    history = model.fit(x, y, 4, epochs=1, validation_data=(x, y), verbose=0)
    assert np.all(space.unconstrained.numpy() != before)
    assert history.history["h7"][0] == pytest.approx(space.values()["h7"], rel=1e-5)


def test_a_pass_that_shares_its_values_reads_the_same():
    space = bt.HyperparameterSpace(scales(60))
    alone = [space[name].value() for name in space.names]
    with begin_pass(current=space.current_at_once()):
        shared = [space[name].value() for name in space.names]
    np.testing.assert_allclose(shared, alone, rtol=1e-6)
    assert bt.HyperparameterSpace(scales(9)).current_at_once() is None


def test_ten_thousand_come_up():
    space = bt.HyperparameterSpace(scales(10_000))
    values = space.values()
    assert len(values) == len(space) == 10_000
    space.assign(values)
    np.testing.assert_allclose(space.values()["h9999"], values["h9999"], rtol=1e-5)
    written = json.dumps(keras.saving.serialize_keras_object(space))
    again = keras.saving.deserialize_keras_object(json.loads(written))
    assert again.names == space.names
    with pytest.raises(ValueError, match="and 9980 more") as caught:
        space["missing"]
    assert len(str(caught.value)) < 500


def test_a_vector_of_a_million():
    space = bt.HyperparameterSpace(l2=bt.LogUniform(1e-7, 1.0, np.full(10**6, 1e-3)))
    layer = bt.HyperDense(3, kernel_regularizer=bt.L2(space["l2"]))
    assert len(json.dumps(keras.saving.serialize_keras_object(space))) < 1000
    assert len(json.dumps(keras.saving.serialize_keras_object(layer))) < 3000
    assert len(repr(space["l2"])) < 200
    assert len(repr(space.scales["l2"])) < 200
    again = bt.HyperparameterSpace.from_config(space.get_config())
    assert again.scales == space.scales


def test_configs_with_lists_of_initial_values_still_load():
    config = bt.Positive([0.5] * 100).get_config()
    assert bt.Positive.from_config({**config, "initial": [0.5] * 100}).shape == (100,)
