"""SavedModels answer without this library, at any hyperparameters."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.training.saving.exporting import list_subsets
from tests.training.models import METHODS, classifier, compiled, data, space

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

ELSEWHERE = {"rate": 0.6, "l2": 0.2}


def trained(method=bt.DeltaSTN):
    model = classifier(method(train_steps=2))
    model.fit(*data(32), validation_data=data(16, seed=1), batch_size=8, verbose=0)
    return model


def answer(folder, inputs, values):
    """What a process that cannot import the library answers from a SavedModel."""
    script = """
        import sys
        sys.modules["bilevel_tf"] = None
        import numpy as np
        import tensorflow as tf

        folder, names, *values = sys.argv[1:]
        stored = np.load(folder + "/inputs.npz")
        inputs = [tf.constant(stored[k]) for k in sorted(stored)]
        inputs = inputs[0] if len(inputs) == 1 else inputs
        values = [tf.constant(float(v)) for v in values]
        values = dict(zip(names.split(","), values))
        model = tf.saved_model.load(folder)
        np.savez(
            folder + "/answers.npz",
            serve=model.serve(inputs),
            serve_at=model.serve_at(inputs, values),
        )
        try:
            import bilevel_tf
        except ImportError:
            sys.exit(7)
    """
    np.savez(f"{folder}/inputs.npz", **{str(k): x for k, x in enumerate(inputs)})
    names, numbers = ",".join(values), [str(v) for v in values.values()]
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder), names]
    done = subprocess.run([*command, *numbers], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    return np.load(f"{folder}/answers.npz")


@pytest.mark.parametrize("method", ["DeltaSTN", "STN"])
def test_signatures_answer_without_the_library(method, tmp_path):
    model = trained(METHODS[method])
    x = data(5, seed=2)[0]
    model.export(tmp_path, verbose=False)
    answers = answer(tmp_path, [x], ELSEWHERE)
    np.testing.assert_allclose(answers["serve"], model.predict(x), rtol=1e-5, atol=1e-6)
    expected = model.call_at(x, ELSEWHERE)
    np.testing.assert_allclose(answers["serve_at"], expected, rtol=1e-5, atol=1e-6)
    assert np.max(np.abs(answers["serve_at"] - answers["serve"])) > 1e-4


def test_several_inputs(tmp_path):
    hp = space()
    inputs = [keras.Input((4,), name="left"), keras.Input((2,), name="right")]
    hidden = bt.HyperDense(5, "tanh", kernel_regularizer=bt.L2(hp["l2"]))
    x = hidden(keras.layers.Concatenate()(inputs))
    outputs = bt.HyperDense(3)(bt.HyperDropout(hp["rate"])(x))
    model = compiled(bt.BilevelModel(inputs, outputs, hyperparameters=hp))
    scramble(model)
    x = data(5, seed=2)[0]
    parts = [x[:, :4], x[:, 4:]]
    model.export(tmp_path, verbose=False)
    answers = answer(tmp_path, parts, ELSEWHERE)
    expected = model.predict(parts, verbose=0)
    np.testing.assert_allclose(answers["serve"], expected, rtol=1e-5, atol=1e-6)
    expected = model.call_at(parts, ELSEWHERE)
    np.testing.assert_allclose(answers["serve_at"], expected, rtol=1e-5, atol=1e-6)


def scramble(model):
    generator = np.random.default_rng(4)
    for variable in model.network.response_variables:
        variable.assign(0.5 * generator.normal(size=variable.shape))


@pytest.mark.parametrize("method", METHODS)
def test_at_the_current_values_is_the_prediction(method, tmp_path):
    model = classifier(METHODS[method]())
    scramble(model)
    x = data(5, seed=2)[0]
    current = model.hyperparameters.values()
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(model.call_at(x, {}), expected, rtol=1e-5, atol=1e-6)
    at = model.call_at(x, current)
    np.testing.assert_allclose(at, expected, rtol=1e-5, atol=1e-5)
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    values = {name: tf.constant(value) for name, value in current.items()}
    served = loaded.serve_at(tf.constant(x), values)
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["DeltaSTN", "STN"])
def test_call_at_agrees_with_a_hand_computation(method):
    model = classifier(METHODS[method]())
    scramble(model)
    hp = model.hyperparameters
    hp.assign({"rate": 0.4, "l2": 0.05})
    rate, l2 = 0.6 / 0.9, 0.2
    low, high = np.log(1e-5), np.log(1.0)
    share = (np.log(l2) - low) / (high - low)
    target = np.array([np.log(rate / (1 - rate)), np.log(share / (1 - share))])
    own = hp.unconstrained.numpy()
    delta = target - own if method == "DeltaSTN" else target

    def affine(layer, inputs):
        kernel, bias = layer.responses.values()
        kernel = layer.kernel + (delta @ kernel.factor.numpy()) * kernel.direction
        bias = layer.bias + (delta @ bias.factor.numpy()) * bias.direction
        return inputs @ kernel.numpy() + bias.numpy()

    x = data(5, seed=2)[0]
    one, two = model.network.responding_layers
    expected = affine(two, np.tanh(affine(one, x)))
    np.testing.assert_allclose(
        model.call_at(x, ELSEWHERE), expected, rtol=1e-4, atol=1e-5
    )


def test_signature_may_be_given(tmp_path):
    model = trained()
    spec = tf.TensorSpec((2, 6), "float32", name="x")
    model.export(tmp_path, input_signature=[spec], verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    x = data(2)[0]
    np.testing.assert_allclose(loaded.serve(x), model.predict(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError):
        loaded.serve(data(3)[0])


def test_model_without_response_has_the_ordinary_signature(tmp_path):
    hp = space()
    inputs = keras.Input((6,))
    outputs = bt.HyperDense(3)(bt.HyperDropout(hp["rate"])(inputs))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    x = data(4)[0]
    np.testing.assert_allclose(loaded.serve(x), model.predict(x), rtol=1e-5, atol=1e-6)
    assert not hasattr(loaded, "serve_at")


def test_unknown_arguments(tmp_path):
    with pytest.raises(TypeError, match="Unknown arguments of export: colour"):
        classifier().export(tmp_path, colour="red")


# What `serve_at` takes


def exported(model, folder, **arguments):
    model.export(folder, verbose=False, **arguments)
    return tf.saved_model.load(str(folder))


@pytest.mark.parametrize("method", ["DeltaSTN", "STN"])
def test_hyperparameters_that_are_left_out_keep_their_values(method, tmp_path):
    model = classifier(METHODS[method]())
    scramble(model)
    model.hyperparameters.assign({"rate": 0.7, "l2": 0.01})
    served, x = exported(model, tmp_path), data(5, seed=2)[0]
    for names in ([], ["rate"], ["l2"], ["rate", "l2"]):
        values = {name: ELSEWHERE[name] for name in names}
        expected = model.call_at(x, values)
        answer = served.serve_at(x, {n: tf.constant(v) for n, v in values.items()})
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    present = {name: float(v) for name, v in served.hyperparameters().items()}
    assert present == pytest.approx({"rate": 0.7, "l2": 0.01}, rel=1e-6)


def test_what_serve_at_asks_for_and_refuses(tmp_path):
    served = exported(classifier(), tmp_path)
    _, named = served.signatures["serve_at"].structured_input_signature
    assert {"rate", "l2"} < set(named)
    assert len(named) == 3
    for values, words in [
        ({"rate": 1.5}, "`rate` must be strictly between low=0.0 and high=0.9"),
        ({"l2": 0.0, "rate": 0.5}, "`l2` must be strictly between low=1e-05"),
    ]:
        values = {name: tf.constant(value) for name, value in values.items()}
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            served.serve_at(data(5)[0], values)


def many(count):
    named = {f"h{k}": bt.Positive(1.0) for k in range(count)}
    hp, inputs = bt.HyperparameterSpace(named), keras.Input((6,))
    layers = [bt.HyperDense(3, kernel_regularizer=bt.L2(hp[name])) for name in named]
    outputs = keras.layers.Add()([layer(inputs) for layer in layers])
    return compiled(bt.BilevelModel(inputs, outputs, hyperparameters=hp))


def test_of_many_hyperparameters_one_or_all(tmp_path):
    model = many(6)
    scramble(model)
    served, x = exported(model, tmp_path), data(5)[0]
    expected = model.call_at(x, {"h0": 2.0})
    alone = served.serve_at(x, {"h0": tf.constant(2.0)})
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-6)
    values = {**served.hyperparameters(), "h0": tf.constant(2.0)}
    among_all = served.serve_at(x, values)
    np.testing.assert_allclose(among_all, expected, rtol=1e-5, atol=1e-6)


def test_sets_of_names():
    assert list_subsets(["a", "b"]) == [("a", "b"), ("a",), ("b",), ()]
    assert len(list_subsets(list("abcd"))) == 16
    sets = list_subsets(list("abcde"))
    assert sets == [tuple("abcde"), *((n,) for n in "abcde"), ()]


# What models take and give


def tuned_head(hp, x):
    x = bt.HyperDropout(hp["rate"])(x)
    return bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))(x)


def dicts(hp):
    inputs = {"left": keras.Input((4,), name="left"), "b": keras.Input((2,), name="b")}
    x = keras.layers.Concatenate()([inputs["left"], inputs["b"]])
    x = tuned_head(hp, x)
    outputs = {"u": bt.HyperDense(3, name="u")(x), "v": bt.HyperDense(1, name="v")(x)}
    x = data(5)[0]
    return inputs, outputs, [{"left": x[:, :4], "b": x[:, 4:]}]


def masks(hp):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.GRU(5)(keras.layers.Embedding(9, 4, mask_zero=True)(inputs))
    outputs = tuned_head(hp, x)
    rows = [[[1, 2, 0, 0], [3, 4, 5, 6]], [[1, 2, 0]], [[1, 2]]]
    return inputs, outputs, [np.array(row, "int32") for row in rows]


def images(hp):
    inputs = keras.Input((None, None, 2))
    x = keras.layers.GlobalAveragePooling2D()(bt.layers.HyperConv2D(3, 3)(inputs))
    outputs = tuned_head(hp, x)
    generator = np.random.default_rng(0)
    shapes = [(2, 5, 6, 2), (1, 9, 3, 2)]
    return inputs, outputs, [generator.normal(size=s).astype("f4") for s in shapes]


def words(hp):
    inputs = keras.Input((1,), dtype="string")
    lookup = keras.layers.StringLookup()
    lookup.adapt(np.array([["red"], ["green"]]))
    x = keras.layers.Flatten()(bt.layers.HyperEmbedding(5, 3)(lookup(inputs)))
    outputs = tuned_head(hp, x)
    return inputs, outputs, [tf.constant([["red"], ["blue"]])]


@pytest.mark.parametrize("make", [dicts, masks, images, words])
def test_kinds_of_inputs(make, tmp_path):
    hp = space()
    inputs, outputs, batches = make(hp)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("sgd", loss="mse")
    scramble(model)
    served = exported(model, tmp_path)
    values = {name: tf.constant(value) for name, value in ELSEWHERE.items()}
    close = {"rtol": 1e-5, "atol": 1e-6}
    for x in batches:
        pairs = [
            (served.serve(x), model(x)),
            (served.serve_at(x, values), model.call_at(x, ELSEWHERE)),
        ]
        for ours, theirs in pairs:
            keras.tree.map_structure(
                lambda a, b: np.testing.assert_allclose(a, b, **close), ours, theirs
            )


@pytest.mark.parametrize("nested", [False, True])
def test_a_signature_of_several_inputs(nested, tmp_path):
    hp = space()
    inputs = [keras.Input((4,)), keras.Input((2,))]
    outputs = tuned_head(hp, keras.layers.Concatenate()(inputs))
    model = compiled(bt.BilevelModel(inputs, outputs, hyperparameters=hp))
    signature = [tf.TensorSpec((2, 4)), tf.TensorSpec((2, 2))]
    given = [signature] if nested else signature
    served = exported(model, tmp_path, input_signature=given)
    x = data(2)[0]
    parts = [x[:, :4], x[:, 4:]]
    np.testing.assert_allclose(served.serve(parts), model(parts), rtol=1e-5, atol=1e-6)


def test_a_path_that_is_none():
    with pytest.raises(TypeError, match=r"must be the path of a folder.*filepath=None"):
        classifier().export(None)
