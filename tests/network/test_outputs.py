"""Several outputs: lists and dicts, weights and losses for each, and without a loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.network.test_contract import METHODS

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

EXAMPLES = 8
IMPLICIT = {
    "ExactImplicit": bt.methods.ExactImplicit(train_steps=1),
    "GaussNewton": bt.methods.GaussNewton(50, 1e-14, damping=0.0, train_steps=1),
}


def data(seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(EXAMPLES, 3))
    targets = {
        "a": x @ generator.normal(size=(3, 2)),
        "b": generator.normal(size=(8, 1)),
    }
    weights = {name: generator.uniform(0.5, 1.5, size=EXAMPLES) for name in targets}
    return x, targets, weights


def space():
    return bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1e3, initial=0.1), seed=1)


def heads(hp, x):
    penalty = bt.L2(hp["l2"])
    return {
        name: bt.HyperDense(units, kernel_regularizer=penalty, name=name)(x)
        for name, units in {"b": 1, "a": 2}.items()
    }


def structured(kind, values):
    """Something for each of the outputs, in the structure of these."""
    if kind == "dict":
        return dict(values)
    if kind == "nested":
        return {"p": [values["a"], values["b"]]}
    return [values["a"], values["b"]]


STRUCTURES = ("list", "dict", "nested")


def make(kind, losses, method, hidden=False, loss_weights=None, **arguments):
    keras.utils.set_random_seed(0)
    hp, inputs = space(), keras.Input((3,))
    x = bt.HyperDense(3, activation="tanh")(inputs) if hidden else inputs
    outputs = structured(kind, heads(hp, x))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    if loss_weights is not None:
        arguments["loss_weights"] = structured(kind, loss_weights)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        structured(kind, losses),
        method=method,
        hyper_optimizer=keras.optimizers.SGD(1.0),
        run_eagerly=True,
        **arguments,
    )
    return model


def fit(model, x, y, weight):
    return model.fit(
        x, y, 4, sample_weight=weight, shuffle=False, verbose=0,
        validation_data=(x, y, weight) if weight is not None else (x, y),
    ).history  # fmt: skip


@pytest.mark.parametrize("kind", STRUCTURES)
def test_gauss_newton_equals_the_exact_method_on_a_linear_model(kind, float64):
    x, targets, weights = data()
    found = {}
    for name, method in IMPLICIT.items():
        losses, factors = {"a": "mse", "b": "mse"}, {"a": 0.3, "b": 2.0}
        model = make(kind, losses, method, loss_weights=factors)
        fit(model, x, structured(kind, targets), structured(kind, weights))
        found[name] = np.array(model.hyperparameters.unconstrained)
    start = float(np.asarray(space().unconstrained)[0])
    assert abs(found["GaussNewton"][0] - start) > 1e-3
    np.testing.assert_allclose(*found.values(), rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "kind"), [(n, STRUCTURES[i % 3]) for i, n in enumerate(METHODS)]
)
def test_every_method_equals_itself_on_one_output(name, kind, float64):
    """Two outputs against one that has both, with the sum of both losses."""
    x, targets, weights = data()
    losses, factors = {"a": "mse", "b": "mae"}, {"a": 0.3, "b": 2.0}
    model = make(kind, losses, METHODS[name], hidden=True, loss_weights=factors)
    _start_responses(model)
    y, weight = structured(kind, targets), structured(kind, weights)
    history = fit(model, x, y, weight)

    def loss(targets, outputs):
        ya, yb, wa, wb = tf.split(targets, [2, 1, 1, 1], axis=-1)
        a, b = tf.split(outputs, [2, 1], axis=-1)
        of_a = 0.3 * wa[:, 0] * tf.reduce_mean(tf.square(a - ya), -1)
        return of_a + 2.0 * wb[:, 0] * tf.reduce_mean(tf.abs(b - yb), -1)

    keras.utils.set_random_seed(0)
    hp, inputs = space(), keras.Input((3,))
    parts = heads(hp, bt.HyperDense(3, activation="tanh")(inputs))
    outputs = keras.layers.Concatenate()([parts["a"], parts["b"]])
    joint = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    joint.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), loss, method=METHODS[name],
        hyper_optimizer=keras.optimizers.SGD(1.0), run_eagerly=True,
    )  # fmt: skip
    _start_responses(joint)
    columns = [targets["a"], targets["b"], weights["a"][:, None], weights["b"][:, None]]
    expected = fit(joint, x, np.concatenate(columns, -1), None)
    for key, value in expected.items():
        np.testing.assert_allclose(
            history[key], value, rtol=1e-7, atol=1e-12, err_msg=key
        )


HEADS = {
    "list": (["mse", None], lambda y: [y["a"], y["b"]]),
    "list, targets left out": (["mse", None], lambda y: [y["a"]]),
    "dict": ({"a": "mse"}, lambda y: {"a": y["a"]}),
    "dict of all targets": ({"a": "mse", "b": None}, dict),
}


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, "dict") for name in METHODS] + [("ExactImplicit", case) for case in HEADS],
)
def test_a_head_without_a_loss_stays_as_it_is(name, case, float64):
    """All else is as in a model without that head."""
    x, targets, _ = data()
    losses, choose = HEADS[case]

    def trained(both):
        keras.utils.set_random_seed(0)
        hp, inputs = space(), keras.Input((3,))
        hidden = bt.HyperDense(3, activation="tanh")
        x_ = hidden(inputs)
        a = bt.HyperDense(2, kernel_regularizer=bt.L2(hp["l2"]), name="a")(x_)
        outputs, y, loss = a, targets["a"], "mse"
        if both:
            b = bt.HyperDense(1, name="b")(x_)
            outputs = {"a": a, "b": b} if isinstance(losses, dict) else [a, b]
            y, loss = choose(targets), losses
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        # Initial weights and perturbations are the same, whatever was drawn before.
        for layer in (hidden, model.get_layer("a")):
            layer.kernel.assign(
                np.random.default_rng(2).normal(size=layer.kernel.shape)
            )
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9), loss, method=METHODS[name],
            hyper_optimizer=keras.optimizers.SGD(1.0), run_eagerly=True,
        )  # fmt: skip
        _start_responses(model)
        before = model.get_layer("b").get_weights() if both else None
        history = fit(model, x, y, None)
        if both:
            for w, v in zip(before, model.get_layer("b").get_weights(), strict=True):
                np.testing.assert_array_equal(w, v)
        return history

    found, expected = trained(both=True), trained(both=False)
    for key, value in expected.items():
        np.testing.assert_allclose(
            found[key], value, rtol=1e-8, atol=1e-12, err_msg=key
        )


def _start_responses(model):
    """Responses that depend on the shape of a variable alone."""
    for variable in model.network.response_variables:
        generator = np.random.default_rng(variable.shape.num_elements())
        variable.assign(0.1 * generator.normal(size=variable.shape))


def test_weights_by_position_and_by_example(float64):
    """Losses of examples of a sequence, whose mean is the training loss."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(4, 4, 3)), generator.normal(size=(4, 4, 2))
    hp, inputs = space(), keras.Input((4, 3))
    outputs = bt.HyperDense(2)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("sgd", "mse", method=bt.methods.T1T2())
    errors = np.mean((model(x).numpy() - y) ** 2, -1)
    point = (
        [tf.convert_to_tensor(w) for w in model.network.weights],
        [tf.convert_to_tensor(hp.unconstrained)],
    )
    for weight in (
        None,
        generator.uniform(size=(4, 4)),
        generator.uniform(size=(4, 1)),
    ):
        batch = tuple(None if a is None else tf.constant(a) for a in (x, y, weight))
        found = model.network.example_losses(*point, batch)
        expected = np.mean(errors if weight is None else errors * weight, -1)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        loss = model.network.loss(*point, batch, training=True)
        np.testing.assert_allclose(np.mean(found), loss, rtol=1e-6)


