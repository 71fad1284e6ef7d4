"""One `fit`: Keras's own behaviour, and the schedule of outer steps."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.training.models import (
    CROSSENTROPY,
    METHODS,
    assert_same_state,
    classifier,
    compiled,
    data,
    space,
)

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def fit(model, epochs=1, train=None, valid=None, **arguments):
    train, valid = train or data(44), valid or data(21, seed=1)
    given = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(*train, epochs=epochs, validation_data=valid, **given)


class Batches(keras.utils.PyDataset):
    def __init__(self, arrays, size=8):
        super().__init__()
        self.arrays, self.size = arrays, size

    def __len__(self):
        return -(-len(self.arrays[0]) // self.size)

    def __getitem__(self, index):
        part = slice(index * self.size, (index + 1) * self.size)
        return tuple(array[part] for array in self.arrays)


# Data


def test_learns_and_tunes():
    x, y = data(64)
    y = (x[:, 0] > 0).astype("int64")
    model = classifier(metrics=["accuracy"])
    before = model.hyperparameters.values()
    history = fit(model, 12, (x, y), (x[:24], y[:24])).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.9
    after = model.hyperparameters.values()
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize("kind", ["dataset", "py_dataset"])
def test_training_batches_are_those_of_arrays(kind):
    """During warm-up nothing depends on how the validation data is cut."""
    train, states = data(44), []
    dataset = tf.data.Dataset.from_tensor_slices(train).batch(8)
    other = dataset if kind == "dataset" else Batches(train)
    for given, size in [(train, 8), ((other,), None)]:
        keras.utils.set_random_seed(0)
        model = classifier(bt.DeltaSTN(warmup_epochs=2))
        fit(model, 2, given, batch_size=size)
        states.append(model)
    assert_same_state(*states)


@pytest.mark.parametrize("kind", ["dataset", "py_dataset"])
def test_validation_data_of_every_kind_tunes(kind):
    arrays = data(21, seed=1)
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(8)
    valid = dataset if kind == "dataset" else Batches(arrays)
    model = classifier()
    before = model.hyperparameters.values()
    history = fit(model, 2, valid=valid).history
    assert model.progress.outer_steps == 6
    assert model.hyperparameters.values() != before
    expected = model.evaluate(*arrays, verbose=0)
    assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-5)


def test_validation_split_takes_the_end():
    x, y = data(40)
    one, two = classifier(), classifier()
    one.set_weights(two.get_weights())
    given = {"batch_size": 8, "shuffle": False, "verbose": 0}
    one.fit(x, y, validation_split=0.25, **given)
    two.fit(x[:30], y[:30], validation_data=(x[30:], y[30:]), **given)
    assert_same_state(one, two)


def test_zero_sample_weights_leave_examples_out():
    x, y = data(32)
    weight = np.ones(32, "float32")
    weight[8:] = 0.0
    wrong = y.copy()
    wrong[8:] = (wrong[8:] + 1) % 3
    states = []
    for labels in (y, wrong):
        keras.utils.set_random_seed(0)
        model = classifier()
        valid = (*data(21, seed=1), np.ones(21, "float32"))
        fit(model, 1, (x, labels), valid, sample_weight=weight)
        states.append(model)
    assert_same_state(*states)


def test_zero_sample_weights_of_validation_data():
    x, y = data(24, seed=1)
    weight = (np.arange(24) < 10).astype("float32")
    wrong = np.where(weight > 0, y, (y + 1) % 3)
    models = []
    for labels in (y, wrong):
        keras.utils.set_random_seed(0)
        models.append(classifier())
        fit(models[-1], 1, valid=(x, labels, weight))
    assert_same_state(*models)
    keras.utils.set_random_seed(0)
    unweighted = classifier()
    fit(unweighted, 1, valid=(x, wrong))
    assert unweighted.hyperparameters.values() != models[0].hyperparameters.values()


def multi(structure):
    hp = space()
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    x = keras.layers.Concatenate()([left, right])
    x = bt.HyperDropout(hp["rate"])(x)
    x = bt.HyperDense(5, activation="tanh", kernel_regularizer=bt.L2(hp["l2"]))(x)
    labels = bt.HyperDense(3, name="labels")(x)
    number = bt.HyperDense(1, name="number")(x)
    if structure == "dict":
        inputs = {"left": left, "right": right}
        outputs = {"labels": labels, "number": number}
        loss = {"labels": CROSSENTROPY, "number": "mse"}
    else:
        inputs, outputs = [left, right], [labels, number]
        loss = [CROSSENTROPY, "mse"]
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    return compiled(model, loss=loss)


def multi_data(structure, count=24):
    x, y = data(count)
    number = x[:, :1]
    if structure == "dict":
        xs = {"left": x[:, :4], "right": x[:, 4:]}
        return xs, {"labels": y, "number": number}
    return [x[:, :4], x[:, 4:]], [y, number]


@pytest.mark.parametrize("kind", ["arrays", "dataset", "split"])
@pytest.mark.parametrize("structure", ["dict", "list"])
def test_several_inputs_and_outputs(structure, kind):
    model = multi(structure)
    before = model.hyperparameters.values()
    x, y = multi_data(structure)
    given = {"validation_data": (x, y)}
    if kind == "split":
        given = {"validation_split": 0.5}
    if kind == "dataset":
        tuples = keras.tree.map_structure(lambda a: a, (x, y))
        if structure == "list":
            tuples = (tuple(x), tuple(y))
        dataset = tf.data.Dataset.from_tensor_slices(tuples).batch(8)
        given = {"validation_data": dataset}
    history = model.fit(x, y, batch_size=4, verbose=0, **given).history
    assert {"loss", "labels_loss", "number_loss", "val_number_loss"} <= set(history)
    after = model.hyperparameters.values()
    assert all(after[name] != before[name] for name in before)


# Logs


class Logs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def test_hyperparameters_are_in_history_and_logs():
    hp = space(weights=bt.Positive(initial=[1.0, 2.0, 3.0]))
    model = classifier(bt.DeltaSTN(train_steps=1), hp=hp, metrics=["accuracy"])
    logs = Logs()
    history = fit(model, 2, callbacks=[logs]).history
    names = {"loss", "accuracy", "rate", "l2", "weights_mean"}
    assert set(history) == names | {"val_loss", "val_accuracy"}
    assert len(logs.batches) == 12
    assert set(logs.batches[0]) == names
    values = hp.values()
    assert history["rate"][-1] == pytest.approx(values["rate"], rel=1e-6)
    assert history["weights_mean"][-1] == pytest.approx(values["weights"].mean(), 1e-6)
    assert logs.batches[-1]["l2"] == pytest.approx(values["l2"], rel=1e-6)
    assert len({float(batch["l2"]) for batch in logs.batches}) == 12
    assert logs.epochs[-1]["rate"] == history["rate"][-1]


def test_logs_before_the_first_outer_step_are_current_values():
    model = classifier(bt.DeltaSTN(warmup_epochs=5))
    assert fit(model).history["rate"] == [pytest.approx(0.3)]
    model.hyperparameters.assign({"rate": 0.7})
    assert fit(model).history["rate"] == [pytest.approx(0.7)]


def test_metrics_equal_evaluate_on_fixed_weights():
    optimizer = keras.optimizers.SGD(0.0)
    model = classifier(optimizer=optimizer, metrics=["accuracy"])
    valid = data(21, seed=1)
    history = fit(model, 1, valid=valid).history
    loss, accuracy = model.evaluate(*valid, verbose=0)
    assert history["val_loss"] == [pytest.approx(loss, rel=1e-6)]
    assert history["val_accuracy"] == [pytest.approx(accuracy, rel=1e-6)]


# Schedule


def tuned(space):
    return [space.unconstrained, space.raw_perturbation_scale]


class Schedule(keras.callbacks.Callback):
    """λ after every training batch."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        space = self.model.hyperparameters
        self.values.append([np.array(v) for v in tuned(space)])


