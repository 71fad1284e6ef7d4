"""k-fold cross-validation as an objective."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.objectives.cross_validation.fold_passes import fold_losses
from bilevel_tf.objectives.cross_validation.folds import fold_numbers
from tests.objectives.classifiers import (
    OPTIMIZERS,
    assert_same,
    classifier,
    copies,
    crossentropy,
    data,
    dense,
    fit,
    network,
    problem,
    space,
    state,
)

# Training


def trained_apart(start, kept, optimizer, batch_size, x, y, weight):
    """Weights of a Keras model that gets, twice, what is left of every batch."""
    # Keras's own L2 has its factor in single precision.
    apart = keras.Model(*network(bt.L2(0.03)))
    apart.set_weights(start)
    apart.compile(optimizer, loss=crossentropy(), run_eagerly=True)
    for first in [*range(0, len(x), batch_size)] * 2:
        part = np.arange(first, min(first + batch_size, len(x)))
        part = part[kept[part]]
        apart.train_on_batch(x[part], y[part], None if weight is None else weight[part])
    return apart.get_weights()


@pytest.mark.parametrize(
    ("name", "batch_size", "weighted"),
    [("SGD", 34, False), ("SGD", 10, True), ("Adam", 10, True), ("AdamW", 10, False)],
)
@pytest.mark.usefixtures("float64")
def test_copies_are_separately_trained_models(name, batch_size, weighted):
    optimizer, still = OPTIMIZERS[name], bt.methods.T1T2(warmup_epochs=2)
    model = classifier(optimizer=optimizer(), method=still)
    start = [np.array(v) for v in model.trainable_variables]
    x, y = data(34)
    weight = np.linspace(0.1, 3.0, 34) if weighted else None
    fit(model, x, y, batch_size=batch_size, epochs=2, sample_weight=weight)
    folds = fold_numbers(34, 3, 0, y)
    parts = [(q, folds != q) for q in range(3)]
    for q, kept in [(None, np.ones(34, bool)), *parts]:
        expected = trained_apart(start, kept, optimizer(), batch_size, x, y, weight)
        found = model.trainable_variables if q is None else copies(model, q)
        assert_same(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_batch_without_other_folds_trains_nothing():
    model = classifier()
    x, y = data(30)
    only = fold_numbers(30, 3, 0, y) == 1
    (x, folds), y, _ = model.objective.prepare(model.network, x, y, None)
    batch = keras.tree.map_structure(
        lambda a: tf.constant(a[only][None]), ((x, folds), y)
    )
    found = model.network.problem((*batch, None), None)
    for gradient in found.inner_gradients(found.weights, found.hyperparameters):
        assert np.all(np.isfinite(gradient))
        moved = np.any(np.reshape(gradient, (3, -1)) != 0, 1)
        np.testing.assert_array_equal(moved, [True, False, True])


def test_copies_start_at_the_weights_and_follow_the_learning_rate():
    model = classifier()
    start = [np.array(v) for v in model.trainable_variables]
    for q in range(3):
        assert_same(copies(model, q), start)
    model.optimizer.learning_rate = 0.0
    fit(model, *data())
    for q in range(3):
        assert_same(copies(model, q), start)


def test_constraints_are_of_every_copy():
    constraint = keras.constraints.UnitNorm(axis=0)
    model = classifier(dense(kernel_constraint=constraint), method=bt.methods.Greedy())
    fit(model, *data())
    for q in range(3):
        norms = np.linalg.norm(copies(model, q)[0], axis=0)
        np.testing.assert_allclose(norms, 1.0, rtol=1e-5)


def test_copies_share_random_masks_which_go_on():
    model = classifier(dense([keras.layers.Dropout(0.5, seed=1)]))
    (x, _), y, _ = model.objective.prepare(model.network, *data(), None)
    # Examples of no fold, which all copies are trained on.
    batch = (x, tf.fill([30], 9)), y, None
    start = problem(model, *data())

    @tf.function
    def losses():
        point = start.weights, start.hyperparameters
        return fold_losses(model.network, *point, batch, 3)

    before = losses()
    np.testing.assert_allclose(before, np.full(3, before[0]), rtol=1e-6)
    assert_same(before, losses())
    fit(model, *data())
    assert np.all(np.abs(losses() - before) > 1e-4)


# What hyperparameters are judged by


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "mean_with_sample_weight"]
)
@pytest.mark.usefixtures("float64")
def test_outer_loss_is_that_of_held_out_predictions(reduction):
    loss = keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction)
    model = classifier(loss=loss)
    x, y = data()
    weight = np.linspace(0.1, 3.0, 30)
    fit(model, x, y)
    asked = problem(model, x, y, weight)
    found = asked.outer_loss(asked.weights, asked.hyperparameters)
    folds, outputs = fold_numbers(30, 3, 0, y), np.empty((30, 3))
    apart = keras.Model(*network(None))
    for q in range(3):
        apart.set_weights(copies(model, q))
        outputs[folds == q] = apart(x[folds == q])
    np.testing.assert_allclose(found, loss(y, outputs, weight))


def test_cv_loss_is_in_the_history():
    model = classifier(hyper_optimizer=keras.optimizers.SGD(0.0))
    x, y = data()
    history = fit(model, x, y, batch_size=30, epochs=3)
    asked = problem(model, x, y)
    expected = asked.outer_loss(asked.weights, asked.hyperparameters)
    assert len(history["cv_loss"]) == 3
    np.testing.assert_allclose(history["cv_loss"][-1], expected, rtol=1e-5)


def hypergradient(asked, method, by=None):
    """What the method finds, with hyperparameters moved by a tensor if given."""

    @tf.function
    def find(h):
        asked.hyperparameters = [h]
        return method.hypergradient(asked)

    h = asked.hyperparameters[0]
    found = find(h if by is None else h + by)
    asked.hyperparameters = [h]
    return found


def difference(asked, method, step):
    """The central difference of Q at the end of a method's run."""
    values = [hypergradient(asked, method, s).outer_loss for s in (step, -step)]
    return (values[0] - values[1]) / (2 * tf.reduce_sum(step))


