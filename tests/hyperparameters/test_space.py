"""The space: values, perturbation, complexity, serialisation, and what it refuses."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt


def make(**options):
    return bt.HyperparameterSpace(
        dropout=bt.Uniform(0.0, 0.95, initial=0.05),
        decay=bt.LogUniform(1e-7, 1e-1, initial=1e-5, perturbation_scale=0.5),
        noise=bt.Positive([0.1, 0.2], perturbation_scale=2.0),
        holes=bt.Integer(0, 4, initial=1, learn_perturbation_scale=False),
        **options,
    )


def test_names_sizes_and_membership():
    space = make()
    assert space.names == ["dropout", "decay", "noise", "holes"]
    assert space.size == 5
    assert "decay" in space
    assert "rate" not in space


def test_names_that_are_not_identifiers():
    scale = bt.Unconstrained(1.0)
    space = bt.HyperparameterSpace({"weight decay": scale, "seed": scale}, more=scale)
    assert space.names == ["weight decay", "seed", "more"]
    pairs = bt.HyperparameterSpace([("b", scale), ("a", scale)])
    assert pairs.names == ["b", "a"]


def test_values_are_python_numbers(float64):
    values = make().values()
    assert type(values["dropout"]) is float
    assert type(values["decay"]) is float
    assert type(values["holes"]) is int
    assert isinstance(values["noise"], np.ndarray)
    np.testing.assert_allclose(values["dropout"], 0.05, rtol=1e-12)
    np.testing.assert_allclose(values["decay"], 1e-5, rtol=1e-12)
    np.testing.assert_allclose(values["noise"], [0.1, 0.2], rtol=1e-12)
    assert values["holes"] == 1


def test_assign_changes_what_it_names(float64):
    space = make()
    space.assign({"decay": 1e-3, "noise": [3.0, 1e-4], "holes": 4})
    values = space.values()
    np.testing.assert_allclose(values["dropout"], 0.05, rtol=1e-12)
    np.testing.assert_allclose(values["decay"], 1e-3, rtol=1e-12)
    np.testing.assert_allclose(values["noise"], [3.0, 1e-4], rtol=1e-12)
    assert values["holes"] == 4


def test_assign_next_to_an_end_stays_finite():
    # In single precision the value is 1, which is the end itself.
    space = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 1.0, initial=0.5))
    space.assign({"rate": 1.0 - 1e-9})
    unconstrained = space.unconstrained.numpy()
    np.testing.assert_allclose(unconstrained, np.log(1e9), rtol=1e-5)


def test_unconstrain_of_a_number_next_to_an_end_is_finite():
    space = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 1.0, initial=0.5))
    unconstrained = space.unconstrain({"rate": 1.0 - 1e-9})
    assert unconstrained.dtype == tf.float32
    np.testing.assert_allclose(unconstrained, [np.log(1e9)], rtol=1e-5)


def test_unconstrain_inverts_constrain(float64):
    space = make()
    vector = tf.constant([0.3, -2.0, 1.5, -0.5, 0.2], tf.float64)
    values = space.constrain(vector)
    again = space.unconstrain(values)
    np.testing.assert_allclose(again[:4], vector[:4], rtol=1e-10)
    assert space.constrain(again)["holes"] == values["holes"]


def test_unconstrain_leaves_the_rest_current(float64):
    space = make()
    before = space.unconstrained.numpy()
    vector = space.unconstrain({"decay": 1e-2})
    assert vector[1] != before[1]
    np.testing.assert_array_equal(np.delete(vector, 1), np.delete(before, 1))
    np.testing.assert_array_equal(space.unconstrained, before)


def test_unconstrain_is_differentiable(float64):
    space = make()
    rate = tf.constant(0.3, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(rate)
        vector = space.unconstrain({"dropout": rate})
    expected = 0.95 / (0.3 * (0.95 - 0.3))
    np.testing.assert_allclose(tape.gradient(vector, rate), expected, rtol=1e-10)


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3)])
def test_constrain_of_a_batch(batch, float64):
    space = make()
    vectors = np.random.normal(size=(*batch, 5))
    values = space.constrain(tf.constant(vectors))
    assert values["dropout"].shape == batch
    assert values["noise"].shape == (*batch, 2)
    np.testing.assert_allclose(
        values["dropout"], 0.95 / (1 + np.exp(-vectors[..., 0])), rtol=1e-12
    )
    np.testing.assert_allclose(
        values["noise"], np.log1p(np.exp(vectors[..., 2:4])), rtol=1e-12
    )
    holes = np.floor(5 / (1 + np.exp(-vectors[..., 4])))
    np.testing.assert_array_equal(values["holes"], holes)


def test_constrain_of_a_batch_of_unknown_size():
    space = make()

    @tf.function(input_signature=[tf.TensorSpec([None, 5])])
    def constrain(vectors):
        values = space.constrain(vectors)
        assert values["noise"].shape.as_list() == [None, 2]
        return values

    assert constrain(tf.zeros([3, 5]))["noise"].shape == (3, 2)
    assert constrain(tf.zeros([4, 5]))["dropout"].shape == (4,)


def test_its_variables_are_not_trainable():
    space = make()
    assert space.trainable_variables == []
    assert space.unconstrained.shape == space.raw_perturbation_scale.shape == (5,)


def test_mixed_precision_keeps_single_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        space = make()
        assert space.unconstrained.dtype == "float32"
        np.testing.assert_allclose(space.values()["dropout"], 0.05, rtol=1e-5)
        assert space.sample(3).dtype == tf.float32
    finally:
        keras.config.set_dtype_policy("float32")


# Perturbation


def test_perturbation_scales_are_those_given():
    space = make()
    sigma = space.perturbation_scale()
    np.testing.assert_allclose(sigma, [1.0, 0.5, 2.0, 2.0, 1.0], rtol=1e-6)
    by_name = space.perturbation_scales()
    assert type(by_name["decay"]) is float
    np.testing.assert_allclose(by_name["decay"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(by_name["noise"], [2.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("sigma", [1e-8, 1e-4, 0.1, 1.0, 30.0, 500.0])
def test_small_and_large_perturbation_scales_keep_their_digits(sigma):
    scale = bt.Unconstrained(0.0, perturbation_scale=sigma)
    space = bt.HyperparameterSpace(x=scale)
    np.testing.assert_allclose(space.perturbation_scale(), [sigma], rtol=1e-5)


def test_fixed_perturbation_scales_are_masked():
    gradient = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0])
    masked = make().mask_fixed_scales(gradient)
    np.testing.assert_array_equal(masked, [1.0, 2.0, 3.0, 4.0, 0.0])


def test_fixed_perturbation_scale_of_a_vector_is_masked(float64):
    space = bt.HyperparameterSpace(
        a=bt.Positive([0.1, 0.2], learn_perturbation_scale=False), b=bt.Positive(0.1)
    )
    gradient = tf.constant([1.0, 2.0, 3.0], tf.float64)
    np.testing.assert_array_equal(space.mask_fixed_scales(gradient), [0.0, 0.0, 3.0])


def test_sample_statistics():
    space = make(seed=7)
    count = 40_000
    samples = space.sample(count).numpy()
    sigma = np.array([1.0, 0.5, 2.0, 2.0, 1.0])
    assert samples.shape == (count, 5)
    # Six standard errors each.
    assert np.all(np.abs(samples.mean(0)) < 6 * sigma / np.sqrt(count))
    error = np.abs(samples.std(0) - sigma)
    assert np.all(error < 6 * sigma / np.sqrt(2 * count))
    correlations = np.corrcoef(samples.T) - np.eye(5)
    assert np.all(np.abs(correlations) < 6 / np.sqrt(count))
    # Of a normal distribution: the fourth moment is 3σ⁴, with variance 96σ⁸.
    fourth = (samples**4).mean(0) / sigma**4
    assert np.all(np.abs(fourth - 3) < 6 * np.sqrt(96 / count))


def test_samples_differ_and_follow_the_seed():
    first, second = make(seed=3), make(seed=3)
    a, b = first.sample(4).numpy(), first.sample(4).numpy()
    assert np.all(a != b)
    np.testing.assert_array_equal(second.sample(4), a)
    assert np.all(make(seed=4).sample(4).numpy() != a)


def test_sample_is_differentiable_in_sigma(float64):
    space = make(seed=1)
    raw = space.raw_perturbation_scale
    with tf.GradientTape() as tape:
        tape.watch(raw.value)
        samples = space.sample(6)
    sigma = space.perturbation_scale().numpy()
    slope = 1 - np.exp(-sigma)  # dσ/draw of a softplus
    expected = samples.numpy().sum(0) / sigma * slope
    np.testing.assert_allclose(tape.gradient(samples, raw.value), expected, rtol=1e-10)


# Complexity


def test_complexity_is_the_negative_entropy(float64):
    sigma = np.array([1.0, 0.5, 2.0, 2.0, 1.0])
    entropy = np.sum(0.5 * np.log(2 * np.pi * np.e * sigma**2))
    np.testing.assert_allclose(make().complexity(), -entropy, rtol=1e-12)


def test_gradient_of_the_entropy(float64):
    space = make()
    tuned = [space.unconstrained.value, space.raw_perturbation_scale.value]
    with tf.GradientTape() as tape:
        tape.watch(tuned)
        complexity = space.complexity()
    in_lambda, in_raw = tape.gradient(
        complexity, tuned, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    np.testing.assert_array_equal(in_lambda, np.zeros(5))
    sigma = np.array([1.0, 0.5, 2.0, 2.0, 1.0])
    # d(−log σ)/dσ = −1/σ, times the slope of the softplus.
    expected = -1 / sigma * (1 - np.exp(-sigma))
    np.testing.assert_allclose(in_raw, expected, rtol=1e-10)


def kl(mean, sigma, center, scale):
    squares = (sigma**2 + (mean - center) ** 2) / (2 * scale**2)
    return np.log(scale / sigma) + squares - 0.5


def test_prior_gives_the_kl_divergence(float64):
    prior = bt.scales.GaussianHyperprior(1e-3, scale=3.0)
    space = bt.HyperparameterSpace(
        flat=bt.Uniform(0.0, 1.0, initial=0.5, perturbation_scale=0.7),
        decay=bt.LogUniform(
            1e-4, 1.0, initial=1e-2, perturbation_scale=0.5, prior=prior
        ),
        vector=bt.Positive(
            [0.1, 2.0], prior=bt.scales.GaussianHyperprior(0.5, scale=0.25)
        ),
    )
    # On [1e-4, 1], 1e-3 is at a quarter of the logarithms, 1e-2 at a half.
    center, mean = np.log(0.25 / 0.75), 0.0
    expected = -0.5 * np.log(2 * np.pi * np.e * 0.7**2)
    expected += kl(mean, 0.5, center, 3.0)
    inverse_softplus = np.log(np.expm1(np.array([0.1, 2.0, 0.5])))
    for mean in inverse_softplus[:2]:
        expected += kl(mean, 1.0, inverse_softplus[2], 0.25)
    np.testing.assert_allclose(space.complexity(), expected, rtol=1e-10)


def test_gradient_of_the_kl_divergence(float64):
    space = bt.HyperparameterSpace(
        x=bt.Unconstrained(
            1.5,
            perturbation_scale=0.5,
            prior=bt.scales.GaussianHyperprior(-1.0, scale=2.0),
        )
    )
    tuned = [space.unconstrained.value, space.raw_perturbation_scale.value]
    with tf.GradientTape() as tape:
        tape.watch(tuned)
        complexity = space.complexity()
    in_lambda, in_raw = tape.gradient(complexity, tuned)
    np.testing.assert_allclose(in_lambda, [(1.5 + 1.0) / 4], rtol=1e-12)
    in_sigma = -1 / 0.5 + 0.5 / 4
    np.testing.assert_allclose(in_raw, [in_sigma * (1 - np.exp(-0.5))], rtol=1e-10)


def test_complexity_is_least_at_the_prior(float64):
    space = bt.HyperparameterSpace(
        x=bt.Unconstrained(
            -1.0,
            perturbation_scale=2.0,
            prior=bt.scales.GaussianHyperprior(-1.0, scale=2.0),
        )
    )
    np.testing.assert_allclose(space.complexity(), 0.0, atol=1e-14)


# Serialisation


def reserialized(space):
    written = json.dumps(keras.saving.serialize_keras_object(space))
    return keras.saving.deserialize_keras_object(json.loads(written))


def test_keras_serialization():
    space = make(seed=11, name="ours")
    again = reserialized(space)
    assert type(again) is bt.HyperparameterSpace
    assert again.name == "ours"
    assert again.seed == 11
    assert again.names == space.names
    assert again.scales == space.scales
    np.testing.assert_array_equal(again.sample(3), space.sample(3))


def test_serialization_with_priors_and_odd_names():
    prior = bt.scales.GaussianHyperprior(0.2, scale=0.5)
    space = bt.HyperparameterSpace(
        {"seed": bt.Positive([0.1, 0.3], prior=prior), "l 2": bt.Unconstrained(0.0)}
    )
    again = reserialized(space)
    assert again.scales == space.scales
    np.testing.assert_array_equal(again.complexity(), space.complexity())


def test_values_travel_as_weights_not_in_the_config():
    space = make()
    space.assign({"dropout": 0.5})
    again = bt.HyperparameterSpace.from_config(space.get_config())
    assert again.values()["dropout"] == make().values()["dropout"]
    again.set_weights(space.get_weights())
    np.testing.assert_array_equal(again.unconstrained, space.unconstrained)


def test_config_keeps_the_dtype(float64):
    config = make().get_config()
    keras.backend.set_floatx("float32")
    assert bt.HyperparameterSpace.from_config(config).unconstrained.dtype == "float64"


# What is refused


def test_empty():
    with pytest.raises(ValueError, match="needs at least one hyperparameter"):
        bt.HyperparameterSpace()


@pytest.mark.parametrize("hyperparameters", [{}, []])
def test_empty_collection(hyperparameters):
    with pytest.raises(ValueError, match="needs at least one hyperparameter"):
        bt.HyperparameterSpace(hyperparameters)


@pytest.mark.parametrize("scale", [0.5, None, "uniform", bt.Uniform])
def test_not_a_scale(scale):
    with pytest.raises(TypeError, match="Hyperparameter 'rate' must be a scale"):
        bt.HyperparameterSpace(rate=scale)


def test_duplicate_among_pairs():
    scale = bt.Unconstrained(0.0)
    with pytest.raises(ValueError, match="Hyperparameter 'a' is given twice"):
        bt.HyperparameterSpace([("a", scale), ("b", scale), ("a", scale)])


def test_duplicate_between_dict_and_names():
    scale = bt.Unconstrained(0.0)
    with pytest.raises(ValueError, match="Hyperparameter 'a' is given twice"):
        bt.HyperparameterSpace({"a": scale}, a=scale)


@pytest.mark.parametrize("name", ["", 3, None])
def test_name_is_not_a_string(name):
    with pytest.raises(TypeError, match="A name must be a non-empty string"):
        bt.HyperparameterSpace({name: bt.Unconstrained(0.0)})


UNKNOWN = {
    "getitem": lambda space: space["dropuot"],
    "assign": lambda space: space.assign({"dropuot": 0.5}),
    "unconstrain": lambda space: space.unconstrain({"dropuot": 0.5}),
}


@pytest.mark.parametrize("way", UNKNOWN)
def test_unknown_name(way):
    expected = (
        "Unknown hyperparameter 'dropuot'. Did you mean 'dropout'. "
        "The space has: dropout, decay, noise, holes"
    )
    with pytest.raises(ValueError, match=expected):
        UNKNOWN[way](make())


def test_unknown_name_like_no_other():
    with pytest.raises(ValueError, match=r"'xyz'\. The space has: dropout, decay"):
        make()["xyz"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropout": 0.95}, "`dropout` must be strictly between low=0.0"),
        ({"dropout": float("nan")}, "`dropout` must be strictly between"),
        ({"holes": 1.5}, "`holes` must be a whole number from low=0 to high=4"),
        ({"noise": 0.1}, r"`noise` must have shape \(2,\)"),
        ({"noise": [0.1, -0.1]}, "`noise` must be positive"),
        ({"dropout": [0.1]}, r"`dropout` must have shape \(\)"),
    ],
)
def test_assign_refuses_and_changes_nothing(values, message):
    space = make()
    before = space.unconstrained.numpy()
    with pytest.raises(ValueError, match=message):
        space.assign({"decay": 1e-3, **values})
    np.testing.assert_array_equal(space.unconstrained, before)


@pytest.mark.parametrize("raw", [-30.0, 30.0])
def test_values_next_to_an_end_can_be_assigned_back(raw):
    hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.95, initial=0.1))
    hp.unconstrained.assign([raw])
    hp.assign(hp.values())
    np.testing.assert_allclose(hp.unconstrained, [raw], rtol=1e-2)
