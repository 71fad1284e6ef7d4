"""A trial is plain Keras training at its hyperparameters."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.search.problems import data, diverging, network, outcome, ridge, run


def plain_training(build, values, seed, epochs):
    """What training with Keras alone gives: losses without penalties, weights."""
    (x, y), (x_valid, y_valid), _ = data()
    keras.utils.set_random_seed(seed)
    model = build()
    model.hyperparameters.assign(values)
    plain = model.to_keras()
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    plain.compile(optimizer, loss="mse")
    keras.utils.set_random_seed(seed)
    losses, training = [], []

    class Evaluate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            residual = y_valid - self.model(x_valid, training=False)
            losses.append(float(tf.reduce_mean(residual**2)))
            training.append(logs["loss"])

    plain.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=[Evaluate()])
    return losses, training[-1], plain.get_weights()


def test_every_trial_equals_plain_keras():
    """Also the later ones, which are trained in the model of the first."""
    result = run(bt.search.RandomSearch(3), network, epochs=3, seed=5)
    for trial in result.trials:
        losses, training, weights = plain_training(network, trial.values, 5, 3)
        assert trial.losses["loss"] == training
        np.testing.assert_allclose(trial.validation, losses, rtol=1e-6)
        if trial is result.best:
            best = result.fit_best().to_keras().get_weights()
            for ours, theirs in zip(best, weights, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert len({trial.score for trial in result.trials}) == 3


def test_the_score_is_the_mean_over_executions():
    search = bt.search.GridSearch({"l2": [0.1]})
    together = run(search, epochs=2, executions_per_trial=2, seed=3)
    alone = [run(search, epochs=2, seed=seed).best_score for seed in (3, 4)]
    assert together.best_score == pytest.approx(np.mean(alone), rel=1e-12)
    assert together.best.seeds == [3, 4]
    assert together.steps == 2 * 2 * 3


def test_the_best_epoch_may_be_the_score():
    arguments = {"build": lambda: ridge(0.4), "epochs": 4}
    search = bt.search.GridSearch({"l2": [0.5]})
    final, best = (run(search, score=s, **arguments) for s in ("final", "best"))
    assert final.best.validation == best.best.validation
    assert final.best_score == final.best.validation[-1]
    assert best.best_score == min(best.best.validation)


def test_the_outer_loss_judges():
    build = lambda: ridge(outer_loss="mae")  # noqa: E731
    result = run(bt.search.GridSearch({"l2": [0.1]}), build)
    assert result.best_score == result.best.losses["val_outer_loss"]
    assert result.best_score != result.best.losses["val_loss"]


def test_optimizer_hyperparameters_are_varied():
    def build():
        hp = bt.HyperparameterSpace(rate=bt.LogUniform(1e-4, 1.0, initial=1e-2))
        inputs = keras.Input((6,))
        outputs = bt.HyperDense(1, use_bias=False)(inputs)
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        optimizer = bt.TunedOptimizer("sgd", learning_rate=hp["rate"])
        model.compile(optimizer, loss="mse", method=bt.Unrolled(2))
        return model

    def plain(rate):
        keras.utils.set_random_seed(0)
        model = build().to_keras()
        model.compile(keras.optimizers.SGD(rate), loss="mse")
        keras.utils.set_random_seed(0)
        (x, y), validation, _ = data()
        return model.fit(x, y, 8, verbose=0, validation_data=validation)

    result = run(bt.search.GridSearch({"rate": [1e-3, 1e-1]}), build)
    for trial in result.trials:
        history = plain(trial.values["rate"]).history
        assert trial.score == pytest.approx(history["val_loss"][0], rel=1e-6)


def test_a_trial_that_diverges_is_the_worst_with_a_warning():
    search = bt.search.GridSearch({"l2": [80.0, 1e-2, 90.0]})
    with pytest.warns(RuntimeWarning, match="Trial . diverged.*counts as the worst"):
        result = run(search, diverging, epochs=12)
    assert [trial.status for trial in result.trials] == [
        "diverged",
        "finished",
        "diverged",
    ]
    assert result.trials[0].score == math.inf
    assert result.trials[0].steps < result.trials[1].steps
    assert result.best.number == 1
    assert np.isinf(result.best_so_far()[1][0])


def test_if_all_diverge_none_is_the_best():
    with pytest.warns(RuntimeWarning, match="diverged"):
        result = run(bt.search.GridSearch({"l2": [90.0]}), diverging, epochs=12)
    with pytest.raises(ValueError, match="All trials of GridSearch diverged"):
        _ = result.best


def test_the_best_network_can_be_had():
    result = run(bt.search.RandomSearch(2), network, epochs=2)
    validation = data()[1]
    model = result.fit_best()
    assert model.evaluate(*validation, verbose=0) == pytest.approx(result.best_score)
    plain = model.to_keras()
    np.testing.assert_array_equal(plain(validation[0]), model(validation[0]))
    other = result.fit_best(seed=9, epochs=1)
    assert other.evaluate(*validation, verbose=0) != result.best_score


def test_a_compiled_model_serves_as_the_function():
    model = network()
    model.fit(*data()[0], batch_size=4, validation_data=data()[1], verbose=0)
    before = model.get_weights()
    first, second = (run(bt.search.RandomSearch(2), model) for _ in range(2))
    assert outcome(first) == outcome(second)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_test_data_are_evaluated_and_choose_nothing():
    search, test = bt.search.RandomSearch(2), data()[2]
    result = run(search, epochs=2, test_data=test)
    found = result.fit_best().evaluate(*test, verbose=0)
    assert result.best.losses["test_loss"] == pytest.approx(found, rel=1e-6)
    assert outcome(result) == outcome(run(search, epochs=2))


def test_a_model_that_has_been_trained_is_refused():
    model = ridge()
    search = bt.search.RandomSearch(2)
    with pytest.raises(ValueError, match="must make a new model each time"):
        run(search, lambda: model)


@pytest.mark.parametrize(
    "scale",
    [
        bt.Uniform(0.0, 0.9, initial=0.5),
        bt.LogUniform(1e-3, 0.5, initial=0.1),
        bt.Positive(0.1),
        bt.Uniform(0.0, 0.9, initial=[0.5] * 6),
    ],
    ids=["uniform", "log-uniform", "positive", "vector"],
)
def test_every_scale_is_varied(scale):
    def build():
        hp = bt.HyperparameterSpace(l2=scale)
        inputs = keras.Input((6,))
        factor = hp["l2"]
        layer = bt.HyperDense(1, use_bias=False, kernel_regularizer=bt.L2(factor))
        if scale.shape:
            layer = bt.HyperDense(6, use_bias=False, kernel_regularizer=bt.L2(factor))
        outputs = keras.layers.Lambda(lambda t: t[:, :1])(layer(inputs))
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        model.compile("sgd", loss="mse", method=bt.methods.T1T2())
        return model

    ranges = {"l2": (1e-3, 1.0)} if isinstance(scale, bt.Positive) else None
    result = run(bt.search.RandomSearch(2, ranges=ranges), build)
    values = np.asarray([trial.values["l2"] for trial in result.trials])
    assert values.shape == (2, *scale.shape)
    assert len(np.unique(values)) == values.size
    assert result.trials[0].score != result.trials[1].score


def test_whole_numbers_are_tried_once_each():
    from bilevel_tf.search.random_search import RandomPlan
    from bilevel_tf.search.ranges import find_ranges

    hp = bt.HyperparameterSpace(holes=bt.Integer(0, 4, initial=1))
    plan = RandomPlan(find_ranges(hp, None), 1, 0)
    proposals = [plan.propose(number, []) for number in range(5)]
    values = {int(plan.values(p)["holes"]) for p in proposals}
    assert values == {0, 1, 2, 3, 4}
    assert plan.propose(5, []).value == "end"