class Ridge:
    """A linear model without bias, one L2 factor, and its folds' minimisers."""

    def __init__(self, folds, method, count=12):
        rng = np.random.default_rng(0)
        self.x, self.y = rng.normal(size=(count, 4)), rng.normal(size=(count, 1))
        self.hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-4, 10.0, initial=0.2))
        self.method, self.folds = method, fold_numbers(count, folds, 0)
        self.model = classifier(
            self.line,
            self.hp,
            method=method,
            objective=bt.CrossValidation(folds),
            loss="mse",
        )
        self.unconstrained = tf.convert_to_tensor(self.hp.unconstrained)
        (weights,) = self.model.objective.variables(self.model.network)
        weights.assign(self.minimisers(self.unconstrained))

    def line(self, regularizer):
        inputs = keras.Input((4,))
        layer = keras.layers.Dense(1, use_bias=False, kernel_regularizer=regularizer)
        return inputs, layer(inputs)

    def factor(self, unconstrained):
        return self.hp.constrain(unconstrained)["l2"]

    def minimisers(self, unconstrained):
        """Of mean((x w − y)²) + f ‖w‖² over the m examples that are not in a fold.

        That is (XᵀX + m f I) w = Xᵀy on these.
        """
        factor, solutions = self.factor(unconstrained), []
        for q in range(self.folds.max() + 1):
            x, y = (a[self.folds != q] for a in (self.x, self.y))
            matrix = x.T @ x + len(x) * factor * tf.eye(4, dtype="float64")
            solutions.append(tf.linalg.solve(matrix, tf.constant(x.T @ y)))
        return tf.stack(solutions)

    def cross_validation(self, unconstrained):
        """Q at the minimisers."""
        weights = tf.gather(self.minimisers(unconstrained), self.folds)
        errors = tf.einsum("nf,nfo->no", self.x, weights) - self.y
        return tf.reduce_mean(errors**2)

    def leave_one_out(self, unconstrained):
        """Σ ((y_i − ŷ_i) / (1 − H_ii))² / n, H = X (XᵀX + Λ I)⁻¹ Xᵀ.

        H is that of all n examples, and Λ that of the models without one of them.
        These are trained on a mean over n − 1 examples, so that Λ = (n − 1) f; and
        d/d log Λ = d/d log f.
        """
        scale = (len(self.x) - 1) * self.factor(unconstrained)
        matrix = self.x.T @ self.x + scale * tf.eye(4, dtype="float64")
        hat = self.x @ tf.linalg.solve(matrix, tf.constant(self.x.T))
        errors = self.y[:, 0] - tf.linalg.matvec(hat, self.y[:, 0])
        return tf.reduce_mean((errors / (1 - tf.linalg.diag_part(hat))) ** 2)

    def check(self, closed_form):
        """Q and its derivative in log f are those of a function of λ."""
        h = self.unconstrained
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(h)
            value, log_factor = closed_form(h), tf.math.log(self.factor(h))
        scale = tape.gradient(log_factor, h)
        found = hypergradient(problem(self.model, self.x, self.y), self.method)
        np.testing.assert_allclose(found.outer_loss, value, rtol=1e-10)
        gradient = found.gradients[0] / scale
        expected = tape.gradient(value, h) / scale
        np.testing.assert_allclose(gradient, expected, rtol=1e-8)
        assert np.abs(expected) > 1e-3
        assert found.report["converged"]


