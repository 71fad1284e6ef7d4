"""Compare objectives for prior precisions when the test inputs become noisy.

A network with one hidden layer has a normal prior on the weights of each layer. Its
precisions are judged by the loss on validation data, by the evidence lower bound or by
Laplace's approximation of the evidence, and are found by greedy steps, HOAG, DrMAD or
random search. The network is then trained anew with the precisions found, and tested
on images with Gaussian noise. This is the comparison of Bakhteev & Strijov,
"Comprehensive analysis of gradient-based hyperparameter optimization algorithms"
(2020). They report that models chosen by the lower bound are less accurate, but more
stable under noise, than models chosen by held-out data.

    python examples/noisy_mnist.py --limit 10000 --epochs 20 --seeds 0 1 2

This prints a table and draws a picture for each noise level. The lower bound and the
evidence are computed on the training data and do not use the validation data. With
--all-data, their runs train on the validation data too.
"""

import argparse
import pathlib

import keras
import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt

LOWEST, START, HIGHEST = 1e-2, 1.0, 1e4
LAYERS = ("hidden", "output")


def objectives():
    """Return by name what hyperparameters are judged by."""
    return {
        "validation loss": bt.objectives.ValidationLoss,
        "ELBO": bt.ELBO,
        "Laplace": lambda: bt.objectives.LaplaceEvidence(hessian="diagonal"),
    }


def methods():
    """Return by name how hyperparameters are found; `None` is random search."""
    return {
        "greedy": lambda: bt.methods.Greedy(warmup_epochs=1),
        "HOAG": lambda: bt.methods.HOAG(iterations=10, damping=0.1, warmup_epochs=1),
        "DrMAD": lambda: bt.methods.DrMAD(5, warmup_epochs=1),
        "random search": None,
    }


def load(name, limit):
    """Return training, validation and test set: vectors from 0 to 1, and labels."""
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        x = x / 16.0
        train, test = (x[:1300], y[:1300]), (x[1300:], y[1300:])
    else:
        train, test = keras.datasets.mnist.load_data()
        train, test = ((x.reshape(len(x), -1) / 255.0, y) for x, y in (train, test))
    x, y = (array[:limit] for array in train)
    first = int(0.8 * len(x))
    return [
        (np.asarray(x, "float32"), np.asarray(y, "int32"))
        for x, y in ((x[:first], y[:first]), (x[first:], y[first:]), test)
    ]