@pytest.mark.parametrize("valid_steps", [1, 3])
def test_outer_steps_fall_after_every_round(valid_steps):
    method = bt.DeltaSTN(train_steps=4, valid_steps=valid_steps)
    model, schedule = classifier(method), Schedule()
    start = [np.array(v) for v in tuned(model.hyperparameters)]
    fit(model, 2, callbacks=[schedule])
    fit(model, 1, callbacks=[schedule])
    states = [start, *schedule.values]
    moved = [
        step
        for step, (a, b) in enumerate(itertools.pairwise(states), 1)
        if not np.array_equal(a[0], b[0])
    ]
    assert len(schedule.values) == 18
    assert moved == [4, 8, 12, 16]
    assert int(model.hyper_optimizer.iterations) == 4 * valid_steps
    assert model.progress.outer_steps == 4 * valid_steps


@pytest.mark.parametrize(
    ("per_execution", "train_steps"), [(2, 4), (4, 4), (3, 4), (5, 4), (6, 2), (50, 3)]
)
def test_steps_per_execution_changes_nothing(per_execution, train_steps, float64):
    """An epoch has 7 batches, so that both may straddle its end."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    models = []
    for count in (1, per_execution):
        keras.utils.set_random_seed(0)
        method = bt.DeltaSTN(train_steps=train_steps, valid_steps=2)
        models.append(classifier(method, steps_per_execution=count, loss=loss))
        fit(models[-1], 3, data(52))
    assert models[0].progress.inner_steps == 21
    assert vars(models[0].progress) == vars(models[1].progress)
    # Graphs of loops round otherwise.
    assert_same_state(*models, rtol=1e-10)


def test_steps_per_execution_on_data_of_unknown_length():
    models = []
    for count in (1, 4):
        keras.utils.set_random_seed(0)
        dataset = tf.data.Dataset.from_tensor_slices(data(52)).batch(8)
        dataset = dataset.filter(lambda x, y: True)
        method = bt.DeltaSTN(train_steps=2)
        models.append(classifier(method, steps_per_execution=count))
        fit(models[-1], 1, (dataset,), batch_size=None)
    assert models[0].progress.inner_steps == 7
    assert vars(models[0].progress) == vars(models[1].progress)
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=b.path)


def test_warmup_keeps_hyperparameters_over_calls_of_fit():
    model = classifier(bt.DeltaSTN(train_steps=1, warmup_epochs=3))
    hp = model.hyperparameters
    start = [np.array(v) for v in tuned(hp)]
    response = [np.array(v) for v in model.network.response_variables]
    fit(model, 2)
    fit(model, 1)
    for variable, value in zip(tuned(hp), start, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert model.progress.outer_steps == 0
    for variable, value in zip(model.network.response_variables, response, strict=True):
        assert not np.array_equal(variable, value), variable.path
    fit(model, 1)
    assert model.progress.outer_steps == 6
    for variable, value in zip(tuned(hp), start, strict=True):
        assert np.all(np.array(variable) != value)


def test_fixed_perturbation_scale_stays():
    hp = bt.HyperparameterSpace(
        rate=bt.Uniform(
            0.0, 0.9, initial=0.3, perturbation_scale=0.5,
            learn_perturbation_scale=False,
        ),
        l2=bt.LogUniform(1e-5, 1.0, initial=1e-2),
    )  # fmt: skip
    fit(classifier(bt.DeltaSTN(train_steps=1), hp=hp), 1)
    scales = hp.perturbation_scales()
    assert scales["rate"] == pytest.approx(0.5, rel=1e-6)
    assert abs(scales["l2"] - 1.0) > 1e-3


# Compilation


@pytest.mark.parametrize("mode", ["jit_compile", "run_eagerly"])
@pytest.mark.parametrize("method", METHODS)
def test_modes_agree_with_graph(method, mode):
    """XLA draws other random numbers; the noise is too small to tell."""
    models = []
    for arguments in ({}, {mode: True}):
        keras.utils.set_random_seed(0)
        scale = bt.LogUniform(1e-5, 1.0, initial=1e-2, perturbation_scale=1e-6)
        hp = bt.HyperparameterSpace(l2=scale, seed=3)
        inputs = keras.Input((6,))
        x = bt.HyperDense(4, "tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        model = bt.BilevelModel(inputs, bt.HyperDense(3)(x), hyperparameters=hp)
        models.append(model)
        optimizers = {"optimizer": keras.optimizers.SGD(0.05)}
        optimizers["hyper_optimizer"] = keras.optimizers.SGD(0.05)
        compiled(model, METHODS[method](train_steps=2), **optimizers, **arguments)
        for variable in model.network.response_variables:
            variable.assign(0.3 * np.random.normal(size=variable.shape))
        before = hp.values()
        fit(model, 1, data(32))
        assert hp.values() != before
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=b.path)


@pytest.mark.parametrize("mode", ["jit_compile", "run_eagerly"])
def test_modes_with_several_steps_per_execution(mode):
    method = bt.DeltaSTN(train_steps=4)
    model = classifier(method, steps_per_execution=2, **{mode: True})
    fit(model, 2)
    assert model.progress.inner_steps == 12
    assert model.progress.outer_steps == 3


@pytest.mark.parametrize("per_execution", [1, 2])
def test_no_retracing_after_the_first_epoch(per_execution, monkeypatch):
    traces = {"inner": 0, "outer": 0}
    inner, outer = bt.BilevelModel.train_step, bt.BilevelModel.stacked_outer_step

    def counted_inner(self, batch):
        traces["inner"] += 1
        return inner(self, batch)

    def counted_outer(self, batch):
        traces["outer"] += 1
        return outer(self, batch)

    monkeypatch.setattr(bt.BilevelModel, "train_step", counted_inner)
    monkeypatch.setattr(bt.BilevelModel, "stacked_outer_step", counted_outer)
    model = classifier(bt.DeltaSTN(train_steps=2), steps_per_execution=per_execution)
    fit(model, 1)
    after_first = dict(traces)
    assert traces["inner"] > 0
    assert traces["outer"] > 0
    fit(model, 3)
    assert traces == after_first
    assert model.progress.outer_steps == 12


def test_recompiling_with_another_method_takes_effect():
    model = classifier(bt.DeltaSTN(train_steps=2))
    fit(model)
    compiled(model, bt.DeltaSTN(train_steps=6))
    fit(model)
    assert model.progress.outer_steps == 3 + 1


# What is trained


def plain_and_bilevel(network, method, **arguments):
    """A Keras model and a BilevelModel of one network, with the same weights."""
    hp = space()
    inputs, outputs = network(hp)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    plain = model.to_keras()
    plain.compile(optimizer=keras.optimizers.Adam(0.01), loss=CROSSENTROPY)
    compiled(model, method, optimizer=keras.optimizers.Adam(0.01), **arguments)
    return plain, model


def dense(hp):
    inputs = keras.Input((6,))
    x = bt.HyperDense(8, activation="tanh")(inputs)
    return inputs, bt.HyperDense(3)(x)


def normalized(hp):
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization(momentum=0.7)(bt.HyperDense(8)(inputs))
    return inputs, bt.HyperDense(3)(keras.layers.Activation("relu")(x))


@pytest.mark.parametrize("network", [dense, normalized])
@pytest.mark.parametrize("method", ["DeltaSTN", "CenteredSTN"])
def test_weights_train_as_an_ordinary_network(method, network):
    """Batch statistics too: they come from the passes at λ alone."""
    method = METHODS[method](train_steps=2, entropy_weight=0.1)
    plain, model = plain_and_bilevel(network, method)
    train = data(44)
    plain.fit(*train, batch_size=8, epochs=3, shuffle=False, verbose=0)
    fit(model, 3, train)
    ours = [w for layer in model.layers[1:] for w in _plain_weights(layer)]
    assert len(ours) == len(plain.weights) > 0
    for a, b in zip(ours, plain.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=b.path)
    assert model.progress.outer_steps == 9
    x = data(9, seed=4)[0]
    expected = plain.predict(x, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def _plain_weights(layer):
    if hasattr(layer, "responding_weights"):
        return layer.responding_weights()
    return layer.weights


def test_shared_pass_trains_weights_under_perturbation():
    plain, model = plain_and_bilevel(dense, bt.DeltaSTN(shared_pass=True))
    before = model.network.responding_layers[0].responses["kernel"].factor.numpy()
    train = data(16)
    plain.fit(*train, batch_size=8, epochs=2, shuffle=False, verbose=0)
    fit(model, 2, train)
    gap = np.abs(model.network.responding_layers[0].kernel - plain.layers[1].kernel)
    assert 1e-5 < np.max(gap) < 0.1
    after = model.network.responding_layers[0].responses["kernel"].factor.numpy()
    assert not np.array_equal(before, after)


def test_response_share_leaves_the_rest_of_the_batch_out():
    """With weights held, labels beyond the share change nothing in the response."""
    x, y = data(8)
    wrong = np.where(np.arange(8) < 4, y, (y + 1) % 3)
    responses = []
    for share in (0.5, 1.0):
        for labels in (y, wrong):
            keras.utils.set_random_seed(0)
            method = bt.DeltaSTN(response_share=share, warmup_epochs=9)
            model = classifier(method, optimizer=keras.optimizers.SGD(0.0))
            fit(model, 2, (x, labels))
            responses.append([np.array(v) for v in model.network.response_variables])
    for a, b in zip(*responses[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(*responses[2:], strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


def test_share_of_a_small_batch_is_one_example():
    model = classifier(bt.DeltaSTN(response_share=0.01))
    before = [np.array(v) for v in model.network.response_variables]
    fit(model, 1, data(8), batch_size=4)
    after = model.network.response_variables
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_evaluate_leaves_weight_penalties_out():
    model = classifier()
    model.hyperparameters.assign({"l2": 0.9})
    x, y = data(21)
    expected = CROSSENTROPY(y, model.predict(x, verbose=0))
    assert model.evaluate(x, y, verbose=0) == pytest.approx(float(expected), rel=1e-6)
    norm = np.sum(np.square(model.network.responding_layers[0].kernel))
    assert float(sum(model.losses)) == pytest.approx(0.9 * norm, rel=1e-5)


def test_training_loss_has_weight_penalties():
    hp = space()
    inputs = keras.Input((6,))
    layer = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    optimizer = keras.optimizers.SGD(0.0)
    compiled(model, bt.DeltaSTN(warmup_epochs=1), optimizer=optimizer)
    hp.assign({"l2": 0.9})
    x, y = data(24)
    loss = fit(model, 1, (x, y)).history["loss"][0]
    penalty = 0.9 * np.sum(np.square(layer.kernel))
    expected = model.evaluate(x, y, verbose=0) + penalty
    assert loss == pytest.approx(expected, rel=1e-5)


def test_stn_predicts_at_its_hyperparameters():
    model = classifier(bt.STN(train_steps=2))
    fit(model, 2)
    x = data(7, seed=5)[0]
    at_own = model.call_at(x, {})
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, at_own, rtol=1e-6, atol=1e-6)
    one, two = model.network.responding_layers
    delta = model.hyperparameters.unconstrained.numpy()

    def affine(layer, inputs):
        kernel, bias = layer.responses.values()
        kernel = layer.kernel + (delta @ kernel.factor) * kernel.direction
        bias = layer.bias + (delta @ bias.factor) * bias.direction
        return inputs @ kernel + bias

    expected = affine(two, np.tanh(affine(one, x)))
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)
    stored = np.tanh(x @ one.kernel + one.bias) @ two.kernel + two.bias
    assert np.max(np.abs(stored - expected)) > 1e-3


@pytest.mark.slow
def test_two_hundred_hyperparameters():
    scales = {
        f"l2_{k}": bt.LogUniform(1e-6, 1.0, initial=1e-3 * (1 + k)) for k in range(200)
    }
    hp = bt.HyperparameterSpace(scales)
    inputs = keras.Input((6,))
    branches = [
        bt.HyperDense(
            1, kernel_regularizer=bt.regularizers.L1L2(hp[f"l2_{k}"], hp[f"l2_{k + 1}"])
        )(inputs)
        for k in range(0, 200, 50)
    ]
    outputs = bt.HyperDense(3)(keras.layers.Concatenate()(branches))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    compiled(model)
    before = hp.unconstrained.numpy()
    history = fit(model, 1).history
    assert {f"l2_{k}" for k in range(200)} <= set(history)
    after = hp.unconstrained.numpy()
    assert np.all(np.isfinite(after))
    assert np.all(after[::50] != before[::50])


# Callbacks


def test_early_stopping_restores():
    model = classifier()
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=1, mode="max", restore_best_weights=True
    )
    x, y = data(64)
    y = (x[:, 0] > 0).astype("int64")
    history = fit(model, 12, (x, y), (x[:24], y[:24]), callbacks=[stop]).history
    assert len(history["loss"]) < 12
    best = max(history["val_loss"])
    assert model.evaluate(x[:24], y[:24], verbose=0) == pytest.approx(best, rel=1e-5)


def test_model_checkpoint(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = classifier()
    fit(model, 2, callbacks=[keras.callbacks.ModelCheckpoint(path)])
    assert_same_state(keras.models.load_model(tmp_path / "2.keras"), model)
    resumed = keras.models.load_model(tmp_path / "1.keras")
    assert resumed.progress.epochs == 1
    fit(resumed, 1)
    assert_same_state(resumed, model)


def test_learning_rate_scheduler():
    model = classifier()
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))
    history = fit(model, 2, callbacks=[schedule]).history
    assert history["learning_rate"] == pytest.approx([0.1, 0.05])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    # An optimizer that was given keeps its own rate; the default follows.
    assert float(model.response_optimizer.learning_rate) == pytest.approx(0.02)
    model = classifier(response_optimizer=None)
    fit(model, 2, callbacks=[schedule])
    assert float(model.response_optimizer.learning_rate) == pytest.approx(0.05)


def test_learning_rate_schedule_serves_weights_and_response():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    model = classifier(
        optimizer=keras.optimizers.SGD(schedule), response_optimizer=None
    )
    fit(model, 1)
    rates = [model.optimizer.learning_rate, model.response_optimizer.learning_rate]
    assert float(rates[0]) == float(rates[1]) < 0.1


def test_single_callback_and_callback_list():
    logs = Logs()
    fit(classifier(), 1, callbacks=logs)
    assert len(logs.epochs) == 1
    logs, model = Logs(), classifier()
    callbacks = keras.callbacks.CallbackList(
        [logs], add_history=True, model=model, epochs=1, steps=6
    )
    history = fit(model, 1, callbacks=callbacks)
    assert len(logs.epochs) == 1
    assert "rate" in history.history
    assert model.progress.epochs == 1
    bad = data(44)
    bad[0][20] = np.nan
    with pytest.raises(FloatingPointError):
        fit(model, 1, bad, callbacks=callbacks)
