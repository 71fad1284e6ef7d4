"""What every responding layer must do: one row per layer, every check on every row.

Responses are compared with the Keras layer at each example's own weights, which are
formed here from Δw = Θδ alone.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing

import bilevel_tf as bt
from bilevel_tf.autodiff.tangents import Tangents
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.layers.counterparts import HYPER, plain_class
from bilevel_tf.layers.linear_map import vectorizes
from bilevel_tf.layers.response.full import FullResponse
from bilevel_tf.layers.response.structured import StructuredResponse

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

layers = bt.layers
BATCH, SIZE = 3, 2
RESPONSES = {"structured": StructuredResponse, "full": FullResponse}

# The class, its arguments, the shape of one example, and the shape of the units of
# every weight.
ROWS = {
    "Dense": (layers.HyperDense, {"units": 3, "activation": "tanh"}, (4,), [(3,)] * 2),
    "Conv1D": (
        layers.HyperConv1D,
        {"filters": 3, "kernel_size": 2},
        (5, 2),
        [(3,)] * 2,
    ),
    "Conv1D causal": (
        layers.HyperConv1D,
        {"filters": 3, "kernel_size": 2, "padding": "causal", "dilation_rate": 2},
        (5, 2),
        [(3,)] * 2,
    ),
    "Conv1D grouped": (
        layers.HyperConv1D,
        {"filters": 4, "kernel_size": 2, "groups": 2, "strides": 2},
        (5, 2),
        [(4,)] * 2,
    ),
    "Conv2D": (
        layers.HyperConv2D,
        {"filters": 3, "kernel_size": 2, "activation": "tanh", "padding": "same"},
        (4, 3, 2),
        [(3,)] * 2,
    ),
    "Conv3D": (
        layers.HyperConv3D,
        {"filters": 3, "kernel_size": 2, "use_bias": False},
        (3, 3, 3, 2),
        [(3,)],
    ),
    "Conv1DTranspose": (
        layers.HyperConv1DTranspose,
        {"filters": 3, "kernel_size": 2, "strides": 2},
        (4, 2),
        [(3,)] * 2,
    ),
    "Conv2DTranspose": (
        layers.HyperConv2DTranspose,
        {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"},
        (3, 3, 2),
        [(3,)] * 2,
    ),
    # As many channels in as out, where a mix-up of the two would fit the shapes.
    "Conv2DTranspose square": (
        layers.HyperConv2DTranspose,
        {"filters": 2, "kernel_size": 2, "activation": "tanh"},
        (3, 3, 2),
        [(2,)] * 2,
    ),
    "Conv3DTranspose": (
        layers.HyperConv3DTranspose,
        {"filters": 3, "kernel_size": 2},
        (2, 2, 2, 2),
        [(3,)] * 2,
    ),
    "DepthwiseConv1D": (
        layers.HyperDepthwiseConv1D,
        {"kernel_size": 2, "depth_multiplier": 2},
        (4, 3),
        [(3, 2), (6,)],
    ),
    "DepthwiseConv2D": (
        layers.HyperDepthwiseConv2D,
        {"kernel_size": 2, "depth_multiplier": 2, "activation": "tanh"},
        (4, 3, 2),
        [(2, 2), (4,)],
    ),
    "DepthwiseConv2D dilated": (
        layers.HyperDepthwiseConv2D,
        {"kernel_size": 2, "dilation_rate": 2, "use_bias": False},
        (4, 4, 3),
        [(3, 1)],
    ),
    "SeparableConv1D": (
        layers.HyperSeparableConv1D,
        {"filters": 3, "kernel_size": 2, "padding": "same"},
        (4, 2),
        [(2, 1), (3,), (3,)],
    ),
    "SeparableConv2D": (
        layers.HyperSeparableConv2D,
        {"filters": 3, "kernel_size": 2, "depth_multiplier": 2, "strides": 2},
        (5, 4, 2),
        [(2, 2), (3,), (3,)],
    ),
    "Embedding": (
        layers.HyperEmbedding,
        {"input_dim": 5, "output_dim": 3},
        (4,),
        [(3,)],
    ),
    "EinsumDense": (
        layers.HyperEinsumDense,
        {"equation": "abc,cd->abd", "output_shape": (4, 3), "bias_axes": "d"},
        (4, 2),
        [(3,), (3,)],
    ),
    "EinsumDense two units": (
        layers.HyperEinsumDense,
        {
            "equation": "abc,cde->abde",
            "output_shape": (4, 3, 2),
            "bias_axes": "de",
            "activation": "tanh",
        },
        (4, 2),
        [(3, 2), (3, 2)],
    ),
    # Units in another order than in the outputs, and a bias along the first of them.
    "EinsumDense swapped": (
        layers.HyperEinsumDense,
        {"equation": "abc,cde->abed", "output_shape": (4, 2, 3), "bias_axes": "e"},
        (4, 2),
        [(3, 2), (2,)],
    ),
    "EinsumDense merged": (
        layers.HyperEinsumDense,
        {"equation": "abde,dec->abc", "output_shape": (4, 3), "bias_axes": "bc"},
        (4, 2, 2),
        [(3,), (4, 3)],
    ),
    # One kernel per position: positions are units, too.
    "EinsumDense positions": (
        layers.HyperEinsumDense,
        {"equation": "abc,bcd->abd", "output_shape": (4, 3)},
        (4, 2),
        [(4, 3)],
    ),
    # Keras 3.15 mixes up the sizes of the axes that an ellipsis stands for.
    "EinsumDense ellipsis": (
        layers.HyperEinsumDense,
        {"equation": "...x,xy->...y", "output_shape": 3, "bias_axes": "y"},
        (3, 3, 2),
        [(3,), (3,)],
    ),
    "EinsumDense trailing ellipsis": (
        layers.HyperEinsumDense,
        {"equation": "ab...,bc->ac...", "output_shape": 3, "bias_axes": "c"},
        (2, 4),
        [(3,), (3,)],
    ),
}


def make(row, response="structured", **arguments):
    """A layer with random weights and responses, and inputs for it."""
    layer_class, given, shape, _ = ROWS[row]
    layer = layer_class(**{**given, **arguments})
    layer.build((None, *shape))
    layer.attach_response(RESPONSES[response], SIZE)
    for variable in layer.weights:
        variable.assign(np.random.normal(size=variable.shape) * 0.5)
    return layer, make_inputs(row)


def make_inputs(row, count=BATCH):
    shape = (count, *ROWS[row][2])
    if ROWS[row][0] is layers.HyperEmbedding:
        return tf.constant(np.random.randint(0, 5, shape))
    return tf.constant(np.random.normal(size=shape).astype(keras.config.floatx()))


def make_delta(rows=BATCH):
    delta = np.random.normal(size=(rows, SIZE)).astype(keras.config.floatx())
    return tf.constant(delta)


def shifts(row, layer, delta):
    """Δw of every weight at one δ of shape `[h]`, by the definition of Θ."""
    found = []
    for response, units in zip(layer.responses.values(), ROWS[row][3], strict=True):
        if isinstance(response, FullResponse):
            found.append(np.tensordot(delta, response.jacobian, 1))
            continue
        assert response.factor.shape == (SIZE, *units)
        factor = np.tensordot(delta, response.factor, 1)
        axes = response.linear_map.unit_axes
        shape = np.ones(len(response.direction.shape), int)
        shape[list(axes)] = units
        found.append(factor.reshape(shape) * np.array(response.direction))
    return found


def plain_layer(layer, row, weights):
    """The Keras layer with these weights."""
    plain = plain_class(type(layer)).from_config(layer.get_config())
    assert type(plain).__module__.startswith("keras.")
    plain.build((None, *ROWS[row][2]))
    plain.set_weights(weights)
    return plain


def own_outputs(row, layer, inputs, delta):
    """The outputs of the Keras layer at each example's own weights."""
    outputs = []
    for i in range(len(inputs)):
        weights = [np.array(w) for w in layer.responding_weights()]
        moved = zip(weights, shifts(row, layer, delta[i]), strict=True)
        plain = plain_layer(layer, row, [w + shift for w, shift in moved])
        outputs.append(plain(inputs[i : i + 1]))
    return np.concatenate(outputs)