def make_model(objective, method, args, precisions, data_size, inputs):
    """Return the compiled network; its precisions start as given."""
    hp = bt.HyperparameterSpace(
        {
            name: bt.LogUniform(LOWEST, HIGHEST, initial=float(value))
            for name, value in zip(LAYERS, precisions, strict=True)
        }
    )
    hidden, output = (bt.NormalPrior(hp[n], data_size=data_size) for n in LAYERS)
    x = inputs = keras.Input((inputs,))
    x = dense(objective, args.width, hidden, "relu")(x)
    outputs = dense(objective, 10, output, None)(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    # A warm-up that never ends keeps the precisions as they are.
    method = method() if method else bt.methods.T1T2(warmup_epochs=10**9)
    model.compile(
        optimizer(method, args),
        hyper_optimizer=keras.optimizers.RMSprop(args.hyper_learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        objective=objectives()[objective](),
        method=method,
    )
    return model


def optimizer(method, args):
    """Return Adam, or for DrMAD the SGD with momentum that it can reverse."""
    if isinstance(method, bt.methods.DrMAD):
        return keras.optimizers.SGD(args.momentum_learning_rate, momentum=0.9)
    return keras.optimizers.Adam(args.learning_rate)


def dense(objective, units, prior, activation):
    """Return a layer with a prior: variational, or at its most probable weights."""
    if objective == "ELBO":
        return bt.VariationalDense(units, activation=activation, prior=prior)
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_regularizer=prior,
        bias_regularizer=prior,
    )


class Run:
    """Models of one objective and one seed, and their data.

    Args:
        objective: Name of the objective.
        data: Training, validation and test set.
        args: The arguments of the command line.
        seed: Seed of weights, batches and random search.
    """

    def __init__(self, objective, data, args, seed):
        self.objective, self.args, self.seed = objective, args, seed
        self.train_set, self.valid_set, self.test_set = data
        if objective != "validation loss" and args.all_data:
            pairs = zip(self.train_set, self.valid_set, strict=True)
            self.train_set = tuple(np.concatenate(pair) for pair in pairs)

    def fitted(self, method, precisions):
        """Return a model after `fit`; a method of `None` keeps its precisions."""
        keras.utils.set_random_seed(self.seed)
        x, y = self.train_set
        model = make_model(
            self.objective, method, self.args, precisions, len(x), x.shape[1]
        )
        model.fit(
            x,
            y,
            validation_data=self.valid_set,
            batch_size=self.args.batch_size,
            epochs=self.args.epochs,
            verbose=self.args.verbose,
        )
        return model

    def found(self, method):
        """Return the precisions that a method finds."""
        if method is None:
            return self.random_search()
        model = self.fitted(method, [START] * len(LAYERS))
        return [model.hyperparameters.values()[name] for name in LAYERS]

    def random_search(self):
        """Return the best of some log-uniform draws, by the same objective."""
        rng = np.random.default_rng(self.seed)
        ends = np.log([LOWEST, HIGHEST])
        trials = np.exp(rng.uniform(*ends, (self.args.trials, len(LAYERS))))
        on_validation = self.objective == "validation loss"
        data = self.valid_set if on_validation else self.train_set
        scores = [self.fitted(None, t).evaluate_objective(*data) for t in trials]
        return list(trials[int(np.nanargmin(scores))])

    def results(self, method):
        """Return the precisions, and accuracy and loss at every noise level."""
        precisions = self.found(method)
        model = self.fitted(None, precisions)
        x, y = self.test_set
        rng = np.random.default_rng(0)
        levels = []
        for level in self.args.noise:
            noisy = x + level * rng.normal(size=x.shape).astype("float32")
            loss, accuracy = model.evaluate(noisy, y, verbose=0, batch_size=1000)
            levels.append((accuracy, loss))
        return precisions, np.array(levels)


def table(results, level, noise):
    """Return a Markdown table of one noise level: mean ± deviation over seeds."""
    lines = [
        f"| noise σ = {noise} | found by | accuracy | test loss | precisions |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (objective, method), runs in results.items():
        accuracy, loss = np.array([levels[level] for _, levels in runs]).T
        precisions = np.exp(np.mean([np.log(p) for p, _ in runs], axis=0))
        lines.append(
            f"| {objective} | {method} | {accuracy.mean():.4f} ± {accuracy.std():.4f} "
            f"| {loss.mean():.3f} ± {loss.std():.3f} "
            f"| {', '.join(f'{p:.2g}' for p in precisions)} |"
        )
    return "\n".join(lines)


def draw(results, level, noise, path):
    """Draw the accuracy of every objective and method at one noise level."""
    names = list(dict.fromkeys(objective for objective, _ in results))
    ways = list(dict.fromkeys(method for _, method in results))
    figure, axes = plt.subplots(figsize=(7, 4))
    width = 0.8 / len(ways)
    for i, way in enumerate(ways):
        values = [[lv[level, 0] for _, lv in results[name, way]] for name in names]
        axes.bar(
            np.arange(len(names)) + i * width,
            [np.mean(v) for v in values],
            width,
            yerr=[np.std(v) for v in values],
            label=way,
        )
    axes.set_xticks(np.arange(len(names)) + 0.4 - width / 2, names)
    axes.set(ylabel="test accuracy", title=f"Gaussian noise σ = {noise} on the inputs")
    heights = [lv[level, 0] for runs in results.values() for _, lv in runs]
    axes.set_ylim(max(0.0, min(heights) - 0.05), min(1.0, max(heights) + 0.02))
    axes.legend(ncols=2, fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def parse(arguments=None):
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["mnist", "digits"], default="mnist")
    parser.add_argument(
        "--limit", type=int, help="number of training and validation examples"
    )
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--learning-rate", type=float, default=3e-3, help="learning rate of Adam"
    )
    parser.add_argument("--momentum-learning-rate", type=float, default=0.05)
    parser.add_argument("--hyper-learning-rate", type=float, default=0.05)
    parser.add_argument(
        "--trials", type=int, default=10, help="number of trials of random search"
    )
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.25, 0.5])
    parser.add_argument("--objectives", nargs="+", default=list(objectives()))
    parser.add_argument("--methods", nargs="+", default=list(methods()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--all-data", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, default="saved_models/noisy")
    parser.add_argument("--verbose", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run everything; return the results by objective and method."""
    args = parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    data = load(args.data, args.limit)
    results = {}
    for objective in args.objectives:
        for name in args.methods:
            runs = [Run(objective, data, args, seed) for seed in args.seeds]
            results[objective, name] = [run.results(methods()[name]) for run in runs]
            accuracies = results[objective, name][0][1][:, 0]
            print(f"{objective}, {name}: {np.round(accuracies, 4)}", flush=True)
    for level, noise in enumerate(args.noise):
        print("\n" + table(results, level, noise))
        draw(results, level, noise, args.output / f"noise_{noise}.png")
    return results


if __name__ == "__main__":
    main()
