"""Scales against their formulas, and what they refuse."""

import dataclasses
import json
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


NAN, INF = float("nan"), float("inf")


@dataclasses.dataclass
class Case:
    """A row of the table: a new scale needs no other.

    Attributes:
        make: Function that makes the scale from its initial value.
        initial: An initial value.
        formula: The value at λ, in NumPy.
        values: Values that the scale takes.
        refused: Values that it refuses.
        described: How the error describes its range.
        ends: Its ends.
        python_type: Type of a value that is read.
    """

    make: Callable
    initial: float
    formula: Callable
    values: list
    refused: list
    described: str
    ends: tuple
    python_type: type = float

    @property
    def scale(self):
        return self.make(self.initial)


TABLE = {
    "uniform": Case(
        make=lambda initial: bt.Uniform(-0.5, 0.95, initial=initial),
        initial=0.05,
        formula=lambda x: -0.5 + 1.45 * sigmoid(x),
        values=[-0.499, -0.1, 0.0, 0.05, 0.949],
        refused=[-0.5, 0.95, -0.6, 1.1],
        described="strictly between low=-0.5 and high=0.95",
        ends=(-0.5, 0.95),
    ),
    "log_uniform": Case(
        make=lambda initial: bt.LogUniform(1e-7, 1e-1, initial=initial),
        initial=1e-5,
        formula=lambda x: 1e-7 * (1e-1 / 1e-7) ** sigmoid(x),
        values=[1.01e-7, 1e-5, 3e-3, 0.099],
        refused=[1e-7, 1e-1, 0.0, -1e-2],
        described="strictly between low=1e-07 and high=0.1",
        ends=(1e-7, 1e-1),
    ),
    "positive": Case(
        make=bt.Positive,
        initial=0.3,
        formula=lambda x: np.log1p(np.exp(x)),
        values=[1e-8, 0.3, 1.0, 40.0],
        refused=[0.0, -1.0, INF],
        described="positive",
        ends=(0.0, INF),
    ),
    "unconstrained": Case(
        make=bt.Unconstrained,
        initial=-2.5,
        formula=lambda x: x,
        values=[-1e6, -2.5, 0.0, 1e-9, 7.0],
        refused=[INF, -INF],
        described="finite",
        ends=(-INF, INF),
    ),
    "integer": Case(
        make=lambda initial: bt.Integer(-2, 5, initial=initial),
        initial=1,
        formula=lambda x: np.floor(-2 + 8 * sigmoid(x)),
        values=[-2, -1, 0, 1, 2, 3, 4, 5],
        refused=[-3, 6, 2.5],
        described="a whole number from low=-2 to high=5",
        ends=(-2, 5),
        python_type=int,
    ),
}
SCALES = {name: case.scale for name, case in TABLE.items()}
DIFFERENTIABLE = [name for name, scale in SCALES.items() if scale.differentiable]
UNIFORM, INTEGER = SCALES["uniform"], SCALES["integer"]


@pytest.mark.parametrize("name", TABLE)
def test_says_what_is_special(name):
    case, scale = TABLE[name], SCALES[name]
    assert scale.differentiable == (name != "integer")
    assert scale.python_type is case.python_type
    assert tuple(scale.ends) == case.ends
    assert scale.unconstrained_shape == scale.shape == ()
    assert scale.size == 1
    assert np.all(scale.allows(np.array(case.values)))
    read = bt.HyperparameterSpace(x=scale).values()["x"]
    assert type(read) is case.python_type
    vector = bt.HyperparameterSpace(x=case.make([case.initial] * 2)).values()["x"]
    assert vector.dtype == np.dtype(case.python_type)


@pytest.mark.parametrize("name", TABLE)
def test_constrain_is_the_formula(name):
    scale, formula = SCALES[name], TABLE[name].formula
    unconstrained = np.linspace(-8.0, 8.0, 33)
    constrained = scale.constrain(unconstrained)
    assert constrained.dtype == tf.float64
    np.testing.assert_allclose(constrained, formula(unconstrained), rtol=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_round_trip_from_constrained(name):
    scale, values = SCALES[name], np.array(TABLE[name].values, "float64")
    np.testing.assert_allclose(
        scale.constrain(scale.unconstrain(values)), values, rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_round_trip_from_unconstrained(name):
    scale = SCALES[name]
    unconstrained = np.linspace(-6.0, 6.0, 25)
    np.testing.assert_allclose(
        scale.unconstrain(scale.constrain(unconstrained)),
        unconstrained,
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_constrain_is_differentiable(name):
    scale, formula = SCALES[name], TABLE[name].formula
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


@pytest.mark.parametrize("name", TABLE)
def test_initial_outside(name):
    case = TABLE[name]
    for initial in case.refused:
        with pytest.raises(ValueError, match=f"`initial` must be {case.described}"):
            case.make(initial)


@pytest.mark.parametrize("initial", ["a", None, [0.5, "b"], [[0.5], [0.5, 0.5]]])
@pytest.mark.parametrize("name", TABLE)
def test_initial_is_no_number(name, initial):
    expected = "`initial` must be (a number, or an array|.*nan)"
    with pytest.raises(ValueError, match=expected):
        TABLE[name].make(initial)


def test_one_entry_of_a_vector_outside():
    with pytest.raises(ValueError, match="`initial` must be strictly between"):
        bt.Uniform(0.0, 1.0, initial=[0.5, 1.5])


@pytest.mark.parametrize("initial", [NAN, [0.5, NAN]])
@pytest.mark.parametrize("name", TABLE)
def test_initial_nan(name, initial):
    with pytest.raises(ValueError, match=r"`initial` must be .*nan"):
        TABLE[name].make(initial)


@pytest.mark.parametrize("name", TABLE)
def test_initial_empty(name):
    with pytest.raises(ValueError, match="`initial` must not be empty"):
        TABLE[name].make([])


@pytest.mark.parametrize("scale_class", [bt.Uniform, bt.LogUniform, bt.Integer])
@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 2)])
def test_low_not_below_high(scale_class, low, high):
    with pytest.raises(
        ValueError, match=f"`low` must be less than `high`.*low={low}, high={high}"
    ):
        scale_class(low, high, initial=3)


@pytest.mark.parametrize("scale_class", [bt.Uniform, bt.LogUniform, bt.Integer])
@pytest.mark.parametrize(
    ("low", "high"), [(NAN, 2.0), (1.0, NAN), (1.0, INF), ("1", 2.0)]
)
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
