"""Hypergradients through training runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.autodiff.exact_decay import ExactDecay
from bilevel_tf.methods.functional import hypergradient
from bilevel_tf.methods.trajectory.training_run import TrainingRun
from bilevel_tf.network.problem import Problem
from tests.methods.problems import Quadratic, SmallNetwork, central_differences

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 7
NETWORK = SmallNetwork()


def momentum_sgd():
    # Half is exact in float32, to which Keras rounds momentum.
    return keras.optimizers.SGD(0.1, momentum=0.5)


def adam():
    return keras.optimizers.Adam(0.05)


def decaying():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.2, 3, 0.5)
    return keras.optimizers.SGD(schedule, nesterov=True, momentum=0.9, clipnorm=0.4)


class RealTraining:
    """θ_T by a Keras optimizer itself, on variables; always from the same start."""

    def __init__(self, make_optimizer):
        self.names = list(NETWORK.weights)
        weights = [NETWORK.weights[n] for n in self.names]
        self.variables = [keras.Variable(w, dtype="float64") for w in weights]
        self.optimizer = make_optimizer()
        self.optimizer.build(self.variables)
        everything = [*self.variables, *self.optimizer.variables]
        self.start = [(v, v.numpy()) for v in everything]
        self.step = tf.function(self._step)

    def _step(self, h, t):
        values = [v.value for v in self.variables]
        with tf.GradientTape() as tape:
            loss = NETWORK.inner_batch(self._named(values), h, t)
        self.optimizer.apply(tape.gradient(loss, values), self.variables)

    def _named(self, values):
        return dict(zip(self.names, values, strict=True))

    def __call__(self, h, steps=STEPS):
        for variable, value in self.start:
            variable.assign(value)
        for t in range(steps):
            self.step(h, tf.constant(t))
        return self._named([tf.identity(v.value) for v in self.variables])


@pytest.fixture(scope="module")
def by_differences():
    """dQ(θ_T(λ), λ)/dλ by central differences of real training, once per optimizer."""
    known = {}

    def differences(make_optimizer):
        if make_optimizer not in known:
            training = RealTraining(make_optimizer)
            known[make_optimizer] = central_differences(
                lambda h: NETWORK.outer(training(h), h), NETWORK.hyperparameters
            )
        return known[make_optimizer]

    return differences


def found(method, optimizer=None, **kwargs):
    given = {"weights": NETWORK.weights, "hyperparameters": NETWORK.hyperparameters}
    return hypergradient(
        NETWORK.inner_batch,
        NETWORK.outer,
        **{**given, **kwargs},
        method=method,
        optimizer=optimizer or momentum_sgd(),
    )


def flat(structure):
    return np.concatenate([np.ravel(x) for x in tf.nest.flatten(structure)])


def close(a, b, rtol=1e-9, atol=1e-12):
    np.testing.assert_allclose(flat(a), flat(b), rtol=rtol, atol=atol)


# Against real training.


@pytest.mark.parametrize("make_optimizer", [momentum_sgd, adam, decaying])
def test_unrolled_is_the_derivative_of_real_training(by_differences, make_optimizer):
    result = found(bt.Unrolled(STEPS), make_optimizer())
    close(result.gradients, by_differences(make_optimizer), rtol=1e-6, atol=1e-8)
    end = RealTraining(make_optimizer)(NETWORK.hyperparameters)
    close(result.weights, end)
    close(result.outer_loss, NETWORK.outer(end, NETWORK.hyperparameters))
    assert int(result.report["iterations"]) == STEPS
    assert int(result.report["first_bad_step"]) == -1


@pytest.mark.parametrize(
    "method", [bt.methods.ForwardMode(STEPS), bt.methods.RMAD(STEPS)]
)
def test_others_are_the_derivative_of_real_training(by_differences, method):
    result = found(method)
    close(result.gradients, by_differences(momentum_sgd), rtol=1e-6, atol=1e-8)


# Against each other.


@pytest.mark.parametrize("make_optimizer", [momentum_sgd, adam])
def test_forward_mode_equals_unrolled(make_optimizer):
    expected = found(bt.Unrolled(STEPS), make_optimizer())
    result = found(bt.methods.ForwardMode(STEPS), make_optimizer())
    close(result.gradients, expected.gradients)
    close(result.weights, expected.weights)


@pytest.mark.parametrize("given", [{}, {"weights": lambda h: NETWORK.weights}])
def test_forward_mode_traces_a_step_once(monkeypatch, given):
    traced, step, optimizer = [], TrainingRun.step, momentum_sgd()
    monkeypatch.setattr(
        TrainingRun, "step", lambda *args: traced.append(1) or step(*args)
    )
    tf.function(
        lambda: found(bt.methods.ForwardMode(STEPS), optimizer, **given).gradients
    )()
    assert len(traced) == 1


def test_forward_mode_can_be_taken_apart():
    method = bt.methods.ForwardMode(1)
    h = tf.constant([0.3, -0.2], tf.float64)
    problem = Problem(
        lambda w, h, t: tf.reduce_sum((w[0] - tf.exp(h[0])) ** 4),
        lambda w, h: tf.reduce_sum(tf.sin(w[0]) * h[0]),
        [tf.constant([0.5, 2.0], tf.float64)],
        [h],
        optimizer=adam(),
    )
    run = TrainingRun(problem)
    state, tangents = run.start(), method.initial_tangents(run)
    for steps in (1, 2, 3):
        state, tangents = method.advance(run, steps - 1, state, tangents)
        result = method.read(run, state, tangents)
        expected = bt.Unrolled(steps).hypergradient(problem)
        close(result.gradients, expected.gradients)


@pytest.mark.parametrize(
    ("steps", "truncation"),
    [(1, None), (2, None), (5, None), (9, None), (12, None), (5, 1), (9, 4), (12, 5)],
)
def test_checkpoints_change_no_bit(steps, truncation):
    h = [tf.constant([0.3, -0.2], tf.float64)]
    problem = Problem(
        lambda w, h, t: tf.reduce_sum(
            tf.cos(w[0] * tf.cast(t + 1, tf.float64)) * h[0] + (w[0] - h[0]) ** 2
        ),
        lambda w, h: tf.reduce_sum(tf.sin(w[0]) * h[0]),
        [tf.constant([0.5, 2.0], tf.float64)],
        h,
        optimizer=adam(),
    )
    plain = bt.Unrolled(steps, truncation).hypergradient(problem)
    method = bt.Unrolled(steps, truncation, checkpointed=True)
    result = method.hypergradient(problem)
    np.testing.assert_array_equal(result.gradients[0], plain.gradients[0])
    np.testing.assert_array_equal(result.weights[0], plain.weights[0])


def test_checkpoints_change_no_bit_in_a_graph():
    optimizer = momentum_sgd()
    run = tf.function(lambda method: found(method, optimizer).gradients)
    plain, checked = (
        run(bt.Unrolled(STEPS, checkpointed=flag)) for flag in (False, True)
    )
    np.testing.assert_array_equal(flat(plain), flat(checked))


def test_checkpoints_store_few_states(monkeypatch):
    from bilevel_tf.autodiff import tensor_lists as states

    rooms, computed = [], []
    empty, step = states.empty, TrainingRun.step
    monkeypatch.setattr(
        states, "empty", lambda like, size: rooms.append(size) or empty(like, size)
    )
    monkeypatch.setattr(
        TrainingRun, "step", lambda *args: computed.append(1) or step(*args)
    )
    found(bt.Unrolled(30, checkpointed=True))
    assert sum(rooms) <= 12
    # Forward, again within the segments, and in every pull-back.
    assert len(computed) <= 3 * 30


def test_truncation_goes_back_through_the_last_steps_only():
    optimizer = momentum_sgd()
    full = found(bt.Unrolled(STEPS), optimizer)
    errors = []
    for depth in (1, 3, 5, STEPS):
        result = found(bt.Unrolled(STEPS, truncation=depth), optimizer)
        close(result.weights, full.weights)
        errors.append(np.abs(flat(result.gradients) - flat(full.gradients)).max())
    assert errors[-1] == 0
    assert errors == sorted(errors, reverse=True)


def test_truncation_error_falls_at_the_known_rate():
    quadratic = Quadratic()
    values = np.linalg.eigvalsh(quadratic.hessian)
    rate = 0.9 / values[-1]

    def error(depth):
        result = hypergradient(
            lambda w, h: quadratic.inner(w, h),
            quadratic.outer,
            quadratic.optimum,
            quadratic.h,
            bt.Unrolled(depth + 3, truncation=depth),
            bt.TunedOptimizer(
                keras.optimizers.SGD(),
                learning_rate=lambda h: tf.constant(rate, tf.float64),
            ),
        )
        return np.abs(result.gradients - quadratic.hypergradient).max()

    few, many = error(40), error(60)
    expected = (1 - rate * values[0]) ** 20
    np.testing.assert_allclose(many / few, expected, rtol=0.1)
    assert expected < 0.5


# Reversible.


def test_exact_decay_is_undone_bit_for_bit():
    decay = ExactDecay.from_factor(0.9)
    assert (decay.numerator, decay.denominator) == (9, 10)
    generator = np.random.default_rng(0)
    start = x = tf.constant(generator.integers(-(2**45), 2**45, 50))
    buffer = tf.zeros_like(x)
    for _ in range(decay.period):
        x, buffer = decay.apply(x, buffer)
        assert (buffer.numpy() >= 0).all()
    assert np.abs(x).max() < 20
    for _ in range(decay.period):
        x, buffer = decay.undo(x, buffer)
    np.testing.assert_array_equal(x, start)
    np.testing.assert_array_equal(buffer, tf.zeros_like(buffer))


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99, 0.999, 2 / 3])
def test_the_buffer_never_overflows(factor):
    decay = ExactDecay.from_factor(factor)
    # The largest remainder each time.
    buffer = 0
    for _ in range(decay.period):
        assert buffer * decay.denominator + decay.denominator - 1 < 2**62
        buffer = (buffer * decay.denominator + decay.denominator - 1) // decay.numerator
    # And it is not started again much too early.
    assert buffer * decay.denominator + decay.denominator - 1 >= 2**62
    bits = decay.period * np.log2(decay.denominator / decay.numerator)
    assert bits > 40


def test_no_decay_needs_no_buffer():
    assert ExactDecay.from_factor(1.0).period is None


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.5, float("nan"), 0.123456789])
def test_decay_must_be_a_fraction(factor):
    with pytest.raises(ValueError, match="factor of a decay must be"):
        ExactDecay.from_factor(factor)


LONG = 1100


def fast_sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def test_reversible_training_recovers_every_state_bit_for_bit():
    def inner(w, h, t):
        rows = tf.range(4) + 4 * (t % 3)
        x, y = tf.gather(NETWORK.x, rows), tf.gather(NETWORK.y, rows)
        hidden = tf.tanh(h[0] * (x @ w[0][:, :4]))
        return tf.reduce_mean((hidden @ tf.transpose(w[0][:2, 4:]) - y[:, :2]) ** 2)

    method = bt.methods.RMAD(1000)
    weights = [tf.concat([NETWORK.weights["kernel"], tf.ones([3, 4], tf.float64)], 1)]
    h = [NETWORK.hyperparameters["scale"]]
    run = method.run(Problem(inner, None, weights, h, optimizer=fast_sgd()))
    memory = method.begin(run)
    visited = []
    for t in range(1000):
        visited.append([memory[0][0].numpy(), memory[1][0].numpy()])
        memory, finite = method.advance(run, tf.constant(t), memory)
        assert finite
    assert np.abs(memory[0][0] - visited[0][0]).max() > 2**30
    for t in reversed(range(1000)):
        _, memory = method.recall(run, tf.constant(t), memory)
        np.testing.assert_array_equal(memory[0][0], visited[t][0])
        np.testing.assert_array_equal(memory[1][0], visited[t][1])
    assert method.more(run, memory)["recovered"]


@pytest.mark.parametrize("jit", [False, True])
def test_reversible_training_recovers_the_start_in_a_graph(jit):
    optimizer = fast_sgd()
    run = tf.function(lambda method: found(method, optimizer), jit_compile=jit)
    result = run(bt.methods.RMAD(LONG))
    assert result.report["recovered"]
    expected = run(bt.Unrolled(LONG))
    close(result.weights, expected.weights, rtol=1e-6)
    close(result.gradients, expected.gradients, rtol=1e-5, atol=1e-8)


def test_reversible_equals_unrolled_to_its_rounding():
    expected = found(bt.Unrolled(STEPS))
    errors = []
    for bits in (20, 30, 40):
        result = found(bt.methods.RMAD(STEPS, fraction_bits=bits))
        assert result.report["recovered"]
        errors.append(np.abs(flat(result.gradients) - flat(expected.gradients)).max())
    assert errors[2] < 1e-10
    assert errors[1] < errors[0] / 100
    assert errors[2] < errors[1] / 100


@pytest.mark.parametrize("jit", [False, True])
def test_reversible_in_single_precision(jit):
    keras.backend.set_floatx("float32")
    generator = np.random.default_rng(0)
    draw = lambda *shape: tf.constant(generator.normal(size=shape), tf.float32)  # noqa: E731
    x, labels = draw(64, 20), tf.constant(generator.integers(0, 5, 64))
    weights = [0.3 * draw(*shape) for shape in ((20, 32), (32,), (32, 5))]

    # Enough operations for XLA to fuse them differently in the two directions.
    def logits(w, h):
        hidden = tf.nn.gelu(h[1] * (x @ w[0]) + w[1])
        mean, variance = tf.nn.moments(hidden, [1], keepdims=True)
        return tf.nn.softplus((hidden - mean) * tf.math.rsqrt(variance + 1e-3)) @ w[2]

    def inner(w, h, t):
        rows = tf.range(16) + 16 * (t % 4)
        taken = tf.gather(logits(w, h), rows)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.gather(labels, rows), taken
        )
        penalty = 0.01 * tf.exp(h[0]) * tf.reduce_sum(w[0] ** 2)
        return tf.reduce_mean(losses * tf.exp(0.1 * taken[:, 0])) + penalty

    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)

    @tf.function(jit_compile=jit)
    def run(method):
        h = [tf.constant(0.1), tf.constant(1.2)]
        outer = lambda w, h: tf.reduce_mean(logits(w, h) ** 2)  # noqa: E731
        return hypergradient(inner, outer, weights, h, method, optimizer)

    result, expected = run(bt.methods.RMAD(60)), run(bt.Unrolled(60))
    assert result.report["recovered"]
    close(result.gradients, expected.gradients, rtol=1e-3)


def test_a_start_that_is_not_recovered_is_reported():
    class Careless(bt.methods.RMAD):
        def turn(self, run, memory):
            weights, *rest = memory
            return ([weights[0] + 1, *weights[1:]], *rest)

    assert found(bt.methods.RMAD(STEPS)).report["recovered"]
    with pytest.warns(RuntimeWarning, match="Careless: NOT_RECOVERED.*is wrong"):
        report = found(Careless(STEPS)).report
    assert not report["recovered"]
    assert not report["converged"]
    assert int(report["status"]) == bt.methods.Status.NOT_RECOVERED


def test_reversible_keeps_one_buffer_per_period():
    method, optimizer = bt.methods.RMAD(LONG), fast_sgd()
    w = [tf.zeros(2, tf.float64)]
    run = method.run(Problem(None, None, w, w, optimizer=optimizer))
    period = ExactDecay.from_factor(0.9).period
    assert 300 < period < 500
    kept = method.begin(run)[3]
    assert int(kept[0].size()) == -(-LONG // period)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (keras.optimizers.Adam(0.1), "SGD only"),
        (keras.optimizers.SGD(0.1), "momentum=0"),
        (keras.optimizers.SGD(0.1, momentum=0.5, nesterov=True), "nesterov=True"),
        (keras.optimizers.SGD(0.1, momentum=0.5, weight_decay=0.1), "weight_decay=0.1"),
        (keras.optimizers.SGD(0.1, momentum=0.12345678), "denominator"),
        (
            bt.TunedOptimizer(momentum_sgd(), momentum=lambda h: h["scale"] / 2),
            "tuned momentum",
        ),
    ],
)
def test_reversible_refuses_other_optimizers(optimizer, message):
    with pytest.raises(ValueError, match=message):
        found(bt.methods.RMAD(STEPS), optimizer)


# DrMAD.


class Straight:
    """Constant gradient along the path of training, curved to its side."""

    h = tf.constant([-1.0, 0.0, 0.4], tf.float64)
    start = tf.constant([0.5, 0.0], tf.float64)

    def inner(self, w, h):
        return h[0] * w[0] + h[1] * w[1] + tf.cosh(w[1]) * tf.exp(h[2]) * w[0] ** 0

    def outer(self, w, h):
        return tf.sin(w[0] + 0.3 * w[1]) * h[2]


def straight(method, optimizer):
    problem = Straight()
    return hypergradient(
        problem.inner, problem.outer, problem.start, problem.h, method, optimizer
    )


def test_drmad_is_exact_on_a_straight_path():
    optimizer = keras.optimizers.SGD(0.1)
    expected = straight(bt.Unrolled(STEPS), optimizer)
    result = straight(bt.methods.DrMAD(STEPS), optimizer)
    close(result.gradients, expected.gradients)
    assert abs(expected.gradients[1]) > 0.01


def test_drmad_goes_along_the_line():
    method = bt.methods.DrMAD(4)
    w, h = [tf.constant([1.0, 2.0], tf.float64)], [tf.constant(1.0, tf.float64)]
    problem = Problem(
        lambda w, h, t: tf.reduce_sum(w[0] ** 2) * h[0],
        None,
        w,
        h,
        None,
        momentum_sgd(),
    )
    run = method.run(problem)
    end = [tf.constant([5.0, -2.0], tf.float64)]
    state, _ = method.recall(run, tf.constant(3), (w, end))
    close(state[0], [4.0, -1.0])
    assert int(state[1]) == 3
    close(state[2], [1.0, -1.0])
    state, _ = method.recall(run, tf.constant(0), (w, end))
    close(state[0], w[0])
    close(state[2], [0.0, 0.0])


def test_drmad_is_an_approximation_elsewhere():
    expected, result = found(bt.Unrolled(STEPS)), found(bt.methods.DrMAD(STEPS))
    close(result.weights, expected.weights)
    a, b = flat(result.gradients), flat(expected.gradients)
    assert np.abs(a - b).max() > 1e-6
    assert a @ b > 0.95 * np.linalg.norm(a) * np.linalg.norm(b)


# One step.


def test_greedy_is_one_step():
    close(
        found(bt.methods.Greedy(), adam()).gradients,
        found(bt.Unrolled(1), adam()).gradients,
    )


def test_darts_is_one_step_of_gradient_descent():
    rate = 0.25
    expected = found(bt.methods.Greedy(), keras.optimizers.SGD(rate))
    result = found(bt.methods.DARTS(rate))
    close(result.gradients, expected.gradients)
    close(result.weights, expected.weights)


def test_darts_difference_has_a_square_error():
    exact = flat(found(bt.methods.DARTS(0.25)).gradients)
    errors = [
        np.abs(
            flat(found(bt.methods.DARTS(0.25, "finite_difference", epsilon)).gradients)
            - exact
        ).max()
        for epsilon in (0.1, 0.01)
    ]
    np.testing.assert_allclose(errors[1] / errors[0], 0.01, rtol=0.1)


def test_first_order_darts_is_the_direct_gradient():
    def outer(w, h):
        return tf.sin(h) * w

    given = {"weights": tf.constant(2.0), "hyperparameters": tf.constant(0.3)}
    inner = lambda w, h: h * w**2  # noqa: E731
    method = bt.methods.DARTS(0.1, second_order=None)
    result = hypergradient(inner, outer, **given, method=method)
    close(result.gradients, 2 * np.cos(0.3), rtol=1e-6)
    close(result.weights, 2.0)
    with pytest.raises(ValueError, match="second_order"):
        hypergradient(inner, lambda w, h: w, **given, method=method)


# Optimizers as hyperparameters, and the start.


REVERSE = [bt.Unrolled(STEPS), bt.Unrolled(STEPS, checkpointed=True)]


@pytest.mark.parametrize("method", [*REVERSE, bt.methods.ForwardMode(STEPS)])
def test_learning_rate_momentum_and_decay_are_tuned(method):
    weights = NETWORK.weights
    optimizer = bt.TunedOptimizer(
        keras.optimizers.SGD(),
        learning_rate=lambda h, t: tf.exp(h["rates"][t]),
        momentum=lambda h: tf.sigmoid(h["momentum"]),
        weight_decay=lambda h: h["decay"] ** 2,
    )
    h = {
        "rates": tf.constant(np.linspace(-2, -3, STEPS)),
        "momentum": tf.constant(0.5, tf.float64),
        "decay": tf.constant(0.3, tf.float64),
    }
    fixed = NETWORK.hyperparameters

    def inner(w, h, t):
        return NETWORK.inner_batch(w, fixed, t)

    def outer(w, h):
        return NETWORK.outer(w, fixed)

    result = hypergradient(inner, outer, weights, h, method, optimizer)

    def by_hand(h):
        w = dict(weights)
        v = {n: tf.zeros_like(x) for n, x in w.items()}
        rates = tf.exp(h["rates"])
        for t in range(STEPS):
            with tf.GradientTape() as tape:
                tape.watch(w)
                loss = inner(w, h, t)
            g = tape.gradient(loss, w)
            for n in w:
                v[n] = tf.sigmoid(h["momentum"]) * v[n] - rates[t] * g[n]
                w[n] = w[n] * (1 - h["decay"] ** 2 * rates[t]) + v[n]
        return outer(w, h)

    expected = central_differences(tf.function(by_hand), h)
    close(result.gradients, expected, rtol=1e-6, atol=1e-8)


def test_reversible_tunes_the_learning_rate():
    optimizer = bt.TunedOptimizer(
        momentum_sgd(), learning_rate=lambda h, t: tf.exp(h["decay"][t % 2])
    )
    result = found(bt.methods.RMAD(STEPS), optimizer)
    assert result.report["recovered"]
    expected = found(bt.Unrolled(STEPS), optimizer)
    close(result.gradients, expected.gradients, rtol=1e-8)


METHODS = [
    bt.Unrolled(STEPS),
    bt.methods.ForwardMode(STEPS),
    bt.methods.RMAD(STEPS),
    bt.Unrolled(STEPS, checkpointed=True),
]


@pytest.mark.parametrize("method", METHODS)
def test_the_start_may_depend_on_hyperparameters(method):
    def start(h):
        factor = tf.exp(h["scale"] - 1.1)
        return tf.nest.map_structure(lambda w: factor * w, NETWORK.weights)

    optimizer, h = momentum_sgd(), NETWORK.hyperparameters
    result = found(method, weights=start)

    @tf.function
    def along(scale):
        moved = {**h, "scale": scale}
        given = {"weights": start(moved), "hyperparameters": moved}
        return found(bt.Unrolled(STEPS), optimizer, **given).outer_loss

    expected = central_differences(along, h["scale"])
    close(result.gradients["scale"], expected, rtol=1e-6)
    fixed = found(bt.Unrolled(STEPS)).gradients
    assert abs(fixed["scale"] - expected) > 1e-3
    close(result.gradients["decay"], fixed["decay"])


@pytest.mark.parametrize("method", METHODS)
def test_only_the_start_may_depend_on_hyperparameters(method):
    result = hypergradient(
        lambda w, h: tf.reduce_sum(tf.sin(w)),
        lambda w, h: tf.reduce_sum(w),
        lambda h: tf.stack([h, 2.0 * h]),
        tf.constant(0.2, tf.float64),
        method,
        momentum_sgd(),
    )
    assert float(result.gradients) > 1


# What goes wrong.


def test_methods_need_an_optimizer():
    for method in (*METHODS, bt.methods.DrMAD(3), bt.methods.Greedy()):
        assert method.needs_optimizer
        with pytest.raises(ValueError, match="needs an optimizer"):
            hypergradient(
                NETWORK.inner_batch,
                NETWORK.outer,
                NETWORK.weights,
                NETWORK.hyperparameters,
                method,
            )
    with pytest.raises(TypeError, match="'sgd'"):
        found(bt.Unrolled(2), "sgd")
    assert not bt.methods.DARTS(0.1).needs_optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bt.Unrolled(0), "`steps`.*steps=0"),
        (lambda: bt.methods.ForwardMode(2.5), "`steps`.*steps=2.5"),
        (lambda: bt.Unrolled(3, truncation=4), "truncation=4, steps=3"),
        (lambda: bt.Unrolled(3, truncation=0), "truncation=0"),
        (lambda: bt.methods.RMAD(3, fraction_bits=60), "fraction_bits=60"),
        (lambda: bt.methods.DARTS(0.0), "`learning_rate`.*learning_rate=0.0"),
        (lambda: bt.methods.DARTS(0.1, "second"), "second_order='second'"),
        (lambda: bt.methods.DARTS(0.1, epsilon=-1.0), "epsilon=-1.0"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_truncation_does_not_reach_the_start():
    with pytest.raises(ValueError, match="truncation=2, steps=7"):
        found(bt.Unrolled(STEPS, truncation=2), weights=lambda h: NETWORK.weights)


def test_a_hyperparameter_that_reaches_nothing_is_an_error():
    h = {**NETWORK.hyperparameters, "none": tf.constant(1.0, tf.float64)}
    for method in METHODS:
        with pytest.raises(ValueError, match="Neither loss depends"):
            found(method, hyperparameters=h)


@pytest.mark.parametrize("method", [*METHODS, bt.methods.DrMAD(STEPS)])
def test_the_step_in_which_weights_became_infinite_is_named(method):
    def inner(w, h, t):
        grows = tf.where(t < 3, tf.constant(0.0, w.dtype), tf.constant(1e308, w.dtype))
        return h * w**2 + grows * 1e10 * w

    given = [tf.constant(1.0, tf.float64), tf.constant(0.3, tf.float64)]
    outer = lambda w, h: w**2  # noqa: E731
    optimizer = momentum_sgd()
    with pytest.raises(FloatingPointError, match="in step 3 of"):
        hypergradient(inner, outer, *given, method, optimizer)
    run = tf.function(lambda w, h: hypergradient(inner, outer, w, h, method, optimizer))
    report = run(*given).report
    assert int(report["first_bad_step"]) == 3
    assert int(report["status"]) == bt.methods.Status.NOT_FINITE
    assert int(report["iterations"]) == STEPS


KEYS = ["status", "converged", "iterations", "residual"]


@pytest.mark.parametrize(
    ("method", "steps", "extras"),
    [
        (bt.Unrolled(STEPS), STEPS, ["first_bad_step"]),
        (bt.methods.ForwardMode(STEPS), STEPS, ["first_bad_step"]),
        (bt.methods.RMAD(STEPS), STEPS, ["first_bad_step", "recovered"]),
        (bt.methods.DrMAD(STEPS), STEPS, ["first_bad_step"]),
        (bt.methods.Greedy(), 1, ["first_bad_step"]),
        (bt.methods.DARTS(0.1), 1, []),
        (bt.methods.DARTS(0.1, "finite_difference"), 1, []),
        (bt.methods.DARTS(second_order=None), 0, []),
    ],
)
def test_reports_have_the_same_keys(method, steps, extras):
    result = hypergradient(
        lambda w, h: h * w**2,
        lambda w, h: h + w**2,
        tf.constant(2.0, tf.float64),
        tf.constant(0.3, tf.float64),
        method,
        momentum_sgd(),
    )
    assert list(result.report) == [*KEYS, *extras]
    assert int(result.report["status"]) == bt.methods.Status.CONVERGED
    assert result.report["converged"]
    assert int(result.report["iterations"]) == steps
    assert np.isnan(result.report["residual"])


def test_forward_mode_in_real_time_reports_all_steps_of_training():
    method = bt.methods.ForwardMode(1)
    w, h = [tf.constant(2.0, tf.float64)], [tf.constant(0.3, tf.float64)]
    problem = Problem(
        lambda w, h, t: tf.cast(t + 1, tf.float64) ** 600 * h[0] * w[0] ** 2,
        lambda w, h: w[0],
        w,
        h,
        optimizer=keras.optimizers.SGD(0.1),
    )
    run = method.run(problem)
    state, tangents = run.start(), method.initial_tangents(run)
    statuses = []
    for t in range(4):
        state, tangents = method.advance(run, t, state, tangents)
        report = method.read(run, state, tangents).report
        assert int(report["iterations"]) == t + 1
        statuses.append((int(report["status"]), int(report["first_bad_step"])))
    assert statuses[0] == (bt.methods.Status.CONVERGED, -1)
    assert statuses[3] == (bt.methods.Status.NOT_FINITE, 3)


def test_darts_reports_weights_that_are_not_finite():
    with pytest.warns(RuntimeWarning, match="DARTS: NOT_FINITE"):
        result = hypergradient(
            lambda w, h: h * tf.exp(w),
            lambda w, h: w,
            tf.constant(1000.0, tf.float64),
            tf.constant(0.3, tf.float64),
            bt.methods.DARTS(0.1),
        )
    assert not result.report["converged"]


# As part of a program.


ALL = [*METHODS, bt.methods.DrMAD(STEPS), bt.methods.Greedy(), bt.methods.DARTS(0.1)]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("jit", [False, True])
def test_compiled_gives_the_same_and_is_traced_once(method, jit):
    optimizer, traces = momentum_sgd(), []

    @tf.function(jit_compile=jit, autograph=False)
    def run(weights, h):
        traces.append(1)
        return found(method, optimizer, weights=weights, hyperparameters=h)

    expected = found(method, optimizer)
    result = run(NETWORK.weights, NETWORK.hyperparameters)
    close(result.gradients, expected.gradients, rtol=1e-8)
    changed = {**NETWORK.hyperparameters, "scale": tf.constant(0.7, tf.float64)}
    again = run(NETWORK.weights, changed)
    assert len(traces) == 1
    close(
        again.gradients,
        found(method, optimizer, hyperparameters=changed).gradients,
        rtol=1e-8,
    )
    assert not optimizer.built


@pytest.mark.parametrize(
    "method", [bt.Unrolled(2, checkpointed=True), bt.methods.RMAD(2)]
)
def test_a_graph_of_200_mb_can_be_called_again(method):
    """TensorFlow makes temporaries there, which the last pass of a loop must not."""
    x, optimizer = tf.ones((2048, 1024), tf.float64), momentum_sgd()

    def inner(w, h):
        return tf.reduce_mean(tf.sin(x * w) * tf.cos(x * w)) + h * tf.reduce_sum(w**4)

    def outer(w, h):
        return tf.reduce_mean(tf.sin(w))

    @tf.function
    def run():
        w, h = tf.ones(1024, tf.float64), tf.constant(0.3, tf.float64)
        return hypergradient(inner, outer, w, h, method, optimizer).gradients

    np.testing.assert_array_equal(run(), run())


@pytest.mark.parametrize("method", [*ALL, bt.Unrolled(9, 4, True, train_steps=3)])
def test_methods_are_serialised(method):
    config = keras.saving.serialize_keras_object(method)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(method)
    assert again.get_config() == method.get_config()
    assert vars(again) == vars(method)
