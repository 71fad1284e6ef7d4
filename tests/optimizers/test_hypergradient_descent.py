"""`HypergradientDescent` against the published algorithms, written out in numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.methods.problems import SmallNetwork, central_differences

GRANULARITIES = ["global", "layer", "parameter"]
RULES = [("additive", 0.01), ("multiplicative", 0.1)]
RATE = 0.05
# Keras rounds these to single precision.
MOMENTUM, BETA_2, EPSILON = 7 / 8, 63 / 64, 2**-13
SHAPES = {"first/kernel": (3, 4), "first/bias": (4,), "second/kernel": (4, 2)}
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}


class Training:
    """A small network in float64, its minibatches, and an optimizer."""

    def __init__(self, optimizer):
        self.problem = SmallNetwork()
        names = dict(zip(SIZES, ("kernel", "bias", "out"), strict=True))
        self.variables = []
        for path, name in names.items():
            scope, leaf = path.split("/")
            with keras.name_scope(scope):
                value = self.problem.weights[name]
                self.variables.append(keras.Variable(value, name=leaf))
        self.optimizer = optimizer
        optimizer.build(self.variables)

    def loss(self, step, weights=None):
        values = [v.value for v in self.variables] if weights is None else weights
        weights = dict(zip(("kernel", "bias", "out"), values, strict=True))
        return self.problem.inner_batch(weights, self.problem.hyperparameters, step)

    def gradients(self, step):
        with tf.GradientTape() as tape:
            loss = self.loss(step)
        return tape.gradient(loss, [v.value for v in self.variables])

    def step(self, step):
        self.optimizer.apply(self.gradients(step))

    def steps(self, count):
        """So many steps from the first; returns itself."""
        for step in range(count):
            self.step(step)
        return self

    def flat(self):
        return np.concatenate([np.ravel(v) for v in self.variables])

    def flat_rates(self):
        return np.concatenate([np.ravel(r) for r in rates(self.optimizer).values()])

    def flat_gradient(self, flat, step):
        """∇L at other weights."""
        shapes = [v.shape for v in self.variables]
        cuts = np.cumsum(list(SIZES.values()))[:-1]
        parts = zip(np.split(flat, cuts), shapes, strict=True)
        weights = [tf.constant(part.reshape(shape)) for part, shape in parts]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.loss(step, weights)
        return np.concatenate([np.ravel(g) for g in tape.gradient(loss, weights)])


def rates(optimizer):
    return optimizer.learning_rates()


def descent(optimizer, beta=0.0, **kwargs):
    return bt.optimizers.HypergradientDescent(
        optimizer, beta, **{"high": 1e6, **kwargs}
    )


# The directions ∂u/∂α of Baydin et al., as generators that are sent gradients.


def sgd():
    """Alg. 4."""
    d = None
    while True:
        g = yield d
        d = -g


def heavy_ball(mu=MOMENTUM):
    d, v = None, 0
    while True:
        g = yield d
        v = mu * v + g
        d = -v


def nesterov(mu=MOMENTUM):
    """Alg. 5."""
    d, v = None, 0
    while True:
        g = yield d
        v = mu * v + g
        d = -g - mu * v


def adam(beta_1=MOMENTUM, beta_2=BETA_2, epsilon=EPSILON):
    """Alg. 6, with ε where Keras has it: of √v, before the bias is corrected."""
    d, m, v, t = None, 0, 0, 0
    while True:
        g = yield d
        t += 1
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
        d = -m_hat / (np.sqrt(v_hat) + epsilon / np.sqrt(1 - beta_2**t))


PUBLISHED = {
    "sgd": (sgd, lambda: keras.optimizers.SGD(RATE)),
    "momentum": (heavy_ball, lambda: keras.optimizers.SGD(RATE, momentum=MOMENTUM)),
    "nesterov": (
        nesterov,
        lambda: keras.optimizers.SGD(RATE, momentum=MOMENTUM, nesterov=True),
    ),
    "adam": (
        adam,
        lambda: keras.optimizers.Adam(
            RATE, beta_1=MOMENTUM, beta_2=BETA_2, epsilon=EPSILON
        ),
    ),
}

GROUPS = {
    "global": np.zeros(24, int),
    "layer": np.repeat([0, 1], [16, 8]),
    "parameter": np.arange(24),
}


def by_hand(training, direction, steps, groups, rule, beta):
    """Weights and rates after every step."""
    weights, alpha = training.flat(), np.full(groups.max() + 1, RATE)
    previous = np.zeros_like(weights)
    direction = direction()
    next(direction)

    def product(a, b):
        return np.bincount(groups, a * b)

    for step in range(steps):
        gradient = training.flat_gradient(weights, step)
        h = product(gradient, previous)
        if rule == "additive":
            alpha = alpha - beta * h
        elif step:
            norms = product(gradient, gradient) * product(previous, previous)
            alpha = alpha * (1 - beta * h / np.sqrt(norms))
        previous = direction.send(gradient)
        weights = weights + alpha[groups] * previous
        yield weights, alpha


@pytest.mark.parametrize(("rule", "beta"), RULES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_is_the_published_algorithm(name, granularity, rule, beta, float64):
    direction, make = PUBLISHED[name]
    # Adam's direction is of size 1 where a gradient is of size 0.1.
    beta = beta / 5 if name == "adam" and rule == "additive" else beta
    optimizer = descent(make(), beta, granularity=granularity, rule=rule)
    training = Training(optimizer)
    hand = by_hand(training, direction, 7, GROUPS[granularity], rule, beta)
    for step, (weights, alpha) in enumerate(hand):
        training.step(step)
        np.testing.assert_allclose(training.flat_rates(), alpha, rtol=1e-11)
        np.testing.assert_allclose(training.flat(), weights, rtol=1e-11)
    assert np.all(training.flat_rates() != RATE)
    assert np.max(np.abs(training.flat_rates() / RATE - 1)) > 0.02
    mean = np.mean(training.flat_rates())
    np.testing.assert_allclose(float(optimizer.learning_rate), mean, rtol=1e-14)


ALL = {
    "SGD": {"weight_decay": 0.25},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.25},
    "Adamax": {},
    "Lion": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
}


@pytest.mark.parametrize(
    ("name", "granularity"),
    [*((name, "layer") for name in ALL), ("AdamW", "global"), ("AdamW", "parameter")],
)
def test_hypergradient_is_that_of_the_loss_in_the_last_rate(name, granularity, float64):
    make = getattr(keras.optimizers, name)
    optimizer = descent(make(RATE, **ALL[name]), granularity=granularity)
    training = Training(optimizer).steps(3)
    state = [(v, np.array(v)) for v in [*optimizer.variables, *training.variables]]

    def loss(values):
        for variable, value in state:
            variable.assign(value)
        for key, value in values.items():
            optimizer._rates[key].assign(value)
        training.step(3)
        return training.loss(4)

    before = {key: tf.constant(r, "float64") for key, r in rates(optimizer).items()}
    expected = central_differences(loss, before)
    loss(before)
    optimizer.hyper_learning_rate = 1e-3
    training.step(4)
    for key, rate in rates(optimizer).items():
        found = (np.array(before[key]) - rate) / 1e-3
        np.testing.assert_allclose(found, expected[key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"momentum": MOMENTUM, "weight_decay": 0.125, "clipnorm": 0.1}),
        ("RMSprop", {"global_clipnorm": 0.2}),
        ("Adam", {"clipvalue": 0.05}),
        ("Adam", {"gradient_accumulation_steps": 2}),
        ("AdamW", {"weight_decay": 0.125, "loss_scale_factor": 4.0}),
        ("SGD", {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}),
    ],
)
def test_at_constant_rates_it_is_the_keras_optimizer(name, options, float64):
    make = getattr(keras.optimizers, name)
    ours, theirs = (
        Training(wrap(make(RATE, **options))).steps(7)
        for wrap in (descent, lambda o: o)
    )
    np.testing.assert_allclose(ours.flat(), theirs.flat(), rtol=1e-12)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations)


@pytest.mark.parametrize("given_to", ["wrapped", "wrapper"])
def test_variables_excluded_from_weight_decay(given_to, float64):
    def train(wrap):
        inner = keras.optimizers.SGD(RATE, weight_decay=2.0)
        outer = wrap(inner) if given_to == "wrapper" else inner
        outer.exclude_from_weight_decay(var_names=["bias"])
        return Training(outer if given_to == "wrapper" else wrap(inner)).steps(2).flat()

    np.testing.assert_allclose(train(descent), train(lambda o: o), rtol=1e-12)


class TestRates:
    @pytest.mark.parametrize(
        ("granularity", "shapes"),
        [
            ("global", {"global": ()}),
            ("layer", {"first": (), "second": ()}),
            ("parameter", SHAPES),
        ],
    )
    def test_start_at_the_learning_rate_by_name(self, granularity, shapes, float64):
        found = rates(Training(descent("sgd", granularity=granularity)).optimizer)
        assert {name: np.shape(rate) for name, rate in found.items()} == shapes
        assert all(np.all(rate == 0.01) for rate in found.values())

    def test_layers_of_one_name_have_rates_of_their_own(self):
        variables = []
        for units in (2, 3):
            with keras.name_scope("response"):
                for name in ("kernel", "bias"):
                    variables.append(keras.Variable(np.ones(units), name=name))
        found = {}
        for granularity in ("layer", "parameter"):
            optimizer = descent("sgd", granularity=granularity)
            optimizer.build(variables)
            found[granularity] = list(rates(optimizer))
        assert found["layer"] == ["response", "response_1"]
        assert found["parameter"] == [
            "response/kernel",
            "response/bias",
            "response/kernel_1",
            "response/bias_1",
        ]

    @pytest.mark.parametrize("rule", ["additive", "multiplicative"])
    @pytest.mark.parametrize("granularity", GRANULARITIES)
    def test_stay_within_bounds(self, granularity, rule, float64):
        bounds = {"low": 0.045, "high": 0.055}
        sgd = keras.optimizers.SGD(RATE)
        training = Training(
            descent(sgd, 0.9, granularity=granularity, rule=rule, **bounds)
        )
        seen = []
        for step in range(6):
            training.step(step)
            seen.append(training.flat_rates())
        assert np.min(seen) >= 0.045
        assert np.max(seen) == 0.055

    def test_negative_rates_are_not_default(self, float64):
        training = Training(descent(keras.optimizers.SGD(RATE), 1.0)).steps(1)
        training.optimizer.apply([-g for g in training.gradients(0)])
        assert training.flat_rates() == 0
        training.optimizer.apply([-g for g in training.gradients(0)])
        assert training.flat_rates() > 0

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("rule", ["additive", "multiplicative"])
    def test_stay_where_the_hypergradient_is_not_finite(self, rule, bad, float64):
        sgd = keras.optimizers.SGD(RATE)
        optimizer = descent(sgd, 0.1, granularity="layer", rule=rule)
        training = Training(optimizer).steps(2)
        before, gradients = rates(optimizer), training.gradients(2)
        optimizer.apply([g if i else g * bad for i, g in enumerate(gradients)])
        after = rates(optimizer)
        assert after["first"] == before["first"]
        assert after["second"] != before["second"]

    def test_hypergradient_is_clipped(self, float64):
        sgd = keras.optimizers.SGD(RATE)
        training = Training(descent(sgd, 0.1, hyper_clipvalue=1e-4))
        training.step(0)
        training.step(0)
        np.testing.assert_allclose(training.flat_rates(), RATE + 1e-5, rtol=1e-14)

    def test_setting_the_rate_keeps_the_ratios(self, float64):
        sgd = keras.optimizers.SGD(RATE)
        optimizer = descent(sgd, 0.02, granularity="parameter")
        training = Training(optimizer).steps(3)
        before = training.flat_rates()
        optimizer.learning_rate = float(optimizer.learning_rate) / 2
        np.testing.assert_allclose(training.flat_rates(), before / 2, rtol=1e-13)
        optimizer.learning_rate = 0.0
        np.testing.assert_array_equal(training.flat_rates(), np.zeros(24))
        optimizer.learning_rate = 0.3
        np.testing.assert_array_equal(training.flat_rates(), np.full(24, 0.3))

    def test_setting_the_rate_before_it_is_built(self, float64):
        optimizer = descent("adam")
        optimizer.learning_rate = 0.2
        assert float(optimizer.learning_rate) == 0.2
        Training(optimizer)
        assert rates(optimizer) == {"global": 0.2}


# In Keras

OPTIONS = [
    ("global", "additive"),
    ("layer", "multiplicative"),
    ("parameter", "additive"),
]


def data(examples=48):
    random = np.random.default_rng(0)
    x = random.normal(size=(examples, 3))
    return x, np.sin(x @ random.normal(size=(3, 2)))


def network(optimizer, **kwargs):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, "tanh", name="a"), keras.layers.Dense(2, name="b")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer, loss="mse", **kwargs)
    return model


def fit(model, epochs=2, **kwargs):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(*data(), epochs=epochs, **options).history


def adam_descent(granularity, rule, beta=1e-3):
    return bt.optimizers.HypergradientDescent(
        keras.optimizers.Adam(0.01, clipnorm=1.0), beta, granularity, rule
    )


def assert_same(model, other):
    assert len(model.optimizer.variables) == len(other.optimizer.variables)
    for first, second in zip(
        [*model.variables, *model.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(first, second, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("granularity", "rule"), OPTIONS)
def test_fit_is_the_same_with_and_without_xla(granularity, rule, float64):
    models = []
    for how in ({"jit_compile": False}, {"jit_compile": True}):
        models.append(network(adam_descent(granularity, rule), **how))
        fit(models[-1])
    assert_same(*models)
    assert float(models[0].optimizer.learning_rate) != 0.01


def test_one_trace_and_no_host_ops(float64):
    adam = keras.optimizers.Adam(RATE)
    training = Training(descent(adam, 1e-3, granularity="parameter"))

    @tf.function
    def step(gradients):
        training.optimizer.apply(gradients)

    for i in range(4):
        step(training.gradients(i))
    training.optimizer.learning_rate = 0.01
    step(training.gradients(4))
    assert step.experimental_get_tracing_count() == 1
    graph = step.get_concrete_function(training.gradients(0)).graph
    assert not [op.type for op in graph.get_operations() if "PyFunc" in op.type]


@pytest.mark.parametrize(("granularity", "rule"), OPTIONS)
def test_a_loaded_model_continues_identically(granularity, rule, tmp_path, float64):
    model = network(adam_descent(granularity, rule))
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(model, loaded)
    assert fit(model) == fit(loaded)
    assert_same(model, loaded)


def test_config_has_the_arguments_and_the_current_rate(float64):
    inner = keras.optimizers.SGD(
        0.01,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=0.1,
        clipnorm=0.5,
        use_ema=True,
    )
    optimizer = bt.optimizers.HypergradientDescent(
        inner, 1e-3, "layer", "multiplicative", 1e-5, 0.5, 2.0, name="mine"
    )
    fit(network(optimizer))
    config = optimizer.get_config()
    copy = bt.optimizers.HypergradientDescent.from_config(config)
    assert copy.get_config() == config
    assert config["name"] == "mine"
    assert float(copy.learning_rate) == float(optimizer.learning_rate) != 0.01
    given = {**inner.get_config(), "learning_rate": float(optimizer.learning_rate)}
    assert config["optimizer"]["config"] == given
    assert copy.clipnorm == 0.5
    assert copy.use_ema


def test_config_of_a_rate_at_its_bound_in_single_precision():
    optimizer = bt.optimizers.HypergradientDescent(
        keras.optimizers.SGD(0.1), 1e-3, high=0.1
    )
    copy = bt.optimizers.HypergradientDescent.from_config(optimizer.get_config())
    assert copy.get_config() == optimizer.get_config()


def test_callbacks_of_keras_see_and_set_the_rate(float64):
    model = network(adam_descent("layer", "additive", 1e-5))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = fit(model, epochs=1, callbacks=[scheduler])
    assert 0.005 < history["learning_rate"][0] < 0.0055
    assert history["learning_rate"][0] == float(model.optimizer.learning_rate)


def test_embeddings_have_sparse_gradients(float64):
    tables = []
    for wrap in (descent, lambda optimizer: optimizer):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Embedding(6, 3), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((2,), dtype="int32"), *layers])
        model.compile(wrap(keras.optimizers.SGD(0.1, momentum=0.5)), loss="mse")
        x = np.array([[1, 2], [2, 2], [4, 1]])
        model.fit(x, np.ones((3, 2, 1)), epochs=3, verbose=0)
        tables.append(layers[0].get_weights()[0])
    np.testing.assert_allclose(*tables, rtol=1e-12)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = network(adam_descent("layer", "additive", 1e-2))
    fit(model)
    wrapped = model.optimizer.inner_optimizer
    assert isinstance(wrapped, bt.optimizers.HypergradientDescent)
    assert float(model.optimizer.learning_rate) != 0.01
    assert all(0 < rate < 0.1 for rate in rates(wrapped).values())


def test_in_a_bilevel_model():
    hp = bt.HyperparameterSpace(decay=bt.LogUniform(1e-6, 1e-1, initial=1e-3))
    inputs = keras.Input((3,))
    outputs = bt.HyperDense(2, kernel_regularizer=bt.L2(hp["decay"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    sgd = bt.optimizers.HypergradientDescent(
        keras.optimizers.SGD(0.01, momentum=MOMENTUM), 1e-3
    )
    model.compile(optimizer=sgd, loss="mse", method=bt.DeltaSTN())
    fit(model, validation_data=data(16))
    assert isinstance(model.response_optimizer, bt.optimizers.HypergradientDescent)
    learnt = [
        float(o.learning_rate) for o in (model.optimizer, model.response_optimizer)
    ]
    assert learnt[0] != learnt[1]
    assert all(np.isfinite(rate) and rate != np.float32(0.01) for rate in learnt)


class Custom(keras.optimizers.SGD):
    pass


def built():
    optimizer = keras.optimizers.SGD()
    optimizer.build([])
    return optimizer


def scheduled():
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": keras.optimizers.Lamb}, "Adagrad, Adam, AdamW, Adamax, Lion"),
        ({"optimizer": Custom}, "one of Adagrad"),
        ({"optimizer": built}, "must not be built"),
        ({"optimizer": scheduled}, "no schedule.*CosineDecay"),
        ({"granularity": "weight"}, "`granularity` must be one of 'global', 'layer'"),
        ({"rule": "other"}, "`rule` must be one of 'additive', 'multiplicative'"),
        ({"hyper_learning_rate": -1.0}, "`hyper_learning_rate` must be non-negative"),
        ({"hyper_learning_rate": np.nan}, "`hyper_learning_rate` must be non-neg"),
        ({"rule": "multiplicative", "hyper_learning_rate": 1.0}, "must be below 1"),
        ({"low": -1e-3}, "`low` must be non-negative"),
        ({"high": 0.0}, "`high` must be positive"),
        ({"low": 0.02}, "from `low` to `high`.*learning_rate=0.01"),
        ({"high": 0.001}, "from `low` to `high`.*high=0.001"),
        ({"hyper_clipvalue": 0.0}, "`hyper_clipvalue` must be positive"),
    ],
)
def test_errors(arguments, message):
    make = arguments.get("optimizer", keras.optimizers.SGD)
    options = {"hyper_learning_rate": 1e-3, **arguments, "optimizer": make()}
    with pytest.raises(ValueError, match=message):
        bt.optimizers.HypergradientDescent(**options)


def test_errors_of_rates():
    optimizer = descent("sgd")
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.learning_rates()
    for bad in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="`learning_rate` must be non-negative"):
            optimizer.learning_rate = bad
