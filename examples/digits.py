"""Tune dropout and weight decay of a small digit classifier in one fit.

Trains a multilayer perceptron on scikit-learn's bundled digits with Δ-STN, compares it
with the same network at the initial hyperparameters, draws how the hyperparameters
moved, and writes and reloads a SavedModel.

    python examples/digits.py
"""

import argparse
import pathlib

import keras
import matplotlib as mpl
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt


def load(seed=0):
    """Return training, validation and test set: 600, 300 and 897 digits of 8×8."""
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16.0).astype("float32"), y.astype("int32")
    x, x_test, y, y_test = train_test_split(
        x, y, train_size=900, stratify=y, random_state=seed
    )
    x, x_valid, y, y_valid = train_test_split(
        x, y, train_size=600, stratify=y, random_state=seed
    )
    return (x, y), (x_valid, y_valid), (x_test, y_test)


def make_model():
    """Return the network with its hyperparameters, not compiled."""
    hp = bt.HyperparameterSpace(
        input_dropout=bt.Uniform(0.0, 0.95, initial=0.3),
        dropout=bt.Uniform(0.0, 0.95, initial=0.3),
        weight_decay=bt.LogUniform(1e-7, 1e-1, initial=1e-3),
    )
    inputs = keras.Input((64,))
    x = bt.HyperDropout(hp["input_dropout"])(inputs)
    x = bt.HyperDense(
        256, activation="relu", kernel_regularizer=bt.L2(hp["weight_decay"])
    )(x)
    x = bt.HyperDropout(hp["dropout"])(x)
    outputs = bt.HyperDense(10, kernel_regularizer=bt.L2(hp["weight_decay"]))(x)
    return bt.BilevelModel(inputs, outputs, hyperparameters=hp)


def training_arguments():
    """Return the arguments that both networks are compiled with."""
    return {
        "optimizer": keras.optimizers.SGD(0.05, momentum=0.9),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }


def cross_entropy(model, test):
    """Return the test loss, without weight penalties, and the accuracy."""
    logits = model.predict(test[0], verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(test[1], logits)
    return float(loss), float(np.mean(np.argmax(logits, -1) == test[1]))


def draw(history, names, path):
    """Draw the hyperparameters over the epochs."""
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3))
    for axis, name in zip(axes, names, strict=True):
        axis.plot(range(1, len(history[name]) + 1), history[name])
        axis.set(title=name, xlabel="epoch")
    axes[names.index("weight_decay")].set_yscale("log")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(model, initial, tuned, fixed):
    """Print tables of hyperparameters and test results."""
    print(f"\n{'hyperparameter':<16}{'initial':>12}{'tuned':>12}")
    for name, value in model.hyperparameters.values().items():
        print(f"{name:<16}{initial[name]:>12.3g}{value:>12.3g}")
    print(f"\n{'network':<16}{'test loss':>12}{'accuracy':>12}")
    for name, (loss, accuracy) in {"initial": fixed, "tuned": tuned}.items():
        print(f"{name:<16}{loss:>12.4f}{accuracy:>12.4f}")


def main(argv=None):
    """Train both networks; return loss and accuracy of the tuned and the fixed one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"))
    parser.add_argument("--saved-model", default="saved_models/digits")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)

    keras.utils.set_random_seed(args.seed)
    train, valid, test = load(args.seed)
    model = make_model()
    initial = model.hyperparameters.values()
    plain = model.to_keras()

    fit = {"batch_size": 50, "epochs": args.epochs, "validation_data": valid}
    model.compile(
        **training_arguments(),
        method=bt.DeltaSTN(warmup_epochs=min(5, args.epochs // 2)),
        hyper_optimizer=keras.optimizers.RMSprop(0.03),
    )
    history = model.fit(*train, **fit).history
    plain.compile(**training_arguments())
    plain.fit(*train, **fit, verbose=0)

    tuned, fixed = cross_entropy(model, test), cross_entropy(plain, test)
    report(model, initial, tuned, fixed)
    draw(history, list(initial), args.output / "digits.png")

    model.export(args.saved_model, verbose=False)
    served = tf.saved_model.load(args.saved_model)
    difference = served.serve(test[0]) - model.predict(test[0], verbose=0)
    difference = np.abs(difference).max()
    print(f"\nLargest difference of the SavedModel's outputs: {difference:.1g}")
    return tuned, fixed


if __name__ == "__main__":
    main()