@pytest.mark.usefixtures("float64")
def test_leave_one_out_ridge_has_the_closed_form():
    ridge = Ridge(12, bt.methods.ExactImplicit())
    ridge.check(ridge.leave_one_out)


@pytest.mark.parametrize(
    "method",
    [bt.methods.ExactImplicit(), bt.ConjugateGradient(20, 1e-13), bt.Neumann(4000)],
    ids=["exact", "conjugate gradients", "Neumann"],
)
@pytest.mark.usefixtures("float64")
def test_implicit_methods_find_the_derivative(method):
    # Unequal folds: of 3, 3, 2, 2 and 2 examples.
    ridge = Ridge(5, method)
    ridge.check(ridge.cross_validation)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.usefixtures("float64")
def test_trajectories_find_the_derivative(optimizer):
    method = bt.Unrolled(3)
    model = classifier(method=method, optimizer=OPTIMIZERS[optimizer]())
    # Slots that are not fresh, with which the look-ahead goes on.
    fit(model, *data())
    asked = problem(model, *data(), steps=3)
    expected = difference(asked, method, tf.constant([1e-4], "float64"))
    found = hypergradient(asked, method).gradients[0]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert abs(expected) > 1e-5


@pytest.mark.usefixtures("float64")
def test_a_tuned_learning_rate_trains_the_copies_and_is_tuned():
    hp = space(rate=bt.LogUniform(1e-3, 1.0, initial=0.1))
    optimizer = bt.TunedOptimizer(keras.optimizers.SGD(1.0), learning_rate=hp["rate"])
    method = bt.methods.Greedy(train_steps=1, warmup_epochs=1)
    model = classifier(hp=hp, optimizer=optimizer, method=method)
    x, y = data()
    asked = problem(model, x, y)
    gradients = asked.inner_gradients(asked.weights, asked.hyperparameters)
    fit(model, x, y, batch_size=30)
    pairs = zip(asked.weights, gradients, strict=True)
    stepped = [w - 0.1 * g for w, g in pairs]
    assert_same(model.objective.variables(model.network), stepped, rtol=1e-9)
    asked = problem(model, x, y)
    expected = difference(asked, method, tf.constant([0.0, 1e-4], "float64"))
    found = hypergradient(asked, method).gradients[0]
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)
    fit(model, x, y)
    assert hp.values()["rate"] != pytest.approx(0.1)


# In fit


def image_network(regularizer):
    inputs = keras.Input((4,))
    x = keras.layers.Reshape((2, 2, 1))(inputs)
    x = keras.layers.Conv2D(
        3, 2, padding="same", activation="tanh", kernel_regularizer=regularizer
    )(x)
    return inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x))


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (network, bt.ConjugateGradient(3, train_steps=2, damping=1.0)),
        (image_network, bt.methods.T1T2(train_steps=2)),
    ],
    ids=["dense", "convolution"],
)
def test_xla_finds_the_same(make, method):
    found = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = classifier(make, method=method, jit_compile=jit)
        history = fit(model, *data(36), batch_size=18)
        found.append([*copies(model, 1), history["l2"], history["cv_loss"]])
    assert_same(*found, rtol=1e-3, atol=1e-6)
    assert history["l2"][0] != pytest.approx(0.03, rel=1e-4)


def test_steps_are_traced_once():
    model, traces = classifier(), []
    inner, outer = model.train_step, model.stacked_outer_step
    model.train_step = lambda batch: traces.append("inner") or inner(batch)
    model.stacked_outer_step = lambda batch: traces.append("outer") or outer(batch)
    fit(model, *data(30), epochs=3)
    assert sorted(traces) == ["inner", "outer"]


def test_validation_data_are_for_show_and_the_model_predicts():
    model = classifier()
    history = fit(model, *data(), validation_data=data(12, seed=1), epochs=2)
    x, y = data(12, seed=1)
    expected = crossentropy()(y, model.predict(x, verbose=0))
    np.testing.assert_allclose(history["val_loss"][-1], expected, rtol=1e-5)
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), expected, rtol=1e-5)


def test_validation_split_is_in_no_fold():
    model = classifier(objective=bt.CrossValidation(25, stratified=False))
    with pytest.raises(ValueError, match="folds=25, and 24 examples"):
        fit(model, *data(30), validation_split=0.2)


def two_inputs(form, outputs):
    """A network on a dict or sequence of inputs."""

    def make(regularizer):
        a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
        x = keras.layers.Concatenate()([a, b])
        layer, names = keras.layers.Dense, [f"head_{i}" for i in range(outputs)]
        heads = [layer(3, name=n, kernel_regularizer=regularizer)(x) for n in names]
        inputs = {"a": a, "b": b} if form == "dict" else [a, b]
        return inputs, heads if outputs > 1 else heads[0]

    return make


