"""One L2 factor for every weight of a small DenseNet, tuned while it trains.

The network has 16,336 hyperparameters; a larger network has more. "Optimizing millions
of hyperparameters by implicit differentiation" (Lorraine et al., 2020) tuned as many.
M. St. Jules's master's project tuned factors per weight by DrMAD on CIFAR-10, and
learning rates and factors per weight by an adaptive method.

    python examples/per_parameter_l2.py --data fashion_mnist --limit 4000 --epochs 10

This prints the validation and the test loss of each way to choose the factors, draws
how the factors are distributed in each layer, and saves the last model. The validation
set chooses the factors, so that only the test loss is a fair figure.
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

LOWEST, START, HIGHEST = 1e-8, 1e-5, 1e-1


def methods():
    """Return by name a method, and whether it tunes one factor per weight.

    If the method is `None`, there is no penalty.
    """
    outer = {"train_steps": 5, "warmup_epochs": 1}
    return {
        "no penalty": (None, False),
        "one factor, Neumann": (bt.Neumann(5, **outer), False),
        "per weight, T1-T2": (bt.methods.T1T2(**outer), True),
        "per weight, Neumann": (bt.Neumann(5, **outer), True),
        "per weight, DrMAD": (bt.methods.DrMAD(5, **outer), True),
        "adaptive": (bt.methods.T1T2(**outer), True),
    }


def load(name, limit):
    """Return training, validation and test set: `[n, height, width, channels]`."""
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8, 1) / 16.0
        train, test = (x[:1300], y[:1300]), (x[1300:], y[1300:])
    else:
        train, test = getattr(keras.datasets, name).load_data()
        train, test = ((_scale_image(x), y.reshape(-1)) for x, y in (train, test))
    x, y = (array[:limit] for array in train)
    mean, deviation = x.mean(), x.std()
    first = int(0.75 * len(x))

    def part(x, y):
        return ((x - mean) / deviation).astype("float32"), y.astype("int32")

    return part(x[:first], y[:first]), part(x[first:], y[first:]), part(*test)


def _scale_image(x):
    x = x / 255.0
    return x if x.ndim == 4 else x[..., None]


def densenet(shape, growth, depth):
    """Return two dense blocks; each layer sees all outputs before it in its block.

    The network has no batch normalisation. The outer loss uses moving statistics, and
    a hypergradient takes these as constant. It would see an effect of the size of the
    kernels that does not exist, because the statistics follow the kernels, and it
    would raise their factors.
    """
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(2 * growth, 3, padding="same", use_bias=False)(inputs)
    for block in range(2):
        if block:
            x = keras.layers.AveragePooling2D(2)(x)
        for _ in range(depth):
            new = keras.layers.GroupNormalization(growth)(x)
            new = keras.layers.Activation("relu")(new)
            new = keras.layers.Conv2D(growth, 3, padding="same", use_bias=False)(new)
            x = keras.layers.Concatenate()([x, new])
    x = keras.layers.GroupNormalization(growth)(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def penalised(network, per_weight):
    """Return the network with tuned factors on all kernels."""
    layers = [layer for layer in network.layers if hasattr(layer, "kernel")]
    shapes = {"decay": ()}
    if per_weight:
        shapes = {layer.name: layer.kernel.shape for layer in layers}
    hp = bt.HyperparameterSpace(
        {
            name: bt.LogUniform(LOWEST, HIGHEST, initial=np.full(shape, START))
            for name, shape in shapes.items()
        }
    )
    tune = {}
    for layer in layers:
        factor = hp[layer.name if per_weight else "decay"]
        tune[layer.name] = {"kernel_regularizer": bt.L2(factor)}
    return bt.BilevelModel.from_keras(network, hp, tune=tune)


def optimizer(name):
    """Return SGD with momentum; the adaptive method also learns a rate per weight."""
    sgd = keras.optimizers.SGD(0.05, momentum=0.9)
    if name != "adaptive":
        return sgd
    return bt.optimizers.HypergradientDescent(
        sgd, 0.02, granularity="parameter", rule="multiplicative"
    )


def train(name, data, args):
    """Run one method; return the model, and its losses and test accuracy."""
    keras.utils.set_random_seed(args.seed)
    train_set, valid_set, test_set = data
    method, per_weight = methods()[name]
    network = densenet(train_set[0].shape[1:], args.growth, args.depth)
    arguments = {
        "optimizer": optimizer(name),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
        "jit_compile": args.jit,
    }
    if method is not None:
        network = penalised(network, per_weight)
        arguments["method"] = method
        arguments["hyper_optimizer"] = keras.optimizers.Adam(args.hyper_learning_rate)
    network.compile(**arguments)
    history = network.fit(
        *train_set,
        batch_size=64,
        epochs=args.epochs,
        validation_data=valid_set,
        verbose=args.verbose,
    ).history
    test = network.evaluate(*test_set, batch_size=256, verbose=0)
    return network, {
        "best validation": min(history["val_loss"]),
        "validation": history["val_loss"][-1],
        "test": test[0],
        "test accuracy": test[1],
    }


def draw(models, path):
    """Draw quantiles of the factors in each layer, one panel per method."""
    figure, axes = plt.subplots(1, len(models), figsize=(4 * len(models), 3))
    for axis, (name, model) in zip(np.atleast_1d(axes), models.items(), strict=True):
        factors = [np.ravel(v) for v in model.hyperparameters.values().values()]
        axis.boxplot(factors, showfliers=False)
        axis.set(title=name, yscale="log", xlabel="layer", ylabel="factor")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(argv=None):
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = ["digits", "fashion_mnist", "mnist", "cifar10"]
    parser.add_argument("--data", default="fashion_mnist", choices=kinds)
    parser.add_argument(
        "--limit",
        type=int,
        default=4000,
        help="number of training and validation images",
    )
    parser.add_argument("--methods", nargs="+", default=list(methods()))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--growth", type=int, default=8)
    parser.add_argument(
        "--depth", type=int, default=3, help="number of layers in a block"
    )
    parser.add_argument("--hyper-learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--verbose", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"))
    parser.add_argument("--saved-model", default="saved_models/per_parameter_l2")
    return parser.parse_args(argv)


def main(argv=None):
    """Run what the arguments say; return the results by method."""
    args = parse(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    data = load(args.data, args.limit)
    results, tuned = {}, {}
    for name in args.methods:
        model, results[name] = train(name, data, args)
        if isinstance(model, bt.BilevelModel) and methods()[name][1]:
            tuned[name] = model
        if len(results) == 1:
            print(" | ".join(["method", *results[name]]))
        cells = [f"{value:.4f}" for value in results[name].values()]
        print(" | ".join([name, *cells]), flush=True)
    if tuned:
        draw(tuned, args.output / "per_parameter_l2.png")
    model.export(args.saved_model, verbose=False)
    return results


if __name__ == "__main__":
    main()
