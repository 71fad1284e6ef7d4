"""What a scale does with extreme numbers, in the dtypes in which λ is held."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.scales.numbers import pack_array, to_array

SCALES = {
    "uniform": bt.Uniform(-0.5, 0.95, initial=0.05),
    "narrow": bt.Uniform(0.0, 1e-30, initial=1e-31),
    "wide": bt.Uniform(-1e38, 1e38, initial=0.0),
    "log_uniform": bt.LogUniform(1e-7, 1e-1, initial=1e-5),
    "all_of_float32": bt.LogUniform(1e-37, 1e36, initial=1.0),
    "positive": bt.Positive(0.3),
    "unconstrained": bt.Unconstrained(-2.5),
    "integer": bt.Integer(-2, 5, initial=1),
}
EXPONENTS = np.linspace(-3.0, 30.0, 133)
GRID = np.concatenate([-(10.0**EXPONENTS), [0.0], 10.0**EXPONENTS])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SCALES)
def test_value_and_derivatives_are_finite_everywhere(name, dtype):
    scale, at = SCALES[name], tf.constant(np.sort(GRID), dtype)
    with tf.GradientTape() as outer, tf.GradientTape() as inner:
        outer.watch(at)
        inner.watch(at)
        value = scale.constrain(at)
    assert np.all(np.isfinite(value))
    assert np.all(np.diff(value) >= 0)
    assert np.all(value >= tf.constant(scale.ends[0], dtype))
    assert np.all(value <= tf.constant(scale.ends[1], dtype))
    if scale.differentiable:
        slope = inner.gradient(value, at)
        assert np.all(np.isfinite(slope))
        assert np.all(slope >= 0)
        curvature = outer.gradient(slope, at, unconnected_gradients="zero")
        assert np.all(np.isfinite(curvature))


@pytest.mark.parametrize("name", ["uniform", "log_uniform", "positive"])
def test_single_precision_keeps_the_digits_of_the_slope_far_out(name):
    at = np.linspace(-80.0, 80.0, 65)
    slopes = []
    for dtype in ("float32", "float64"):
        source = tf.constant(at, dtype)
        with tf.GradientTape() as tape:
            tape.watch(source)
            value = SCALES[name].constrain(source)
        slopes.append(tape.gradient(value, source).numpy())
    np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("name", SCALES)
def test_compiled_by_xla(name):
    scale, at = SCALES[name], tf.constant([-1e30, -95.0, -1.0, 0.0, 2.0, 95.0, 1e30])

    def value_and_slope(at):
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = scale.constrain(at)
        return value, tape.gradient(value, at, unconnected_gradients="zero")

    expected = value_and_slope(at)
    found = tf.function(value_and_slope, jit_compile=True)(at)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-37)


def test_next_to_an_end_the_unconstrained_form_is_finite():
    near = np.nextafter(1e-7, 1.0)
    scale = bt.LogUniform(1e-7, 0.1, initial=near)
    unconstrained = scale.unconstrain(near).numpy()
    # log(v / low) is the relative distance, as a share of all logarithms.
    share = (near - 1e-7) / 1e-7 / np.log(1e6)
    np.testing.assert_allclose(unconstrained, np.log(share), rtol=1e-12)


REFUSED = {
    "unconstrained_overflows": (lambda: bt.Unconstrained(1e39), "initial"),
    "unconstrained_underflows": (lambda: bt.Unconstrained(-1e-46), "initial"),
    "one_entry": (lambda: bt.Unconstrained([1.0, 1e39]), "initial"),
    "positive_underflows": (lambda: bt.Positive(1e-60), "initial"),
    "positive_overflows": (lambda: bt.Positive(1e39), "initial"),
    "high_underflows": (lambda: bt.Uniform(0, 1e-46, initial=5e-47), "high"),
    "low_underflows": (lambda: bt.LogUniform(1e-50, 1.0, initial=0.1), "low"),
    "high_overflows": (lambda: bt.LogUniform(1.0, 1e40, initial=2.0), "high"),
    "slope_overflows": (lambda: bt.LogUniform(1e-3, 3e38, initial=2.0), "high"),
    "no_distance": (lambda: bt.Uniform(1.0, 1 + 1e-9, initial=1 + 5e-10), "distance"),
    "infinite_distance": (lambda: bt.Uniform(-3e38, 3e38, initial=0.0), "distance"),
    "next_to_an_end": (lambda: bt.Uniform(0.0, 1e30, initial=1e-12), "distance"),
    "large_integers": (lambda: bt.Integer(0, 10**8, initial=5), "whole numbers"),
    "sigma": (lambda: bt.Positive(1.0, perturbation_scale=1e-60), "perturbation_scale"),
    "prior_scale": (
        lambda: bt.Positive(1.0, prior=bt.scales.GaussianHyperprior(1.0, scale=1e-50)),
        "prior.scale",
    ),
    "prior_center": (
        lambda: bt.Positive(1.0, prior=bt.scales.GaussianHyperprior(1e-50)),
        "prior.center",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_single_precision_loses(case):
    make, named = REFUSED[case]
    with pytest.raises(ValueError, match=r"float32(.|\n)*Received: ") as caught:
        make()
    assert named in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("case", sorted(set(REFUSED) - {"no_distance"}))
def test_double_precision_takes_it(case, float64):
    make, _ = REFUSED[case]
    space = bt.HyperparameterSpace(x=make())
    assert space.unconstrained.dtype == "float64"
    assert np.all(np.isfinite(space.unconstrained))
    np.testing.assert_allclose(space.values()["x"], space["x"].initial, rtol=1e-6)


def test_a_space_checks_its_own_dtype(float64):
    scale = bt.Positive(1e-60)
    assert bt.HyperparameterSpace(x=scale).values()["x"] > 0
    with pytest.raises(ValueError, match="Hyperparameter 'x': `initial` must be"):
        bt.HyperparameterSpace(x=scale, dtype="float32")


def test_what_was_saved_in_double_precision_is_loaded(float64):
    space = bt.HyperparameterSpace(x=bt.Positive(1e-60))
    written = json.dumps(keras.saving.serialize_keras_object(space))
    keras.backend.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    again = keras.saving.deserialize_keras_object(json.loads(written))
    assert again.unconstrained.dtype == "float64"
    np.testing.assert_allclose(again.values()["x"], 1e-60)


@pytest.mark.parametrize(
    "policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]
)
def test_hyperparameters_are_held_in_single_precision_at_least(policy):
    keras.config.set_dtype_policy(policy)
    space = bt.HyperparameterSpace(decay=bt.LogUniform(1e-7, 1.0, initial=1e-6))
    assert space.unconstrained.dtype == space.dtype == "float32"
    assert space.perturbation_scale().dtype == tf.float32
    np.testing.assert_allclose(space.values()["decay"], 1e-6, rtol=1e-5)


@pytest.mark.parametrize("value", [1e39, 1e-46])
def test_assign_refuses_what_single_precision_loses(value):
    space = bt.HyperparameterSpace(a=bt.Positive(1.0), b=bt.Unconstrained(0.0))
    for name in "ab":
        with pytest.raises(ValueError, match=f"`{name}` must be 0 or from"):
            space.assign({name: value})
    assert space.values()["b"] == 0.0


class Reciprocal(bt.scales.Scale):
    """A user's scale, whose unconstrained form may overflow."""

    ends = (0.0, float("inf"))

    def constrain(self, unconstrained):
        return tf.exp(-tf.convert_to_tensor(unconstrained))

    def unconstrain(self, value):
        return 1e30 / tf.convert_to_tensor(value)

    def allows(self, value):
        return value > 0

    def describe(self):
        return "positive"