# Outputs


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("row", ROWS)
def test_every_example_has_its_own_weights(row, response, float64):
    layer, inputs = make(row, response)
    delta = make_delta()
    with begin_pass(delta=delta):
        ours = layer(inputs)
    expected = own_outputs(row, layer, inputs, delta.numpy())
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
    assert np.max(np.abs(ours - layer(inputs))) > 0.05


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("row", ROWS)
def test_shared_delta_equals_one_per_example(row, response, float64):
    layer, inputs = make(row, response)
    delta = make_delta(1)
    with begin_pass(delta=delta):
        shared = layer(inputs)
    with begin_pass(delta=tf.repeat(delta, BATCH, 0)):
        per_example = layer(inputs)
    np.testing.assert_allclose(shared, per_example, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row", ROWS)
def test_nothing_perturbed_is_keras_exactly(row):
    layer, inputs = make(row)
    plain = plain_layer(layer, row, [np.array(w) for w in layer.responding_weights()])
    expected = plain(inputs)
    np.testing.assert_array_equal(layer(inputs), expected)
    for rows in (1, BATCH):
        with begin_pass(delta=tf.zeros([rows, SIZE])):
            np.testing.assert_array_equal(layer(inputs), expected)


@pytest.mark.parametrize("row", ROWS)
def test_unperturbed_layer_computes_what_keras_computes(row):
    layer, inputs = make(row)
    plain = plain_layer(layer, row, [np.array(w) for w in layer.responding_weights()])

    def operations(layer):
        traced = tf.function(lambda inputs: layer(inputs))
        graph = traced.get_concrete_function(inputs).graph
        return sorted(op.type for op in graph.get_operations())

    assert operations(layer) == operations(plain)


@pytest.mark.parametrize("row", ROWS)
def test_unknown_batch_size(row):
    layer, inputs = make(row)
    delta = make_delta()
    signature = [
        tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype),
        tf.TensorSpec([None, SIZE]),
    ]

    @tf.function(input_signature=signature)
    def call(inputs, delta):
        with begin_pass(delta=delta):
            return layer(inputs)

    with begin_pass(delta=delta):
        expected = layer(inputs)
    np.testing.assert_allclose(call(inputs, delta), expected, rtol=1e-4, atol=1e-5)


