"""Keras models under methods that follow the steps of their optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.training.data.validation_feed import OuterFeed
from tests.methods.problems import central_differences
from tests.training.models import data

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def crossentropy():
    """Made at every call: a loss computes in the float type of its making."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batches():
    """Three training batches, stacked."""
    x, y = data(24)
    return tf.constant(x.reshape(3, 8, 6)), tf.constant(y.reshape(3, 8))


def restore(state):
    for variable, value in state:
        variable.assign(value)


class TunedRate:
    """A small network whose learning rate and momentum are hyperparameters."""

    def __init__(self, method, optimizer="sgd", momentum=None, **arguments):
        hp = bt.HyperparameterSpace(
            l2=bt.LogUniform(1e-5, 1.0, initial=1e-2),
            rate=bt.LogUniform(1e-4, 1.0, initial=0.05),
            momentum=bt.Uniform(0.0, 1.0, initial=0.7),
        )
        inputs = keras.Input((6,))
        x = keras.layers.Dense(4, "tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        outputs = keras.layers.Dense(3)(x)
        self.model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        self.space = hp
        if optimizer == "sgd":
            tuned = {} if momentum else {"momentum": hp["momentum"]}
            optimizer = bt.TunedOptimizer(
                keras.optimizers.SGD(momentum=momentum or 0.9),
                learning_rate=hp["rate"],
                **tuned,
            )
        elif optimizer == "Adam":
            optimizer = bt.TunedOptimizer(
                keras.optimizers.Adam(epsilon=1e-3), learning_rate=lambda h: h["rate"]
            )
        arguments = {"hyper_optimizer": keras.optimizers.SGD(1.0), **arguments}
        self.model.compile(optimizer, method=method, loss=crossentropy(), **arguments)

    def train(self, steps):
        """Keras's own training, one batch after the other."""
        x, y = batches()
        for step in range(steps):
            self.model.train_step((x[step % 3], y[step % 3]))

    def outer_step(self, *training):
        """dQ/dλ: SGD at rate 1 has moved λ by it."""
        before = np.array(self.space.unconstrained)
        self.model.outer_train_step((data(10, seed=1), *training))
        return before - np.array(self.space.unconstrained)

    def state(self):
        """All variables and their values."""
        model = self.model
        variables = [*model.variables, *model.optimizer.variables]
        return [(v, np.array(v)) for v in [*variables, *model.network_state.values()]]

    def differences(self, train):
        """dQ/dλ after `train()` by central differences; leaves everything as it is."""
        before = self.state()

        def after(h):
            restore(before)
            self.space.unconstrained.assign(h)
            train()
            return self.outer_loss()

        start = tf.constant(np.array(self.space.unconstrained))
        expected = central_differences(after, start)
        restore(before)
        return expected

    def outer_loss(self):
        x, y = data(10, seed=1)
        loss = self.model.compute_loss(x, y, self.model(x), None, training=False)
        return float(loss - sum(self.model.losses))


@pytest.mark.parametrize("optimizer", ["sgd", "Adam"])
@pytest.mark.parametrize(
    "method", [bt.Unrolled(3), bt.methods.ForwardMode(3)], ids=["reverse", "forward"]
)
@pytest.mark.usefixtures("float64")
def test_looking_ahead_is_training(method, optimizer):
    """dQ/dλ is that of the very steps that `fit` would take next."""
    tuned = TunedRate(method, optimizer)
    tuned.train(4)
    before, expected = tuned.state(), tuned.differences(lambda: tuned.train(3))
    found = tuned.outer_step(batches())
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    reached = [True, True, optimizer == "sgd"]
    np.testing.assert_array_equal(np.abs(found) > 1e-6, reached)
    for variable, value in before:
        if variable is not tuned.space.unconstrained:
            np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("optimizer", ["sgd", "Adam"])
@pytest.mark.usefixtures("float64")
def test_forward_mode_in_real_time_is_of_the_whole_run(optimizer):
    tuned = TunedRate(bt.methods.ForwardMode(real_time=True), optimizer)
    train = tf.function(lambda: tuned.train(5), autograph=False)
    expected = tuned.differences(train)
    train()
    weights = [np.array(w) for w in tuned.model.trainable_variables]
    found = tuned.outer_step()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    for variable, value in zip(tuned.model.trainable_variables, weights, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_forward_mode_in_real_time_refuses_too_many_tangents():
    # 3 hyperparameters × (43 weights and as many momenta).
    with pytest.raises(ValueError, match=r"258 numbers .3 scalar.*max_entries=257"):
        TunedRate(bt.methods.ForwardMode(real_time=True, max_entries=257))
    TunedRate(bt.methods.ForwardMode(real_time=True, max_entries=258))


def test_forward_mode_in_real_time_does_not_restart():
    with pytest.raises(ValueError, match="`restart` must be False"):
        bt.methods.ForwardMode(real_time=True, restart=True)


@pytest.mark.parametrize("method", [bt.Unrolled, bt.methods.RMAD])
@pytest.mark.usefixtures("float64")
def test_a_run_may_restart_with_the_same_batches(method):
    """The model is then where training from the start with the last λ ends."""
    tuned = TunedRate(method(3, restart=True, fixed_batches=True), momentum=0.7)
    model = tuned.model
    start = [np.array(w) for w in model.trainable_variables]
    batches = []
    x, y = data(44)
    rates, ends = [], []
    feed = OuterFeed(data(10, seed=1), (x, y, None), (8, 8), model.method)(0)
    for batch in feed.take(3):
        rates.append(tuned.space.values())
        batches.append(batch[1])
        model.outer_train_step(batch)
        ends.append([np.array(w) for w in model.trainable_variables])
    for other in batches[1:]:
        for a, b in zip(other, batches[0], strict=True):
            np.testing.assert_array_equal(a, b)
    assert rates[0] != rates[1] != rates[2]
    for values, end in zip(rates, ends, strict=True):
        tuned.space.assign(values)
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        for t in range(3):
            model.train_step((batches[0][0][t], batches[0][1][t]))
        for variable, value in zip(model.trainable_variables, end, strict=True):
            np.testing.assert_allclose(variable, value, atol=1e-7)


def test_training_takes_the_rate_from_the_space():
    tuned = TunedRate(bt.methods.Greedy())
    kernel = tuned.model.layers[1].kernel
    moves, before, start = [], tuned.state(), np.array(kernel)
    for rate in (0.05, 0.1):
        tuned.space.assign({"rate": rate})
        tuned.train(1)
        moves.append(np.array(kernel) - start)
        restore(before)
    np.testing.assert_allclose(moves[1], 2 * moves[0], atol=1e-6)


def test_a_tuned_optimizer_is_saved(tmp_path):
    def tune(model):
        x, y = data(44)
        model.fit(x, y, 8, 2, 0, validation_data=data(20, seed=1), shuffle=False)

    tuned = TunedRate(bt.methods.Greedy(train_steps=2), optimizer="sgd")
    start = np.array(tuned.space.unconstrained)
    tune(tuned.model)
    assert np.all(np.array(tuned.space.unconstrained) != start)
    tuned.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    tune(tuned.model)
    tune(loaded)
    for a, b in zip(tuned.model.variables, loaded.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=b.path)


@pytest.mark.parametrize("method", [bt.Neumann(), bt.methods.DARTS(0.1), bt.DeltaSTN()])
def test_who_does_not_follow_the_optimizer_cannot_tune_it(method):
    name = type(method).__name__
    with pytest.raises(ValueError, match=f"{name} cannot reach `learning_rate`, `mom"):
        TunedRate(method)


@pytest.mark.parametrize(
    ("method", "optimizer", "message"),
    [
        (
            bt.methods.RMAD(3),
            keras.optimizers.Adam(),
            "knows the steps of keras",
        ),
        (bt.methods.RMAD(3), keras.optimizers.SGD(), "constant momentum above 0"),
        (
            bt.methods.DrMAD(3),
            keras.optimizers.SGD(momentum=0.9, nesterov=True),
            "nesterov",
        ),
        (
            bt.methods.Greedy(),
            keras.optimizers.Adam(use_ema=True),
            "averages the weights",
        ),
        (
            bt.methods.ForwardMode(),
            keras.optimizers.SGD(gradient_accumulation_steps=2),
            "adds up the gradients",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_followed_is_refused(method, optimizer, message):
    with pytest.raises(ValueError, match=message):
        TunedRate(method, optimizer)
