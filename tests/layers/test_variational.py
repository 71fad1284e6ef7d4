"""Layers with a posterior over their weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import bilevel_tf as bt
from bilevel_tf.layers.variational.estimators import ESTIMATORS, scaled

tfd = tfp.distributions
LAYERS = {
    "dense": (bt.VariationalDense, (4,), (3,)),
    "conv": (bt.layers.VariationalConv2D, (4, 2), (5, 5, 3)),
}


def make_layer(kind="dense", inputs=None, prior=None, **arguments):
    layer_class, sizes, shape = LAYERS[kind]
    arguments = {"initial_scale": 0.3, "seed": 1, "padding": "same", **arguments}
    if kind == "dense":
        del arguments["padding"]
    layer = layer_class(
        *sizes, prior=prior or bt.NormalPrior(2.0, data_size=10), **arguments
    )
    layer.build((None, *(inputs or shape)))
    for variable in layer.trainable_variables:
        if "raw" in variable.name:
            noise = np.random.default_rng(2).normal(size=variable.shape)
            variable.assign(np.asarray(variable) + 0.3 * noise)
    return layer


def example_inputs(kind="dense", count=2):
    rng = np.random.default_rng(3)
    return tf.constant(rng.normal(size=(count, *LAYERS[kind][2])))


def plain_counterpart(layer):
    """The Keras layer of the same arguments and means, built."""
    plain_class = type(layer).__mro__[2]
    plain = plain_class.from_config(plain_class.get_config(layer))
    plain.build(layer._build_shapes_dict["input_shape"])
    plain.set_weights([layer.kernel, layer.bias])
    return plain


# One pass


@pytest.mark.parametrize("kind", LAYERS)
def test_prediction_is_the_keras_layer_at_the_means(float64, kind):
    layer = make_layer(kind, activation="tanh")
    plain = plain_counterpart(layer)
    x = example_inputs(kind)
    np.testing.assert_array_equal(layer(x), plain(x))
    assert not layer.losses


@pytest.mark.parametrize("kind", LAYERS)
def test_prediction_computes_what_keras_computes(kind):
    layer = make_layer(kind)
    plain = plain_counterpart(layer)

    def operations(layer):
        spec = tf.TensorSpec((None, *LAYERS[kind][2]))
        traced = tf.function(lambda x: layer(x, training=False))
        graph = traced.get_concrete_function(spec).graph
        return sorted(op.type for op in graph.get_operations())

    assert operations(layer) == operations(plain)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("use_bias", [True, False])
def test_divergence_is_that_of_tfp(float64, kind, use_bias):
    layer = make_layer(kind, use_bias=use_bias)
    layer(example_inputs(kind), training=True)
    prior = tfd.Normal(tf.constant(0.0, tf.float64), 2.0**-0.5)
    expected = 0.0
    for posterior in layer.posteriors():
        q = tfd.Normal(np.asarray(posterior.mean), np.asarray(posterior.scale()))
        expected += tf.reduce_sum(tfd.kl_divergence(q, prior)) / 10
    np.testing.assert_allclose(sum(layer.losses), expected, rtol=1e-12)


def test_scales_start_where_they_are_told():
    layer = bt.VariationalDense(
        4, prior=bt.NormalPrior(data_size=1), initial_scale=0.07
    )
    layer.build((None, 3))
    for posterior in layer.posteriors():
        np.testing.assert_allclose(posterior.scale(), 0.07, rtol=1e-6)


def test_bias_has_a_prior_of_its_own(float64):
    layer = make_layer(bias_prior=bt.NormalPrior(100.0, data_size=10))
    layer(example_inputs(), training=True)
    _, bias = layer.posteriors()
    prior = bt.NormalPrior(100.0, data_size=10)
    expected = prior.kl_divergence(bias.distribution()) / 10
    np.testing.assert_allclose(layer.losses[1], expected, rtol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_mixture_is_estimated_at_a_draw(float64, estimator):
    # Of two equal components it is a normal, whose divergence is known.
    mixture = bt.regularizers.ScaleMixturePrior((2.0, 2.0), data_size=10)
    layer = make_layer(prior=mixture, estimator=estimator)
    x = example_inputs()

    @tf.function
    def divergence():
        layer(x, training=True)
        return tf.add_n(layer.losses)

    found = [float(divergence()) for _ in range(200)]
    normal = bt.NormalPrior(2.0, data_size=10)
    exact = sum(normal.kl_divergence(q.distribution()) for q in layer.posteriors()) / 10
    assert abs(np.mean(found) - exact) < 5 * np.std(found) / np.sqrt(len(found))


def test_layer_called_twice_has_one_divergence():
    layer = make_layer(kind="dense", inputs=(4,))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(layer(inputs)))
    model(np.ones((2, 4), "float32"), training=True)
    assert len(model.losses) == 2


def test_zero_inputs_have_gradients():
    layer = make_layer(use_bias=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.zeros((2, 3)), training=True) ** 2)
    for gradient in tape.gradient(loss, [v.value for v in layer.trainable_variables]):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", LAYERS)
def test_half_precision(kind, estimator):
    layer = make_layer(
        kind, estimator=estimator, dtype="mixed_float16", initial_scale=1e-5
    )
    outputs = layer(tf.cast(example_inputs(kind), "float16"), training=True)
    assert outputs.dtype == "float16"
    assert np.all(np.isfinite(outputs))
    assert all(loss.dtype == "float32" for loss in layer.losses)


# Estimators


def many_draws(kind, estimator, count, inputs):
    """Outputs of `count` training passes, `[count, *outputs]`."""
    layer = make_layer(kind, estimator=estimator)

    @tf.function
    def run():
        return tf.map_fn(
            lambda _: layer(inputs, training=True), tf.range(count), tf.float64
        )

    return layer, run().numpy()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_mean_and_variance_of_outputs(float64, kind, estimator):
    count, inputs = 4000, example_inputs(kind)
    layer, outputs = many_draws(kind, estimator, count, inputs)
    kernel, bias = [q.distribution() for q in layer.posteriors()]
    mean = layer.affine(inputs, kernel.loc, bias.loc)
    variance = layer.affine(inputs**2, kernel.scale**2, bias.scale**2)
    errors = (outputs.mean(0) - mean) / np.sqrt(variance / count)
    assert np.max(np.abs(errors)) < 5
    np.testing.assert_allclose(outputs.var(0), variance, rtol=0.25)


@pytest.mark.parametrize(
    ("estimator", "correlated"), [("shared", True), ("flipout", False)]
)
def test_correlation_between_examples(float64, estimator, correlated):
    # Both examples are alike, so that one draw gives both the same output.
    inputs = tf.constant(np.tile([[0.5, -1.0, 2.0]], (2, 1)))
    _, outputs = many_draws("dense", estimator, 2000, inputs)
    found = np.corrcoef(outputs[:, 0, 0], outputs[:, 1, 0])[0, 1]
    assert abs(found - correlated) < 0.15


def test_flipout_keeps_the_correlation_between_positions(float64):
    # A one-by-one convolution of equal positions: one draw gives them one output.
    inputs = tf.ones((1, 5, 5, 3), tf.float64)
    found = {}
    for estimator in ("flipout", "local"):
        prior = bt.NormalPrior(data_size=1)
        layer = bt.layers.VariationalConv2D(
            2, 1, prior=prior, estimator=estimator, initial_scale=0.3
        )
        outputs = np.asarray(layer(inputs, training=True))
        found[estimator] = np.ptp(outputs[..., 0])
    assert found["flipout"] < 1e-12
    assert found["local"] > 0.1


@pytest.mark.parametrize("kind", LAYERS)
def test_gradient_variance_is_below_that_of_the_shared_draw(float64, kind):
    batch = 32
    inputs = example_inputs(kind, batch)
    variances = {}
    for estimator in ESTIMATORS:
        layer = make_layer(kind, estimator=estimator)

        @tf.function
        def gradient(layer=layer):
            weight = layer.kernel.value
            with tf.GradientTape() as tape:
                tape.watch(weight)
                outputs = layer(inputs, training=True)
                loss = tf.reduce_mean(tf.square(outputs - 1.0))
            return tape.gradient(loss, weight)

        gradients = np.stack([gradient() for _ in range(150)])
        variances[estimator] = gradients.var(0).mean()
    assert variances["flipout"] < variances["shared"] / 2
    assert variances["local"] < variances["shared"] / 2


@pytest.mark.parametrize("jit", [False, True])
def test_derivatives_of_the_scaled_noise(float64, jit):
    noise, variance = tf.constant([0.3, -1.2], "float64"), np.array([0.5, 2.0])

    def derivative(order, v):
        if order == 0:
            return scaled(v, noise)
        with tf.GradientTape() as tape:
            tape.watch(v)
            below = derivative(order - 1, v)
        return tape.gradient(below, v)

    def tangent(v):
        with tf.autodiff.ForwardAccumulator(v, tf.ones_like(v)) as accumulator:
            outputs = derivative(1, v)
        return accumulator.jvp(outputs)

    second = -noise / 4 * variance**-1.5
    expected = [
        (lambda v: derivative(1, v), noise / 2 * variance**-0.5),
        (lambda v: derivative(2, v), second),
        (tangent, second),
        (lambda v: derivative(3, v), 3 * noise / 8 * variance**-2.5),
    ]
    for function, closed_form in expected:
        found = tf.function(function, jit_compile=jit)(tf.constant(variance))
        np.testing.assert_allclose(found, closed_form, rtol=1e-14)


# As Keras layers


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("jit", [False, True])
def test_in_a_plain_keras_model(kind, jit, tmp_path):
    shape = LAYERS[kind][2]
    inputs = keras.Input(shape)
    x = make_layer(kind, activation="relu")(inputs)
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse", jit_compile=jit)
    x = np.random.default_rng(0).normal(size=(20, *shape)).astype("float32")
    y = x.reshape(20, -1).sum(1, keepdims=True)
    before = [np.array(w) for w in model.weights]
    model.fit(x, y, epochs=2, verbose=0)
    assert all(np.any(b != w) for b, w in zip(before, model.weights, strict=True))
    # The divergence is part of the training loss alone.
    errors = model.predict(x, verbose=0) - y
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0), np.mean(errors**2), rtol=1e-4
    )
    model(x, training=True)
    assert len(model.losses) == 2
    model(x, training=False)
    assert not model.losses
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert loaded.layers[1].get_config() == model.layers[1].get_config()


def test_sampling_draws_one_network_per_call():
    layer = make_layer()
    x = tf.ones((5, 3))
    with bt.sampling():
        first, second = layer(x), layer(x)
    assert np.all(np.asarray(first) == np.asarray(first)[:1])
    assert np.all(np.asarray(first) != np.asarray(second))
    assert not layer.losses
    np.testing.assert_array_equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": 0.5}, r"`prior` must be a prior.*prior=0.5"),
        ({"bias_prior": "l2"}, r"`bias_prior` must be a prior"),
        ({"estimator": "reparam"}, r"`estimator` must be one of shared, local, flip"),
        ({"initial_scale": 0.0}, r"`initial_scale` must be positive"),
        ({"lora_rank": 2}, "does not take LoRA"),
        ({"dtype": "int8_from_float32"}, "does not take quantisation"),
    ],
)
def test_errors(arguments, message):
    arguments = {"prior": bt.NormalPrior(data_size=1), **arguments}
    with pytest.raises(ValueError, match=message):
        bt.VariationalDense(4, **arguments).build((None, 3))


def test_prior_that_does_not_fit_is_refused():
    def build(shape, **arguments):
        hp = bt.HyperparameterSpace(a=bt.Positive(initial=np.ones(shape)))
        prior = bt.NormalPrior(hp["a"], data_size=1)
        bt.VariationalDense(4, prior=prior, **arguments).build((None, 3))

    build((4,))
    build((3, 1), use_bias=False)
    build((3, 4), bias_prior=bt.NormalPrior(data_size=1))
    with pytest.raises(ValueError, match=r"'a' of shape \(5,\).*weight of shape"):
        build((5,))
    with pytest.raises(ValueError, match=r"'a' of shape \(3, 1\).*give `bias_prior`"):
        build((3, 1))


def test_fixed_prior_beside_layers_that_respond():
    # A best response is fitted in a model with posteriors whose prior is not tuned.
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((3,))
    x = bt.HyperDense(4, "tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    outputs = bt.VariationalDense(1, prior=bt.NormalPrior(data_size=20))(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("sgd", loss="mse", method=bt.DeltaSTN(train_steps=1))
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    y = x.sum(1, keepdims=True)
    history = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert hp.values()["l2"] != pytest.approx(1e-2)
    # The divergence is in the training loss of perturbed passes, too.
    assert history["loss"][-1] > history["val_loss"][-1] + 0.05