# The linearised pass


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("row", ROWS)
def test_linearized_tangent_is_a_central_difference(row, response, float64):
    """Of the layer by δ, and by inputs that depend on δ themselves."""
    layer, inputs = make(row, response)
    delta = make_delta()
    floating = inputs.dtype.is_floating
    moves = tf.reshape(delta[:, 0], [-1] + [1] * (inputs.shape.rank - 1))

    def outputs_at(step):
        with begin_pass(delta=step * delta):
            return layer(inputs + step * moves if floating else inputs)

    with Tangents(delta, delta) as tangents:
        moved = tf.reshape(delta[:, 0], moves.shape) - moves
        below = inputs + moved if floating else inputs
        with begin_pass(delta=delta, tangents=tangents):
            outputs = layer(below)
        tangent = tangents.of(outputs)
    np.testing.assert_allclose(outputs, layer(inputs), rtol=1e-12, atol=1e-14)
    expected = (outputs_at(1e-5) - outputs_at(-1e-5)) / 2e-5
    np.testing.assert_allclose(tangent, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("row", ROWS)
def test_linearized_gradients_are_those_of_the_tangent(row, response, float64):
    """With respect to Θ: those of ⟨c, tangent⟩; for weights and inputs, Keras's."""
    layer, inputs = make(row, response)
    delta = make_delta()
    sources = [v.value for v in layer.response_variables]
    ordinary = [v.value for v in layer.responding_weights()]
    with Tangents(delta, delta) as tangents, tf.GradientTape() as tape:
        tape.watch([*sources, *ordinary])
        with begin_pass(delta=delta, tangents=tangents):
            outputs = layer(inputs)
    cotangent = tf.constant(np.random.normal(size=outputs.shape))
    ours = tape.gradient(outputs, [*sources, *ordinary], output_gradients=cotangent)
    with tf.GradientTape() as tape:
        tape.watch(ordinary)
        plain = layer(inputs)
    theirs = tape.gradient(plain, ordinary, output_gradients=cotangent)
    for a, b in zip(ours[len(sources) :], theirs, strict=True):
        np.testing.assert_allclose(*map(tf.convert_to_tensor, (a, b)), rtol=1e-9)

    def tangent_along():
        with Tangents(delta, delta) as tangents:
            with begin_pass(delta=delta, tangents=tangents):
                outputs = layer(inputs)
            return tf.reduce_sum(cotangent * tangents.of(outputs))

    for variable, gradient in zip(layer.response_variables, ours, strict=False):
        start, step = variable.numpy(), np.random.normal(size=variable.shape)
        variable.assign(start + 1e-4 * step)
        above = tangent_along()
        variable.assign(start - 1e-4 * step)
        difference = (above - tangent_along()) / 2e-4
        variable.assign(start)
        gradient = tf.convert_to_tensor(gradient)
        np.testing.assert_allclose(
            np.sum(gradient * step), difference, rtol=1e-6, atol=1e-8
        )


# Inner products and penalties


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("row", ROWS)
def test_inner_products(row, response, float64):
    layer, _ = make(row, response)
    delta = make_delta()
    expected = [shifts(row, layer, d) for d in delta.numpy()]
    for index, ours in enumerate(layer.responses.values()):
        moved = np.stack([of_example[index] for of_example in expected])
        axes = tuple(range(1, moved.ndim))
        direction = np.random.normal(size=moved.shape[1:])
        np.testing.assert_allclose(
            ours.inner(tf.constant(direction), delta),
            np.sum(direction * moved, axes),
            rtol=1e-9,
            atol=1e-12,
        )
        np.testing.assert_allclose(
            ours.squared_norm(delta), np.sum(moved**2, axes), rtol=1e-9
        )
        for i in range(BATCH):
            shift = ours.shift(delta[i : i + 1])
            np.testing.assert_allclose(shift, moved[i], rtol=1e-9, atol=1e-12)
            at = layer.weights_at(delta[i : i + 1])[index] - layer.get_weights()[index]
            np.testing.assert_allclose(at, moved[i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("row", ROWS)
def test_penalties(row, float64):
    """Of every weight, with tuned and fixed factors, each example at its own."""
    hp = bt.HyperparameterSpace(a=bt.Positive(0.3), b=bt.Positive(0.7))
    names = [key for key in vars(make(row)[0]) if key.endswith("_regularizer")]
    names.remove("activity_regularizer")
    kinds = [bt.regularizers.L1L2(hp["a"], 0.2), bt.L2(hp["b"]), bt.L1(0.4)]
    given = dict(zip(names, kinds, strict=False))
    layer, _ = make(row, **given)
    expected = ["a", "b"][: len(names)]
    assert [reference.name for reference in references(layer)] == expected
    factors = {"a": np.linspace(0.1, 0.9, BATCH), "b": np.linspace(2.0, 0.5, BATCH)}
    # No weight changes its sign, so that the first order of |w| is exact.
    delta = make_delta().numpy() * 1e-3
    expected = np.zeros(BATCH)
    for i in range(BATCH):
        weights = layer.responding_weights()
        for weight, shift in zip(weights, shifts(row, layer, delta[i]), strict=True):
            w = weight.numpy() + shift
            assert np.all(np.sign(w) == np.sign(weight.numpy()))
            absolute, square = np.sum(np.abs(w)), np.sum(w**2)
            expected[i] += {
                0: factors["a"][i] * absolute + 0.2 * square,
                1: factors["b"][i] * square,
                2: 0.4 * absolute,
            }[kinds.index(weight.regularizer)]
    values = {name: tf.constant(value) for name, value in factors.items()}
    with begin_pass(values=values):
        ours = layer.penalty(tf.constant(delta))
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


# How responses start


@pytest.mark.parametrize("row", ROWS)
def test_new_responses_start_along_the_weights_and_have_no_effect(row):
    layer_class, arguments, shape, _ = ROWS[row]
    layer = layer_class(**arguments)
    layer.build((None, *shape))
    layer.attach_response(StructuredResponse, SIZE)
    inputs = make_inputs(row)
    with begin_pass(delta=make_delta()):
        np.testing.assert_array_equal(layer(inputs), layer(inputs))
    entries = 1
    for name, response in layer.responses.items():
        weight = np.array(getattr(layer, name))
        direction = np.array(response.direction)
        assert not np.any(response.factor)
        if name == "bias":
            assert 0 < np.max(np.abs(direction)) <= 1 / np.sqrt(entries)
        else:
            np.testing.assert_array_equal(direction, weight)
            entries = weight.size / np.prod(response.factor.shape[1:])


# Keras


@pytest.mark.parametrize("row", ROWS)
def test_run_layer_test(row):
    layer_class, arguments, shape, units = ROWS[row]
    embedding = layer_class is layers.HyperEmbedding
    plain = plain_class(layer_class)(**arguments)
    # Some releases of Keras know the shape of an einsum only when it is built.
    plain.build((BATCH, *shape))
    testing.TestCase().run_layer_test(
        layer_class,
        init_kwargs=arguments,
        input_shape=(BATCH, *shape),
        input_dtype="int32" if embedding else "float32",
        expected_output_shape=plain.compute_output_shape((BATCH, *shape)),
        expected_num_trainable_weights=len(units),
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=plain.supports_masking,
        run_training_check=not embedding,
    )


@pytest.mark.parametrize("rows", [1, BATCH])
@pytest.mark.parametrize("row", ROWS)
def test_mixed_bfloat16(row, rows):
    single, inputs = make(row)
    layer, _ = make(row, dtype="mixed_bfloat16")
    assert {v.dtype for v in layer.weights} == {"float32"}
    layer.set_weights(single.get_weights())
    with begin_pass(delta=make_delta(rows)) as entered:
        ours, expected = layer(inputs), single(inputs)
        assert ours.dtype == tf.bfloat16
        # bfloat16 has eight bits; a dozen products of numbers around one are summed.
        bound = 16 * 2.0**-8 * max(1, np.max(np.abs(expected)))
        assert np.max(np.abs(tf.cast(ours, tf.float32) - expected)) < bound
        delta = entered.delta
    delta = tf.repeat(delta, BATCH // rows, 0)
    with (
        Tangents(delta, delta) as tangents,
        begin_pass(delta=delta, tangents=tangents),
    ):
        assert layer(inputs).dtype == tf.bfloat16


# In a model: all rows side by side, because tracing takes longer than training


def branches(rows, hp):
    """One input for every row, and the layer's outputs on it, all penalised."""
    inputs, outputs = {}, []
    for row in rows:
        layer_class, arguments, shape, _ = ROWS[row]
        keys = layer_class(**arguments).get_config()
        keys = [key for key in keys if key.endswith("_regularizer")]
        penalties = {key: bt.L2(hp["decay"]) for key in keys if "activity" not in key}
        integers = layer_class is layers.HyperEmbedding
        dtype = "int32" if integers else "float32"
        x = inputs[row] = keras.Input(shape, dtype=dtype, name=row)
        if not integers:
            x = bt.HyperDropout(hp["rate"])(x)
        x = layer_class(
            **arguments, **penalties, name=f"{row.replace(' ', '_')}_layer"
        )(x)
        outputs.append(keras.layers.Flatten()(x))
    return inputs, outputs


def classifier(rows, **arguments):
    hp = bt.HyperparameterSpace(
        rate=bt.Uniform(0.0, 0.9, initial=0.3),
        decay=bt.LogUniform(1e-5, 1.0, initial=1e-2),
        seed=3,
    )
    inputs, outputs = branches(rows, hp)
    x = bt.HyperDropout(hp["rate"])(keras.layers.Concatenate()(outputs))
    model = bt.BilevelModel(inputs, bt.HyperDense(2)(x), hyperparameters=hp)
    model.compile(
        optimizer="sgd",
        hyper_optimizer="sgd",
        method=bt.DeltaSTN(train_steps=1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **arguments,
    )
    return model


@pytest.mark.parametrize("jit_compile", [False, True])
def test_all_train_and_survive_saving(jit_compile, tmp_path):
    # XLA takes long: one row of each class.
    once = {layer_class: row for row, (layer_class, *_) in reversed(ROWS.items())}
    rows = list(once.values()) if jit_compile else list(ROWS)
    model = classifier(rows, jit_compile=jit_compile)
    before = [w.numpy() for w in model.trainable_weights]
    x = {row: make_inputs(row, 6) for row in rows}
    y = np.array([0, 1, 0, 1, 1, 0])
    model.fit(x, y, validation_data=(x, y), batch_size=3, epochs=1, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.all(np.isfinite(weight)), weight.path
        assert not np.array_equal(weight, old), weight.path
    for layer in model.network.responding_layers:
        assert len(layer.responses) == len(layer.trainable_weights)
        for name, response in layer.responses.items():
            assert np.any(response.factor), (layer.name, name)
    if jit_compile:
        return
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)
    at = {"rate": 0.5, "decay": 0.1}
    np.testing.assert_allclose(
        loaded.call_at(x, at), model.call_at(x, at), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("row", ROWS)
def test_conversion_both_ways(row):
    layer_class, arguments, shape, _ = ROWS[row]
    integers = layer_class is layers.HyperEmbedding
    inputs = keras.Input(shape, dtype="int32" if integers else "float32")
    kind = plain_class(layer_class)
    assert HYPER[kind] is layer_class
    plain = keras.Model(inputs, kind(**arguments, name="tested")(inputs))
    hp = bt.HyperparameterSpace(a=bt.Positive(0.3))
    model = bt.BilevelModel.from_keras(plain, hp)
    layer = model.get_layer("tested")
    assert type(layer) is layer_class
    # Predictions of an uncentered response are those at Θλ.
    model.compile(loss="mse", method=bt.STN())
    for variable in layer.response_variables:
        variable.assign(np.random.normal(size=variable.shape))
    x = make_inputs(row)
    back = model.to_keras()
    assert type(back.get_layer("tested")) is kind
    np.testing.assert_allclose(back(x), model(x), rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(back(x) - plain(x))) > 1e-2


# What cannot respond


@pytest.mark.parametrize(
    ("equation", "bias_axes"),
    [("abc,cd->bad", None), ("abc,cd->bd", None), ("abc,acd->abd", None)],
)
def test_einsum_without_the_batch_first(equation, bias_axes):
    with pytest.raises(ValueError, match=f"`equation` must.*equation='{equation}'"):
        layers.HyperEinsumDense(equation, (4, 3), bias_axes=bias_axes)


def test_conversion_keeps_an_einsum_that_cannot_respond():
    inputs = keras.Input((3, 2), batch_size=3)
    odd = keras.layers.EinsumDense("abc,cd->bad", (3, 5), name="odd")
    plain = keras.Model(inputs, odd(inputs))
    model = bt.BilevelModel.from_keras(
        plain, bt.HyperparameterSpace(a=bt.Positive(0.3))
    )
    assert type(model.get_layer("odd")) is keras.layers.EinsumDense


class ConvolutionOfSomebody(keras.layers.Conv2D):
    """A subclass that the registry does not know."""


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Dense(2), True),
        (keras.layers.LSTM(2), True),
        (keras.layers.EinsumDense("abc,cd->bad", (3, 5)), True),
        (keras.layers.Conv2D(2, 3), False),
        (keras.layers.SeparableConv1D(2, 3), False),
        (ConvolutionOfSomebody(2, 3), False),
        (layers.HyperDense(2), True),
        (layers.HyperConv2DTranspose(2, 3), False),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_convolutions_do_not_vectorize(layer, expected):
    assert vectorizes(layer) == expected


@pytest.mark.parametrize(
    ("axes", "match"),
    [
        ({"unit_axes": (-1, 0)}, r"`unit_axes` of the map of 'w'.*\(-1, 0\)"),
        ({"unit_axes": (-1, -2)}, r"ascending.*\(-1, -2\)"),
        ({"unit_axes": (0, 1, 2), "output_axes": (1, 2)}, "`output_axes`.*as many"),
    ],
)
def test_axes_of_a_map(axes, match):
    with pytest.raises(ValueError, match=match):
        layers.LinearMap("w", keras.ops.matmul, **axes)


def test_layer_is_to_be_built_before_it_responds():
    with pytest.raises(AttributeError, match=r"build the layer before.*'early'"):
        layers.HyperDepthwiseConv2D(2, name="early").attach_response(FullResponse, 2)
