"""Dropout rates of an MLP on MNIST, tuned by several methods.

The network and the settings are those of the Δ-STN paper (section 5.2): three hidden
layers of 1200 rectified units; dropout on the inputs and after the first two hidden
layers; SGD 0.01 with momentum 0.9 for weights and responses, RMSprop 0.01 for λ and σ,
τ = 0.001, T_train = 5, T_valid = 1, five warm-up epochs. The last 15 % of the training
set are the validation set.

    python examples/mnist.py --methods delta_stn fixed --seeds 0 --epochs 40

This prints a table, and writes a picture and the history of each run to the output
folder.
"""

import argparse
import json
import pathlib
import time

import keras
import matplotlib as mpl
import numpy as np

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt

RATES = ("input_dropout", "dropout_1", "dropout_2")


def methods(warmup_epochs):
    """Return the methods by name; `None` keeps the initial hyperparameters."""
    common = {"entropy_weight": 1e-3, "warmup_epochs": warmup_epochs}
    return {
        "fixed": None,
        "delta_stn": bt.DeltaSTN(**common),
        "delta_stn_random": bt.DeltaSTN(response_initializer="random", **common),
        "delta_stn_shared": bt.DeltaSTN(shared_pass=True, **common),
        "delta_stn_half": bt.DeltaSTN(response_share=0.5, **common),
        "centered_stn": bt.methods.CenteredSTN(**common),
        "stn": bt.STN(**common),
    }


def load(limit=None):
    """Return training, validation and test set: standardised vectors, and labels."""
    (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    x_train, y_train = x_train[:limit], y_train[:limit]

    def vectors(images):
        images = images.reshape(len(images), -1).astype("float32") / 255.0
        return (images - 0.1307) / 0.3081

    first = int(0.85 * len(x_train))
    train = vectors(x_train[:first]), y_train[:first].astype("int32")
    valid = vectors(x_train[first:]), y_train[first:].astype("int32")
    return train, valid, (vectors(x_test), y_test.astype("int32"))


def make_model(width, initial=0.05):
    """Return the MLP with its three dropout rates, not compiled."""
    rates = initial if isinstance(initial, (list, tuple)) else [initial] * len(RATES)
    scales = zip(RATES, rates, strict=True)
    hp = bt.HyperparameterSpace(
        {name: bt.Uniform(0.0, 0.95, initial=rate) for name, rate in scales}
    )
    inputs = keras.Input((784,))
    x = bt.HyperDropout(hp["input_dropout"])(inputs)
    x = bt.HyperDense(width, activation="relu")(x)
    x = bt.HyperDropout(hp["dropout_1"])(x)
    x = bt.HyperDense(width, activation="relu")(x)
    x = bt.HyperDropout(hp["dropout_2"])(x)
    x = bt.HyperDense(width, activation="relu")(x)
    return bt.BilevelModel(inputs, bt.HyperDense(10)(x), hyperparameters=hp)


class TestLoss(keras.callbacks.Callback):
    """Add the test loss and the perturbation scales to the history."""

    def __init__(self, test):
        super().__init__()
        self.test = test

    def on_epoch_end(self, epoch, logs=None):
        results = self.model.evaluate(*self.test, verbose=0, batch_size=1000)
        logs["test_loss"] = float(results[0])
        if hasattr(self.model, "hyperparameters"):
            scales = self.model.hyperparameters.perturbation_scales()
            logs.update({f"sigma_{name}": s for name, s in scales.items()})


def train(method, data, args, seed):
    """Run one method; return the network and its history, with its seconds."""
    keras.utils.set_random_seed(seed)
    train_set, valid_set, test_set = data
    model = make_model(args.width, args.initial)
    network = model.to_keras() if method is None else model
    arguments = {
        "optimizer": keras.optimizers.SGD(0.01, momentum=0.9),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
        "jit_compile": args.jit,
    }
    if method is not None:
        arguments["method"] = method
        arguments["hyper_optimizer"] = keras.optimizers.RMSprop(
            args.hyper_learning_rate, rho=0.99, epsilon=1e-8
        )
    network.compile(**arguments)
    start = time.perf_counter()
    history = network.fit(
        *train_set,
        batch_size=128,
        epochs=args.epochs,
        validation_data=valid_set,
        callbacks=[TestLoss(test_set)],
        verbose=args.verbose,
    )
    seconds = time.perf_counter() - start
    record = {
        key: [float(v) for v in values] for key, values in history.history.items()
    }
    return network, {**record, "seconds": seconds}


def summary(record):
    """Return best and final losses of a run, and its last dropout rates."""
    best = int(np.argmin(record["val_loss"]))
    rates = [f"{record[n][-1]:.2f}" for n in RATES if n in record]
    return {
        "best validation (test)": (
            f"{record['val_loss'][best]:.4f} ({record['test_loss'][best]:.4f})"
        ),
        "epoch": str(best + 1),
        "final validation (test)": (
            f"{record['val_loss'][-1]:.4f} ({record['test_loss'][-1]:.4f})"
        ),
        "rates at the end": ", ".join(rates) or "–",
        "minutes": f"{record['seconds'] / 60:.1f}",
    }


def table(records):
    """Return a Markdown table of all runs."""
    rows = [{"run": name, **summary(record)} for name, record in records.items()]
    lines = ["| " + " | ".join(rows[0]) + " |", "| --- " * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines)


def draw(records, path):
    """Draw validation loss and dropout rates over the epochs, one line per run."""
    figure, (losses, rates) = plt.subplots(1, 2, figsize=(11, 4))
    for name, record in records.items():
        epochs = range(1, len(record["val_loss"]) + 1)
        (line,) = losses.plot(epochs, record["val_loss"], label=name)
        for style, rate in zip(("-", "--", ":"), RATES, strict=True):
            if rate in record:
                rates.plot(epochs, record[rate], style, color=line.get_color())
    losses.set(xlabel="epoch", ylabel="validation loss")
    losses.legend()
    rates.set(xlabel="epoch", ylabel="rate: input –, first --, second ··")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(argv=None):
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(methods(0)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--warmup-epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--limit", type=int, help="use fewer training images")
    parser.add_argument("--initial", nargs=3, type=float, default=[0.05] * 3)
    parser.add_argument("--hyper-learning-rate", type=float, default=0.01)
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"))
    parser.add_argument("--saved-model", default="saved_models/mnist")
    parser.add_argument("--verbose", type=int, default=2)
    return parser.parse_args(argv)


def main(argv=None):
    """Run what the arguments say; return the histories by run."""
    args = parse(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    data = load(args.limit)
    records = {}
    for seed in args.seeds:
        for name in args.methods:
            method = methods(args.warmup_epochs)[name]
            model, record = train(method, data, args, seed)
            records[f"{name}, seed {seed}"] = record
            path = args.output / f"mnist_{name}_{seed}.json"
            path.write_text(json.dumps(record))
            print(table(records), flush=True)
    model.export(args.saved_model, verbose=False)
    draw(records, args.output / "mnist.png")
    return records


if __name__ == "__main__":
    main()