def test_infinite_form_of_a_scale_of_ones_own():
    with pytest.raises(ValueError, match=r"`x` must keep a distance .*infinite"):
        bt.HyperparameterSpace(x=Reciprocal(1e-20))


# In configs


@pytest.mark.parametrize(
    "array",
    [
        np.float64(0.1),
        np.arange(3.0),
        np.full((3, 100), 0.1),
        np.random.default_rng(0).normal(size=(7, 50)),
        np.random.default_rng(0).normal(size=500).astype("float32"),
    ],
    ids=["scalar", "small", "constant", "double", "single"],
)
def test_arrays_in_configs(array):
    packed = json.loads(json.dumps(pack_array(np.asarray(array, "float64"))))
    np.testing.assert_array_equal(to_array(packed, "initial"), array)


def test_a_large_vector_has_a_short_config():
    scale = bt.LogUniform(1e-6, 1.0, initial=np.full(10**6, 1e-3))
    assert len(json.dumps(scale.get_config())) < 300
    assert bt.LogUniform.from_config(scale.get_config()) == scale
    values = np.random.default_rng(0).random(10**5, "float32")
    config = bt.Unconstrained(values).get_config()
    # Base64 of four bytes an entry.
    assert len(json.dumps(config)) < 5.5 * len(values)


@pytest.mark.parametrize(
    "initial",
    ["0.3", ["0.3"], True, [True, False], 1j, {"a": 1.0}, np.array(["a"]), object()],
    ids=lambda initial: type(initial).__name__,
)
def test_initial_that_is_no_number(initial):
    with pytest.raises(ValueError, match="`initial` must be a number, or an array"):
        bt.Uniform(0.0, 1.0, initial=initial)


def test_long_values_are_shown_short():
    values = np.full(10**5, 0.5)
    values[777] = 1.5
    with pytest.raises(ValueError, match=r"entry \[777\] is 1.5") as caught:
        bt.Uniform(0.0, 1.0, initial=values)
    assert len(str(caught.value)) < 300
    space = bt.HyperparameterSpace(x=bt.Uniform(0.0, 1.0, initial=[0.5] * 1000))
    with pytest.raises(ValueError, match=r"must have shape \(1000,\)") as caught:
        space.assign({"x": values})
    assert len(str(caught.value)) < 300