def test_tuned_example_weights_of_sequences(float64):
    """They stand along the examples, not along the steps, though there are as many."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(4, 4, 3)), generator.normal(size=(4, 4, 2))
    start = np.array([0.5, 1.0, 2.0, 0.1])
    hp = bt.HyperparameterSpace(weights=bt.Positive(initial=start))
    inputs = keras.Input((4, 3))
    model = bt.BilevelModel(inputs, bt.HyperDense(2)(inputs), hyperparameters=hp)
    model.compile(
        keras.optimizers.SGD(0.0), "mse", method=bt.methods.T1T2(train_steps=5),
        run_eagerly=True, weighted_metrics=["mse"],
    )  # fmt: skip
    errors = np.mean((model(x).numpy() - y) ** 2, (1, 2))
    history = model.fit(
        x, y, 4, sample_weight=hp["weights"], validation_data=(x, y), verbose=0
    )
    expected = np.mean(start * errors)
    np.testing.assert_allclose(history.history["loss"][0], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_tuned_example_weights_of_several_outputs(kind, float64):
    x, targets, _ = data()
    start = np.linspace(0.1, 2.0, EXAMPLES)
    hp = bt.HyperparameterSpace(weights=bt.Positive(initial=start))
    inputs = keras.Input((3,))
    outputs = {
        name: bt.HyperDense(u, name=name)(inputs) for name, u in (("a", 2), ("b", 1))
    }
    model = bt.BilevelModel(inputs, structured(kind, outputs), hyperparameters=hp)
    model.compile(
        keras.optimizers.SGD(0.0), structured(kind, {"a": "mse", "b": "mse"}),
        method=bt.methods.EmpiricalFisher(train_steps=2), run_eagerly=True,
        weighted_metrics=structured(kind, {"a": ["mae"], "b": ["mae"]}),
    )  # fmt: skip
    y = structured(kind, targets)
    errors = [
        np.mean((np.array(found) - np.array(wanted)) ** 2, -1)
        for found, wanted in zip(
            keras.tree.flatten(model(x)), keras.tree.flatten(y), strict=True
        )
    ]
    history = model.fit(
        x, y, 8, sample_weight=hp["weights"], validation_data=(x, y), verbose=0
    )
    expected = np.mean(start * sum(errors))
    np.testing.assert_allclose(history.history["loss"][0], expected, rtol=1e-6)


def test_an_output_of_whole_numbers(float64):
    """A class beside its logits: nothing differentiates it."""
    x, targets, _ = data()
    labels = np.argmax(targets["a"], -1)
    for method in (bt.DeltaSTN, bt.methods.GaussNewton, bt.methods.EmpiricalFisher):
        hp, inputs = space(), keras.Input((3,))
        logits = bt.HyperDense(2, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        outputs = {"logits": logits, "class": keras.ops.argmax(logits, -1)}
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
        model.compile(loss=loss, method=method(train_steps=1), run_eagerly=True)
        y = {"logits": labels}
        model.fit(x, y, 4, validation_data=(x, y), verbose=0)
        assert hp.values()["l2"] != 0.1


def test_one_tensor_as_two_outputs(float64):
    """Each has its own loss; curvature counts both once."""
    x, targets, _ = data()
    found = []
    for method in IMPLICIT.values():
        keras.utils.set_random_seed(0)
        hp, inputs = space(), keras.Input((3,))
        tensor = heads(hp, inputs)["a"]
        model = bt.BilevelModel(inputs, [tensor, tensor], hyperparameters=hp)
        model.compile("sgd", ["mse", "mse"], method=method, run_eagerly=True)
        y = [targets["a"], 0.5 * targets["a"]]
        model.fit(x, y, 4, validation_data=(x, y), verbose=0, shuffle=False)
        found.append(np.array(hp.unconstrained))
    np.testing.assert_allclose(*found, rtol=1e-8)


@pytest.mark.parametrize("name", ["GaussNewton", "EmpiricalFisher", "ExactImplicit"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_curvature_in_a_graph(name, jit_compile, float64):
    """A list of outputs, one of them without a loss, as eagerly."""
    x, targets, _ = data()
    found = []
    for eager in (True, False):
        keras.utils.set_random_seed(0)
        hp, inputs = space(), keras.Input((3,))
        outputs = [*structured("list", heads(hp, inputs)), bt.HyperDense(1)(inputs)]
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        mode = {"run_eagerly": True} if eager else {"jit_compile": jit_compile}
        model.compile(
            "sgd", ["mse", "mse", None], method=METHODS[name],
            hyper_optimizer=keras.optimizers.SGD(1.0), **mode,
        )  # fmt: skip
        y = structured("list", targets)
        model.fit(x, y, 4, validation_data=(x, y), verbose=0, shuffle=False)
        found.append(np.array(hp.unconstrained))
    np.testing.assert_allclose(*found, rtol=1e-8)


def test_composed_loss_with_a_structure_of_outputs():
    """Functions of one's own: a dict of outputs, whose curvature has mixed terms."""
    x = tf.constant(np.random.default_rng(0).normal(size=(6, 2)))

    def predict(w, h):
        return {"a": tf.linalg.matvec(x, w), "b": h * tf.reduce_sum(w)}

    def loss(outputs, h):
        return tf.reduce_mean((outputs["a"] * outputs["b"] - 1.0) ** 2) + tf.reduce_sum(
            outputs["a"] ** 2 + outputs["b"] ** 2
        )

    w, h = tf.constant([0.3, -0.2], tf.float64), tf.constant(0.7, tf.float64)
    inner = bt.methods.ComposedLoss(predict, loss)
    found = [
        bt.hypergradient(inner, lambda w, h: tf.reduce_sum(w**2), w, h, method=method)
        for method in IMPLICIT.values()
    ]
    # Outputs are linear in the weights, so that the matrix is the Hessian.
    np.testing.assert_allclose(found[0].gradients, found[1].gradients, rtol=1e-8)


