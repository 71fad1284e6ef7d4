"""Scales against their formulas, and what they refuse."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


UNIFORM = bt.Uniform(-0.5, 0.95, initial=0.05)
LOG_UNIFORM = bt.LogUniform(1e-7, 1e-1, initial=1e-5)
POSITIVE = bt.Positive(0.3)
UNCONSTRAINED = bt.Unconstrained(-2.5)
INTEGER = bt.Integer(-2, 5, initial=1)

# Scale, its constrained value at λ, and values that it takes.
CONTINUOUS = {
    "uniform": (
        UNIFORM,
        lambda x: -0.5 + 1.45 * sigmoid(x),
        [-0.499, -0.1, 0.0, 0.05, 0.949],
    ),
    "log_uniform": (
        LOG_UNIFORM,
        lambda x: 1e-7 * (1e-1 / 1e-7) ** sigmoid(x),
        [1.01e-7, 1e-5, 3e-3, 0.099],
    ),
    "positive": (POSITIVE, lambda x: np.log1p(np.exp(x)), [1e-8, 0.3, 1.0, 40.0]),
    "unconstrained": (UNCONSTRAINED, lambda x: x, [-1e6, -2.5, 0.0, 1e-9, 7.0]),
}
SCALES = {name: case[0] for name, case in CONTINUOUS.items()} | {"integer": INTEGER}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_constrain_is_the_formula(name):
    scale, formula, _ = CONTINUOUS[name]
    unconstrained = np.linspace(-8.0, 8.0, 33)
    constrained = scale.constrain(unconstrained)
    assert constrained.dtype == tf.float64
    np.testing.assert_allclose(constrained, formula(unconstrained), rtol=1e-12)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_round_trip_from_constrained(name):
    scale, _, values = CONTINUOUS[name]
    values = np.array(values)
    np.testing.assert_allclose(
        scale.constrain(scale.unconstrain(values)), values, rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", CONTINUOUS)
def test_round_trip_from_unconstrained(name):
    scale, _, _ = CONTINUOUS[name]
    unconstrained = np.linspace(-6.0, 6.0, 25)
    np.testing.assert_allclose(
        scale.unconstrain(scale.constrain(unconstrained)),
        unconstrained,
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", CONTINUOUS)
def test_constrain_is_differentiable(name):
    scale, formula, _ = CONTINUOUS[name]
    at = tf.constant(np.linspace(-3.0, 3.0, 7))
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = scale.constrain(at)
    step = 1e-6
    difference = (formula(at.numpy() + step) - formula(at.numpy() - step)) / (2 * step)
    np.testing.assert_allclose(tape.gradient(value, at), difference, rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["uniform", "log_uniform", "integer"])
def test_saturation_stays_within_the_ends(name, dtype):
    scale = SCALES[name]
    far = np.array([-1e3, -60.0, 60.0, 1e3], dtype)
    values = scale.constrain(far).numpy()
    assert np.all(np.isfinite(values))
    np.testing.assert_allclose(values[:2], scale.low, rtol=1e-5)
    np.testing.assert_allclose(values[2:], scale.high, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integer_takes_every_value_and_no_other(dtype):
    unconstrained = np.linspace(-50.0, 50.0, 20001).astype(dtype)
    values = INTEGER.constrain(unconstrained).numpy()
    assert set(values) == {-2, -1, 0, 1, 2, 3, 4, 5}
    assert np.all(np.diff(values) >= 0)


@pytest.mark.parametrize("value", range(-2, 6))
def test_integer_round_trip(value):
    unconstrained = INTEGER.unconstrain(np.float64(value))
    assert np.isfinite(unconstrained)
    assert INTEGER.constrain(unconstrained) == value
    # The middle of the value's unit interval.
    middle = -2.0 + 8.0 * sigmoid(unconstrained.numpy())
    np.testing.assert_allclose(middle, value + 0.5, rtol=1e-12)


def test_integer_of_two_values():
    scale = bt.Integer(0, 1, initial=0)
    np.testing.assert_array_equal(scale.constrain([-0.1, 0.1]), [0, 1])


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 3)])
def test_vector_valued(shape):
    initial = np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape)
    scale = bt.Uniform(0.0, 1.0, initial=initial)
    assert scale.shape == shape
    assert scale.size == initial.size
    unconstrained = scale.unconstrain(initial)
    np.testing.assert_allclose(unconstrained, np.log(initial / (1 - initial)))
    np.testing.assert_allclose(scale.constrain(unconstrained), initial, rtol=1e-12)


def test_scalar_has_no_shape():
    assert UNIFORM.shape == ()
    assert UNIFORM.size == 1


def with_options(scale):
    config = {
        **scale.get_config(),
        "perturbation_scale": 0.25,
        "learn_perturbation_scale": False,
        "prior": bt.scales.GaussianHyperprior(scale.initial.ravel()[0], scale=2.0),
    }
    return type(scale).from_config(config)


ROUND_TRIPS = {
    **SCALES,
    **{f"{name}_with_options": with_options(s) for name, s in SCALES.items()},
    "vector": bt.LogUniform(1e-3, 1.0, initial=[0.1, 0.2]),
    "numpy_ends": bt.Uniform(np.float32(0.0), np.float32(2.0), initial=np.float32(1)),
    "numpy_integer": bt.Integer(np.int64(0), np.int64(3), initial=np.int64(1)),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_config_round_trip(name):
    scale = ROUND_TRIPS[name]
    again = type(scale).from_config(scale.get_config())
    assert again == scale
    np.testing.assert_array_equal(again.initial, scale.initial)


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_keras_serialization(name):
    scale = ROUND_TRIPS[name]
    written = json.dumps(keras.saving.serialize_keras_object(scale))
    again = keras.saving.deserialize_keras_object(json.loads(written))
    assert again == scale
    assert again.perturbation_scale == scale.perturbation_scale
    assert again.learn_perturbation_scale is scale.learn_perturbation_scale
    if scale.prior is not None:
        assert again.prior.get_config() == scale.prior.get_config()


def test_equality():
    assert bt.Uniform(0, 1, initial=0.5) == bt.Uniform(0, 1, initial=0.5)
    assert bt.Uniform(0, 1, initial=0.5) != bt.Uniform(0, 1, initial=0.4)
    assert bt.Uniform(0, 1, initial=0.5) != bt.Uniform(0, 2, initial=0.5)
    assert bt.Positive(0.5) != bt.Unconstrained(0.5)


# What is refused


@pytest.mark.parametrize("initial", [0.0, 1.0, -0.1, 1.1])
def test_uniform_initial_outside(initial):
    with pytest.raises(
        ValueError, match=r"`initial` must be strictly between low=0\.0 and high=1\.0"
    ):
        bt.Uniform(0.0, 1.0, initial=initial)


@pytest.mark.parametrize("initial", [1e-4, 1.0, 0.0, -1e-2])
def test_log_uniform_initial_outside(initial):
    with pytest.raises(
        ValueError, match=r"`initial` must be strictly between low=0\.0001"
    ):
        bt.LogUniform(1e-4, 1.0, initial=initial)


@pytest.mark.parametrize("initial", [0.0, -1.0])
def test_positive_initial_outside(initial):
    with pytest.raises(ValueError, match="`initial` must be positive"):
        bt.Positive(initial)


@pytest.mark.parametrize("initial", [float("inf"), float("-inf")])
def test_unconstrained_initial_infinite(initial):
    with pytest.raises(ValueError, match="`initial` must be finite"):
        bt.Unconstrained(initial)


@pytest.mark.parametrize("initial", [-1, 5, 2.5])
def test_integer_initial_outside_or_not_whole(initial):
    with pytest.raises(
        ValueError, match="`initial` must be a whole number from low=0 to high=4"
    ):
        bt.Integer(0, 4, initial=initial)


def test_one_entry_of_a_vector_outside():
    with pytest.raises(ValueError, match="`initial` must be strictly between"):
        bt.Uniform(0.0, 1.0, initial=[0.5, 1.5])


NAN = float("nan")
MADE_WITH = {
    "uniform": lambda initial: bt.Uniform(0.0, 1.0, initial=initial),
    "log_uniform": lambda initial: bt.LogUniform(0.1, 1.0, initial=initial),
    "positive": bt.Positive,
    "unconstrained": bt.Unconstrained,
    "integer": lambda initial: bt.Integer(0, 4, initial=initial),
}


@pytest.mark.parametrize("initial", [NAN, [0.5, NAN]])
@pytest.mark.parametrize("name", MADE_WITH)
def test_initial_nan(name, initial):
    with pytest.raises(ValueError, match=r"`initial` must be .*nan"):
        MADE_WITH[name](initial)


@pytest.mark.parametrize("name", MADE_WITH)
def test_initial_empty(name):
    with pytest.raises(ValueError, match="`initial` must not be empty"):
        MADE_WITH[name]([])


@pytest.mark.parametrize("scale_class", [bt.Uniform, bt.LogUniform, bt.Integer])
@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 2)])
def test_low_not_below_high(scale_class, low, high):
    with pytest.raises(
        ValueError, match=f"`low` must be less than `high`.*low={low}, high={high}"
    ):
        scale_class(low, high, initial=3)


@pytest.mark.parametrize("scale_class", [bt.Uniform, bt.LogUniform, bt.Integer])
@pytest.mark.parametrize(("low", "high"), [(NAN, 2.0), (1.0, NAN), (1.0, float("inf"))])
def test_ends_not_finite(scale_class, low, high):
    with pytest.raises(ValueError, match="`low` and `high` must be finite"):
        scale_class(low, high, initial=1.5)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_log_uniform_low_not_positive(low):
    with pytest.raises(ValueError, match=f"`low` must be positive.*low={low}"):
        bt.LogUniform(low, 1.0, initial=0.5)


@pytest.mark.parametrize(("low", "high"), [(0.5, 3), (0, 3.5)])
def test_integer_ends_not_whole(low, high):
    with pytest.raises(ValueError, match="`low` and `high` must be whole numbers"):
        bt.Integer(low, high, initial=1)


@pytest.mark.parametrize("sigma", [0.0, -1.0, NAN, float("inf")])
def test_perturbation_scale_not_positive(sigma):
    with pytest.raises(
        ValueError,
        match=f"`perturbation_scale` must be positive and finite.*={sigma}",
    ):
        bt.Uniform(0.0, 1.0, initial=0.5, perturbation_scale=sigma)


@pytest.mark.parametrize("prior", [0.5, "normal", keras.initializers.Zeros()])
def test_prior_of_another_type(prior):
    with pytest.raises(TypeError, match="`prior` must be None or a bilevel_tf"):
        bt.Uniform(0.0, 1.0, initial=0.5, prior=prior)


@pytest.mark.parametrize("center", [1.0, -3.0, NAN])
def test_prior_center_outside(center):
    with pytest.raises(ValueError, match=r"`prior\.center` must be strictly between"):
        bt.Uniform(0.0, 1.0, initial=0.5, prior=bt.scales.GaussianHyperprior(center))


@pytest.mark.parametrize("value", [[0.5], [0.1, 0.2, 0.3], 0.5])
def test_value_of_wrong_shape(value):
    scale = bt.Uniform(0.0, 1.0, initial=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"`rates` must have shape \(2,\).*rates="):
        scale.check_value(value, "rates")


def test_abstract_scale():
    with pytest.raises(NotImplementedError, match="Scale does not say its range"):
        bt.scales.Scale(0.5)
