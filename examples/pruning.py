"""Find how many weights of a digit classifier can be pruned by Graves's rule.

A multilayer perceptron has a normal posterior over every weight. It is trained on
scikit-learn's digits or on MNIST, once with a fixed precision of the weights' prior,
and once with a precision that the evidence lower bound tunes. Then more and more
weights are set to zero: those whose posterior has the most density at zero (Graves,
"Practical variational inference for neural networks", 2011). There are no validation
data.

    python examples/pruning.py
    python examples/pruning.py --data mnist --epochs 100

This prints and draws the test accuracy against the share of weights that is kept.
"""

import argparse
import pathlib

import keras
import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt

KEPT = (1.0, 0.5, 0.3, 0.2, 0.1, 0.07, 0.05, 0.03, 0.02)
RUNS = ("untuned", "gradient", "Graves")


def load(name, limit=None, seed=0):
    """Return training and test set: images as vectors, and labels."""
    if name == "mnist":
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
    else:
        x, y = load_digits(return_X_y=True)
        x, x_test, y, y_test = train_test_split(
            x, y, train_size=1200, stratify=y, random_state=seed
        )
    highest = x.max()

    def prepared(x, y):
        return (x.reshape(len(x), -1) / highest).astype("float32"), y.astype("int32")

    return prepared(x[:limit], y[:limit]), prepared(x_test, y_test)


def make_model(features, data_size, args):
    """Return the network; the prior of each layer has a precision of its own."""
    sizes = [*args.units, 10]
    initial = {f"precision_{k}": args.precision for k in range(len(sizes))}
    hp = bt.HyperparameterSpace(
        {k: bt.LogUniform(1e-2, 1e5, initial=value) for k, value in initial.items()}
    )
    inputs = x = keras.Input((features,))
    for units, name in zip(sizes, initial, strict=True):
        x = bt.VariationalDense(
            units,
            activation="relu" if units != sizes[-1] else None,
            prior=bt.NormalPrior(hp[name], data_size=data_size),
        )(x)
    return bt.BilevelModel(inputs, x, hyperparameters=hp)


def train(name, data, args):
    """Train one model and return it."""
    keras.utils.set_random_seed(args.seed)
    x, y = data
    steps = -(-len(x) // args.batch_size) * args.epochs
    model = make_model(x.shape[1], len(x), args)
    rate = 0.0 if name == "untuned" else args.hyper_learning_rate
    warmup = max(1, args.epochs // 10)
    graves = bt.methods.GravesUpdate(warmup_epochs=warmup)
    direct = bt.methods.DARTS(second_order=None, warmup_epochs=warmup)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        objective=bt.ELBO(),
        method=graves if name == "Graves" else direct,
        hyper_optimizer=keras.optimizers.Adam(rate),
        jit_compile=args.jit,
    )
    model.fit(
        x, y, batch_size=args.batch_size, epochs=args.epochs, verbose=args.verbose
    )
    return model


def draw(curves, path):
    """Draw the accuracy against the share of weights that is kept."""
    figure, axis = plt.subplots(figsize=(5, 3.5))
    for name, rows in curves.items():
        kept = [100 * (1 - row["share"]) for row in rows]
        axis.plot(kept, [row["accuracy"] for row in rows], "o-", label=name)
    axis.set(xscale="log", xlabel="weights kept, %", ylabel="test accuracy")
    axis.invert_xaxis()
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(models, curves):
    """Print tables of the precisions and of the accuracies."""
    print(f"\n{'precisions':<12}")
    for name, model in models.items():
        values = model.hyperparameters.values().values()
        print(f"{name:<12}" + "".join(f"{value:>10.3g}" for value in values))
    print(f"\n{'weights kept':<14}" + "".join(f"{name:>12}" for name in curves))
    for rows in zip(*curves.values(), strict=True):
        kept = f"{1 - rows[0]['share']:.1%}"
        cells = "".join(f"{row['accuracy']:>12.4f}" for row in rows)
        print(f"{kept:<14}{cells}")


def parse(argv=None):
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", choices=["digits", "mnist"])
    parser.add_argument("--limit", type=int, help="number of training images")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--units", nargs="+", type=int, default=[100])
    parser.add_argument(
        "--precision", type=float, default=1.0, help="precision at the start"
    )
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--hyper-learning-rate", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--verbose", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"))
    return parser.parse_args(argv)


def main(argv=None):
    """Train, prune and report; return the pruning curves by run."""
    args = parse(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    data, test = load(args.data, args.limit, args.seed)
    models = {name: train(name, data, args) for name in args.runs}
    shares = [1.0 - kept for kept in KEPT]
    curves = {
        name: bt.posterior.pruning_curve(model, *test, shares=shares, batch_size=500)
        for name, model in models.items()
    }
    report(models, curves)
    draw(curves, args.output / "pruning.png")

    name, model = list(models.items())[-1]
    bt.posterior.prune(model, sparsity=0.9)
    plain = model.to_keras()
    logits = plain.predict(test[0], verbose=0)
    accuracy = np.mean(np.argmax(logits, -1) == test[1])
    print(
        f"\nThe plain Keras model of '{name}' with 10 % of its weights kept has "
        f"accuracy {accuracy:.4f}"
    )
    return curves


if __name__ == "__main__":
    main()