def test_losses_of_single_outputs_are_those_of_training():
    """Neither the pass that fits the response nor the outer step counts in them."""
    x, targets, _ = data()
    losses = {"a": "mse", "b": "mse"}
    shown = []
    for method in (bt.DeltaSTN(train_steps=1), bt.methods.T1T2(train_steps=1)):
        model = make("dict", losses, method, hidden=True)
        model.optimizer.learning_rate = 0.0
        history = fit(model, x, targets, None)
        shown.append([history["a_loss"], history["b_loss"]])
    np.testing.assert_allclose(*shown, rtol=1e-6)


# Where the linearisation ends


def test_a_softmax_at_each_step_is_peeled():
    inputs = keras.Input((5, 3))
    layer = bt.HyperDense(2, activation="softmax")
    outputs = keras.layers.TimeDistributed(layer)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space())
    model.compile(loss="categorical_crossentropy", method=bt.DeltaSTN())
    [head], peeled = model.network.output_heads()
    assert head is layer.activation
    assert peeled == {layer}


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "log_softmax"])
def test_a_final_operation_does_not_linearise(name):
    inputs = keras.Input((3,))
    outputs = getattr(keras.ops, name)(bt.HyperDense(2)(inputs))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space())
    with pytest.raises(ValueError, match=f"before the final {name}"):
        model.compile(loss="mse", method=bt.DeltaSTN())