@pytest.mark.parametrize(("form", "outputs"), [("list", 1), ("tuple", 1), ("dict", 2)])
def test_several_inputs_and_outputs(form, outputs):
    method = bt.ConjugateGradient(3, train_steps=2)
    losses = [crossentropy() for _ in range(outputs)]
    model = classifier(
        two_inputs(form, outputs),
        method=method,
        loss=losses if outputs > 1 else losses[0],
        steps_per_execution=2,
    )
    a, y = data()
    b, weight = np.random.default_rng(1).normal(size=(30, 2)), np.linspace(0.1, 3, 30)
    x = {"list": [a, b], "tuple": (a, b), "dict": {"a": a, "b": b}}[form]
    y, weight = ([y] * outputs, [weight] * outputs) if outputs > 1 else (y, weight)
    history = fit(model, x, y, sample_weight=weight, shuffle=True, epochs=2)
    assert np.isfinite(history["cv_loss"][-1])
    assert model.progress.outer_steps == 3
    model.predict(x, verbose=0)


def test_a_restarted_trajectory_trains_the_copies():
    model = classifier(
        method=bt.Unrolled(2, restart=True, train_steps=1),
        optimizer=keras.optimizers.SGD(0.1),
        hyper_optimizer=keras.optimizers.SGD(0.0),
    )
    x, y = data()
    start = problem(model, x, y)
    weights = start.weights
    fit(model, x, y, batch_size=30, epochs=2)
    for _ in range(2):
        gradients = start.inner_gradients(weights, start.hyperparameters)
        weights = [w - 0.1 * g for w, g in zip(weights, gradients, strict=True)]
    assert_same(model.objective.variables(model.network), weights, rtol=1e-4, atol=1e-6)


def test_divergence_takes_the_copies_back():
    model = classifier()
    before = state(model)
    x, y = data()
    x[7] = np.nan
    with pytest.raises(FloatingPointError):
        fit(model, x, y)
    for a, b in zip(before, state(model), strict=True):
        if a.dtype == "float32" and a.size > 1:
            np.testing.assert_array_equal(a, b)


# Saving


def half_trained(optimizer):
    keras.utils.set_random_seed(0)
    if optimizer == "SGD":
        return classifier(method=bt.ConjugateGradient(2, train_steps=3))
    hp = space(rate=bt.LogUniform(1e-3, 1.0, initial=0.1))
    adam = bt.TunedOptimizer(keras.optimizers.Adam(), learning_rate=hp["rate"])
    return classifier(hp=hp, method=bt.methods.Greedy(train_steps=3), optimizer=adam)


@pytest.mark.parametrize("optimizer", ["SGD", "tuned Adam"])
def test_interrupted_training_equals_straight(optimizer, tmp_path):
    x, y = data(34)
    straight, first = half_trained(optimizer), half_trained(optimizer)
    fit(straight, x, y, epochs=4)
    fit(first, x, y, epochs=2)
    before = state(first)
    first.save(tmp_path / "model.keras")
    keras.utils.set_random_seed(99)
    second = keras.models.load_model(tmp_path / "model.keras")
    assert_same(before, state(second))
    own = [
        *second.objective.variables(second.network),
        *second.network.objective_optimizer.variables,
    ]
    own = [np.array(v) for v in own]
    fit(second, x, y, epochs=2)
    assert_same(state(straight), state(second))
    after = [
        *second.objective.variables(second.network),
        *second.network.objective_optimizer.variables,
    ]
    assert len(after) > 8
    for a, b in zip(own, after, strict=True):
        assert np.any(a != np.array(b))


@pytest.mark.parametrize("compile", [True, False])
def test_a_model_is_loaded_with_its_copies(compile, tmp_path):
    # This method keeps a solution in the shapes of the copies.
    model = classifier(method=bt.methods.HOAG(iterations=3, train_steps=1, damping=1.0))
    x, y = data()
    fit(model, x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=compile)
    assert_same(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    for q in range(3):
        assert_same(copies(model, q), copies(loaded, q))
    assert loaded.objective.get_config() == model.objective.get_config()


def test_export(tmp_path):
    model = classifier()
    x, y = data()
    fit(model, x, y)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    found = served.serve(tf.constant(x, "float32"))
    assert_same(found, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_another_objective_takes_the_copies_away():
    model = classifier()
    count = len(model.variables)
    model.compile("sgd", method=bt.methods.T1T2(), loss=crossentropy())
    assert len(model.variables) == count - 4
    assert model.network.objective_optimizer is None


def test_config():
    objective = bt.CrossValidation(7, stratified=False, seed=3)
    config = {"folds": 7, "stratified": False, "seed": 3}
    assert objective.get_config() == config
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(objective)
    )
    assert type(again) is bt.CrossValidation
    assert again.get_config() == config
    assert bt.CrossValidation().get_config()["folds"] == 5
