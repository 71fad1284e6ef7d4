"""Trains the same models on one device and on two, and prints how far they differ.

The devices are two logical CPUs, which TensorFlow must be given before it starts. The
tests therefore run this file as a program of its own.
"""

import contextlib
import json
import sys

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt

BATCH, FEATURES = 8, 3


def mse():
    return keras.losses.MeanSquaredError()


def generate(count, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, FEATURES))
    return x, np.sin(x @ [[1.0], [-1.0], [0.5]]) + 0.1 * generator.normal(
        size=(count, 1)
    )


def penalized(method, optimizer=None, **arguments):
    """A small network with a tuned penalty, whose every layer can respond."""
    hp = bt.HyperparameterSpace(
        l2=bt.LogUniform(1e-5, 1.0, initial=1e-2),
        bias=bt.Positive(initial=1e-2),
        seed=1,
    )
    inputs = keras.Input((FEATURES,))
    x = bt.HyperDense(4, activation="tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    x = keras.layers.ActivityRegularization(l2=1e-3)(x)
    outputs = bt.HyperDense(
        1, kernel_regularizer=bt.L2(hp["l2"]), bias_regularizer=bt.L2(hp["bias"])
    )(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        arguments.pop("loss", mse()),
        hyper_optimizer=keras.optimizers.Adam(0.02),
        method=method,
        **arguments,
    )
    return model


def tuned_rate(method):
    hp = bt.HyperparameterSpace(rate=bt.LogUniform(1e-3, 1.0, initial=0.05), seed=1)
    inputs = keras.Input((FEATURES,))
    outputs = keras.layers.Dense(1)(keras.layers.Dense(4, activation="tanh")(inputs))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    optimizer = bt.TunedOptimizer("sgd", learning_rate=hp["rate"])
    model.compile(
        optimizer, mse(), hyper_optimizer=keras.optimizers.Adam(0.02), method=method
    )
    return model


def with_prior(method, objective, make_layer, **named):
    hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e2, initial=1.0))
    prior = bt.NormalPrior(hp["precision"], data_size=20 * BATCH)
    inputs = keras.Input((FEATURES,))
    x = make_layer(4, prior, "tanh")(inputs)
    outputs = make_layer(1, prior, None)(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        keras.optimizers.Adam(0.05),
        bt.losses.GaussianLikelihood(4.0),
        hyper_optimizer=keras.optimizers.Adam(0.02),
        method=method,
        objective=objective,
        **named,
    )
    return model


def variational(method, objective):
    def make_layer(units, prior, activation):
        # So narrow that its noise does not show at the accuracy of the comparison.
        return bt.VariationalDense(
            units, activation, prior=prior, initial_scale=1e-12, trainable=True
        )

    return with_prior(method, objective, make_layer)


def dense_with_prior(method, objective):
    def make_layer(units, prior, activation):
        return keras.layers.Dense(
            units, activation, kernel_regularizer=prior, bias_regularizer=prior
        )

    return with_prior(method, objective, make_layer)


STEPS = {"train_steps": 1}
METHODS = {
    "DeltaSTN": bt.DeltaSTN(**STEPS),
    "DeltaSTN, shared pass": bt.DeltaSTN(shared_pass=True, **STEPS),
    "CenteredSTN": bt.methods.CenteredSTN(**STEPS),
    "STN": bt.STN(**STEPS),
    "ExactImplicit": bt.methods.ExactImplicit(damping=0.1, **STEPS),
    "ConjugateGradient": bt.ConjugateGradient(5, **STEPS),
    "HOAG": bt.methods.HOAG(iterations=5, **STEPS),
    "Neumann": bt.Neumann(3, **STEPS),
    "T1T2": bt.methods.T1T2(**STEPS),
    "GaussNewton": bt.methods.GaussNewton(5, **STEPS),
    "EmpiricalFisher": bt.methods.EmpiricalFisher(5, **STEPS),
    "DARTS": bt.methods.DARTS(0.1, **STEPS),
    "DARTS, finite difference": bt.methods.DARTS(0.1, "finite_difference", **STEPS),
    "Greedy": bt.methods.Greedy(**STEPS),
    "Unrolled": bt.Unrolled(3, **STEPS),
    "Unrolled, restart": bt.Unrolled(3, restart=True, fixed_batches=True, **STEPS),
    "ForwardMode": bt.methods.ForwardMode(3, **STEPS),
    "RMAD": bt.methods.RMAD(3, **STEPS),
    "DrMAD": bt.methods.DrMAD(3, **STEPS),
}
CASES = {
    **{name: lambda m=method: penalized(m) for name, method in METHODS.items()},
    "Hypernetwork": lambda: penalized(
        bt.methods.Hypernetwork(**STEPS), keras.optimizers.SGD(0.005)
    ),
    "HypergradientDescent": lambda: penalized(
        bt.methods.T1T2(**STEPS),
        bt.optimizers.HypergradientDescent(keras.optimizers.Adam(0.01), 1e-3),
    ),
    "TunedOptimizer": lambda: tuned_rate(bt.Unrolled(3, **STEPS)),
    "ELBO": lambda: variational(
        bt.methods.DARTS(second_order=None, **STEPS), bt.ELBO()
    ),
    "GravesUpdate": lambda: variational(bt.methods.GravesUpdate(**STEPS), bt.ELBO()),
    "LaplaceEvidence": lambda: dense_with_prior(
        bt.methods.T1T2(**STEPS), bt.objectives.LaplaceEvidence("ggn")
    ),
    "MacKayUpdate": lambda: dense_with_prior(
        bt.methods.MacKayUpdate(**STEPS), bt.objectives.LaplaceEvidence()
    ),
}
REFUSED = {
    "real_time": lambda: penalized(bt.methods.ForwardMode(real_time=True)),
    "jit_compile": lambda: penalized(bt.DeltaSTN(), jit_compile=True),
    "steps_per_execution": lambda: penalized(bt.DeltaSTN(), steps_per_execution=2),
}