def test_an_output_without_a_loss_may_end_anyhow():
    inputs = keras.Input((3,))
    logits = bt.HyperDense(2)(inputs)
    outputs = [logits, keras.layers.Softmax()(logits)]
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space())
    model.compile(loss=["mse", None], method=bt.DeltaSTN())


# Losses that a layer adds


@keras.saving.register_keras_serializable("test_outputs")
class Decayed(keras.layers.Layer):
    """A linear map that adds its own decay to the loss."""

    decay = bt.Tunable(low=0.0)

    def __init__(self, decay, **kwargs):
        super().__init__(**kwargs)
        self.decay = decay

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")

    def call(self, inputs):
        decay = bt.hyperparameters.mean_value(self.decay)
        self.add_loss(decay * keras.ops.sum(keras.ops.square(self.kernel)))
        return keras.ops.matmul(inputs, self.kernel)


@pytest.mark.parametrize("loss", ["mse", None])
def test_curvature_of_added_losses(loss, float64):
    x, targets, _ = data()
    found = []
    for method in IMPLICIT.values():
        keras.utils.set_random_seed(0)
        hp, inputs = space(), keras.Input((3,))
        model = bt.BilevelModel(inputs, Decayed(hp["l2"])(inputs), hyperparameters=hp)
        model.compile("sgd", loss, method=method, run_eagerly=True)
        y = targets["a"]
        model.fit(x, y, 4, validation_data=(x, y), verbose=0, shuffle=False)
        found.append(np.array(hp.unconstrained))
    np.testing.assert_allclose(*found, rtol=1e-8)
