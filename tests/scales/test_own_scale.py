"""A user's scale, whose unconstrained form has another shape than its value."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import config_of, value_for


@keras.saving.register_keras_serializable("tests")
class Simplex(bt.scales.Scale):
    """Positive numbers that sum to one."""

    ends = (0.0, 1.0)

    @property
    def unconstrained_shape(self):
        return (self.shape[0] - 1,)

    def constrain(self, unconstrained):
        last = tf.zeros_like(unconstrained[..., :1])
        return tf.nn.softmax(tf.concat([unconstrained, last], -1))

    def unconstrain(self, value):
        value = tf.convert_to_tensor(value)
        return tf.math.log(value[..., :-1] / value[..., -1:])

    def allows(self, value):
        return np.all(value > 0) and abs(np.sum(value) - 1) < 1e-5

    def describe(self):
        return "positive, with entries that sum to 1"


SHARES = [0.2, 0.3, 0.5]


def make(**options):
    return bt.HyperparameterSpace(
        before=bt.Positive(0.5),
        shares=Simplex(SHARES, **options),
        after=bt.Uniform(0.0, 1.0, initial=0.25),
    )


def softmax(x):
    powers = np.exp(np.concatenate([x, np.zeros_like(x[..., :1])], -1))
    return powers / powers.sum(-1, keepdims=True)


def test_sizes():
    space = make()
    assert space.scales["shares"].size == 2
    assert space.scales["shares"].shape == (3,)
    assert space.size == 4
    assert space.unconstrained.shape == (4,)


def test_values_and_assign(float64):
    space = make()
    np.testing.assert_allclose(space.values()["shares"], SHARES, rtol=1e-12)
    space.assign({"shares": [0.1, 0.6, 0.3]})
    values = space.values()
    np.testing.assert_allclose(values["shares"], [0.1, 0.6, 0.3], rtol=1e-12)
    np.testing.assert_allclose([values["before"], values["after"]], [0.5, 0.25])
    unconstrained = np.log([0.1 / 0.3, 0.6 / 0.3])
    np.testing.assert_allclose(space.unconstrained[1:3], unconstrained, rtol=1e-12)
    space.assign(space.values())
    np.testing.assert_allclose(space["shares"].value(), [0.1, 0.6, 0.3], rtol=1e-12)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_constrain_of_a_batch(batch, float64):
    space = make()
    vectors = np.random.default_rng(0).normal(size=(*batch, 4))
    values = space.constrain(tf.constant(vectors))
    assert values["shares"].shape == (*batch, 3)
    np.testing.assert_allclose(values["shares"], softmax(vectors[..., 1:3]), rtol=1e-12)
    after = 1 / (1 + np.exp(-vectors[..., 3]))
    np.testing.assert_allclose(values["after"], after, rtol=1e-12)


def test_constrain_of_a_batch_of_unknown_size():
    space = make()

    @tf.function(input_signature=[tf.TensorSpec([None, 4])])
    def constrain(vectors):
        return space.constrain(vectors)["shares"]

    assert constrain(tf.zeros([3, 4])).shape == (3, 3)


def test_unconstrain_inverts_constrain(float64):
    space = make()
    vector = tf.constant([0.3, -2.0, 1.5, -0.5], tf.float64)
    again = space.unconstrain(space.constrain(vector))
    np.testing.assert_allclose(again, vector, rtol=1e-10)


def test_perturbation():
    space = make(perturbation_scale=0.5, learn_perturbation_scale=False)
    assert space.perturbation_scales()["shares"].shape == (2,)
    np.testing.assert_allclose(space.perturbation_scale(), [1, 0.5, 0.5, 1], rtol=1e-6)
    masked = space.mask_fixed_scales(tf.ones(4))
    np.testing.assert_array_equal(masked, [1.0, 0.0, 0.0, 1.0])
    assert space.sample(3).shape == (3, 4)


def test_prior(float64):
    center = [0.2, 0.2, 0.6]
    prior = bt.scales.GaussianHyperprior(center, scale=3.0)
    space = bt.HyperparameterSpace(shares=Simplex(SHARES, prior=prior))
    mean, middle = np.log([0.4, 0.6]), np.log([1 / 3, 1 / 3])
    expected = np.log(3.0) + (1 + (mean - middle) ** 2) / 18 - 0.5
    np.testing.assert_allclose(space.complexity(), expected.sum(), rtol=1e-10)
    with pytest.raises(ValueError, match=r"`prior\.center` must be positive, with"):
        Simplex(SHARES, prior=bt.scales.GaussianHyperprior(0.2))
    with pytest.raises(ValueError, match=r"`prior\.center` must .* shape \(3,\)"):
        Simplex(SHARES, prior=bt.scales.GaussianHyperprior([0.5, 0.5]))


def test_config_round_trip():
    prior = bt.scales.GaussianHyperprior([0.2, 0.2, 0.6], scale=3.0)
    space = make(prior=prior)
    written = json.dumps(keras.saving.serialize_keras_object(space))
    again = keras.saving.deserialize_keras_object(json.loads(written))
    assert again.scales == space.scales
    assert again.size == 4


@pytest.mark.parametrize("shares", [[0.2, 0.3, 0.6], [1.0, 0.5, -0.5]])
def test_refuses(shares):
    with pytest.raises(ValueError, match="`shares` must be positive, with entries"):
        make().assign({"shares": shares})


@keras.saving.register_keras_serializable("tests")
class Mixture(keras.layers.Layer):
    """The weighted sum of the features."""

    shares = bt.Tunable(low=0.0, high=1.0, vector=True)

    def __init__(self, shares, **kwargs):
        super().__init__(**kwargs)
        self.shares = shares

    def call(self, inputs):
        shares = value_for(self.shares, inputs)
        return tf.reduce_sum(shares * inputs, -1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "shares": config_of(self.shares)}


METHODS = {
    "T1T2": lambda: bt.methods.T1T2(),
    "DeltaSTN": lambda: bt.DeltaSTN(train_steps=2),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_model_tunes_it(method, tmp_path):
    # The targets are the second feature.
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    hp = bt.HyperparameterSpace(
        shares=Simplex([1 / 3, 1 / 3, 1 / 3], perturbation_scale=0.1)
    )
    inputs = keras.Input((3,))
    outputs = bt.HyperDense(1)(Mixture(hp["shares"])(inputs))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss="mse",
        method=METHODS[method](),
        hyper_optimizer=keras.optimizers.Adam(0.1),
    )
    data = x, x[:, 1:2]
    model.fit(*data, batch_size=16, epochs=15, validation_data=data, verbose=0)
    shares = hp.values()["shares"]
    np.testing.assert_allclose(shares.sum(), 1.0, rtol=1e-6)
    assert shares[1] > 0.5 > 0.3 > max(shares[0], shares[2])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.hyperparameters.values()["shares"], shares)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    if method == "DeltaSTN":
        elsewhere = {"shares": [0.6, 0.2, 0.2]}
        np.testing.assert_array_equal(
            loaded.call_at(x, elsewhere), model.call_at(x, elsewhere)
        )


def test_without_derivative():
    @keras.saving.register_keras_serializable("tests")
    class Rounded(bt.Positive):
        differentiable = False

    hp = bt.HyperparameterSpace(x=Rounded(0.5))
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["x"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    expected = "T1T2 cannot reach 'x', positive, which has no derivative"
    with pytest.raises(ValueError, match=expected):
        model.compile(loss="mse", method=bt.methods.T1T2())