def train(make, strategy=None, inside=False, validation_freq=2):
    """Make a model and fit it for 20 rounds.

    Args:
        make: Function that returns the compiled model.
        strategy: The strategy that it is made under, or `None`.
        inside: Whether `fit` is called in the scope of the strategy, too.
        validation_freq: As in `fit`, which runs for one epoch.

    Returns:
        All variables and logs by name.
    """
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    scope = contextlib.nullcontext if strategy is None else strategy.scope
    with scope():
        model = make()
    x, y = generate(20 * BATCH, 0)
    validation = generate(24, 1) if model.objective.judged_on == "validation" else None
    with scope() if inside else contextlib.nullcontext():
        history = model.fit(
            x,
            y,
            BATCH,
            validation_data=validation,
            validation_freq=validation_freq,
            verbose=0,
        )
    optimizers = model.optimizer, model.response_optimizer, model.hyper_optimizer
    variables = [*model.variables, *(v for o in optimizers for v in o.variables)]
    state = {f"{v.name} {i}": v.numpy() for i, v in enumerate(variables)}
    start = np.array(scope_start(model), float)
    moved = np.max(np.abs(model.hyperparameters.unconstrained.numpy() - start))
    return {**state, **history.history}, float(moved)


def scope_start(model):
    """The unconstrained values that the space began with."""
    scales = model.hyperparameters.scales.values()
    return [float(scale.unconstrain(np.float64(scale.initial))) for scale in scales]


def find_difference(one, two):
    """The largest difference of two dicts of arrays, relative if they are above 1."""
    assert one.keys() == two.keys()
    return max(
        float(np.max(np.abs(np.subtract(a, two[name])) / np.maximum(1.0, np.abs(a))))
        for name, a in one.items()
        if np.size(a)
    )


def compare(name, strategy):
    """How far two replicas are from one device, and how far λ moved."""
    # One case is also evaluated, and fitted inside the scope.
    first, make = name == "DeltaSTN", CASES[name]
    more = {"validation_freq": 1 if first else 2}
    one, moved = train(make, **more)
    two, _ = train(make, strategy, inside=first, **more)
    return find_difference(one, two), moved


def refuse(name, strategy):
    """The error that `compile` raises with several replicas."""
    with strategy.scope():
        try:
            REFUSED[name]()
        except ValueError as error:
            return str(error)
    return "nothing"


def find_equal_noise(make_layer, strategy):
    """The share of numbers in the noise of a layer that are equal on two replicas."""
    with strategy.scope():
        hp = bt.HyperparameterSpace(noise=bt.Uniform(0.0, 0.9, initial=0.5), seed=1)
        layer = make_layer(hp["noise"], seed=2)
        layer(tf.ones((2, 500)))

    @tf.function
    def draw():
        return strategy.run(lambda: layer(tf.ones((2, 500)), training=True))

    one, two = strategy.experimental_local_results(draw())
    return float(np.mean(np.equal(one, two)))


class Views(keras.utils.PyDataset):
    """Batches that are parts of the user's arrays, and no copies."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // BATCH

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[part], self.y[part]


def generate_views(dataset):
    """The batches of a data set, without end."""
    while True:
        yield from (dataset[index] for index in range(len(dataset)))


def fit_on_views(strategy, generator):
    """Whether a fit leaves the arrays of `PyDataset`s, or a generator, as they were."""
    with strategy.scope():
        model = penalized(bt.DeltaSTN(train_steps=1))
    training, validation = Views(*generate(20 * BATCH, 0)), Views(*generate(24, 1))
    arrays = training.x, training.y, validation.x, validation.y
    before = [array.copy() for array in arrays]
    x = generate_views(training) if generator else training
    more = {"epochs": 2, "validation_data": validation, "shuffle": False}
    model.fit(x, steps_per_epoch=20, verbose=0, **more)
    return all(map(np.array_equal, before, arrays))


def make_strategy():
    """Two logical CPUs."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    # The thread that tunes a feed can hold up its deletion for seconds.
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    distribute = strategy.experimental_distribute_dataset
    strategy.experimental_distribute_dataset = lambda data, options=None: distribute(
        data.with_options(untuned), options
    )
    return strategy


def main(names):
    """Print a JSON object with the results, those of cases by their names."""
    strategy = make_strategy()
    keras.backend.set_floatx("float64")
    results = {name: compare(name, strategy) for name in names}
    results["refused"] = {name: refuse(name, strategy) for name in REFUSED}
    results["noise"] = find_equal_noise(bt.HyperGaussianNoise, strategy)
    kinds = (False, True) * 3
    results["intact"] = [fit_on_views(strategy, generator) for generator in kinds]
    results["dropout"] = find_equal_noise(bt.HyperDropout, strategy)
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
