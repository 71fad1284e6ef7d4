"""The networks that the benchmarks train, as plain Keras models and as bilevel ones."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf import _random

RATE = 0.05


@dataclasses.dataclass(frozen=True)
class Network:
    """An architecture without its layer classes.

    Attributes:
        title: Name of the network in tables.
        input_shape: Shape of one example.
        body: Function of the inputs, the layer classes and the dropout rates that
            returns the outputs.
        rates: Number of dropout rates.
        width: Number of units of the hidden layers, n of the paper's estimate 2 + h/n.
    """

    title: str
    input_shape: tuple
    body: Callable
    rates: int
    width: int


@dataclasses.dataclass(frozen=True)
class Layers:
    """The layer classes of a network."""

    dense: type
    conv: type
    dropout: type


class NamedDropout(keras.layers.Dropout):
    """Keras's dropout with the random numbers of this library.

    Under XLA on the CPU, Keras's own random numbers take longer than the rest of the
    network. A ratio to this layer shows what the response costs.
    """

    def call(self, inputs, training=False):
        if not training:
            return inputs
        draw = _random.uniform(tf.shape(inputs), inputs.dtype, self.seed_generator)
        return inputs * tf.cast(draw >= self.rate, inputs.dtype) / (1.0 - self.rate)


PLAIN = Layers(keras.layers.Dense, keras.layers.Conv2D, keras.layers.Dropout)
NAMED = Layers(keras.layers.Dense, keras.layers.Conv2D, NamedDropout)
HYPER = Layers(bt.HyperDense, bt.HyperConv2D, bt.HyperDropout)


def mlp(width=1200, inputs=784):
    """Return 784-1200-1200-1200-10 with ReLU, and dropout before each hidden layer."""

    def body(x, layers, rates):
        for rate in rates:
            x = layers.dropout(rate)(x)
            x = layers.dense(width, activation="relu")(x)
        return layers.dense(10)(x)

    return Network(f"MLP 3×{width}", (inputs,), body, 3, width)


def cnn(filters=(32, 64), side=28):
    """Return two 5×5 convolutions and two dense layers, each after dropout."""
    width = (side // 4) ** 2 * filters[-1]

    def body(x, layers, rates):
        for rate, units in zip(rates[:2], filters, strict=True):
            x = layers.dropout(rate)(x)
            x = layers.conv(units, 5, padding="same", activation="relu")(x)
            x = keras.layers.MaxPooling2D(2)(x)
        x = layers.dropout(rates[2])(keras.layers.Flatten()(x))
        x = layers.dense(width, activation="relu")(x)
        return layers.dense(10)(layers.dropout(rates[3])(x))

    title = f"CNN {filters[0]}, {filters[1]}"
    return Network(title, (side, side, 1), body, 4, width)


FULL = {"mlp": mlp(), "cnn": cnn()}
TINY = {"mlp": mlp(16, 12), "cnn": cnn((2, 3), 8)}


def compiled_plain(network, jit=False, layers=PLAIN):
    """Return the compiled plain Keras model with fixed dropout rates."""
    inputs = keras.Input(network.input_shape)
    outputs = network.body(inputs, layers, [RATE] * network.rates)
    model = keras.Model(inputs, outputs)
    model.compile(**training_arguments(jit))
    return model


def compiled_bilevel(network, method, jit=False, hyperparameters=None):
    """Return the compiled model of the same network with tuned rates.

    Args:
        network: A `Network`.
        method: A method of the library.
        jit: Whether XLA compiles the steps.
        hyperparameters: h, the number of hyperparameters. Those beyond the rates have
            no effect. Defaults to the number of rates.
    """
    rates = [f"rate_{k}" for k in range(network.rates)]
    scales = {name: bt.Uniform(0.0, 0.95, initial=RATE) for name in rates}
    for k in range((hyperparameters or network.rates) - network.rates):
        scales[f"idle_{k}"] = bt.Unconstrained(0.0)
    space = bt.HyperparameterSpace(scales)
    inputs = keras.Input(network.input_shape)
    outputs = network.body(inputs, HYPER, [space[name] for name in rates])
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space)
    model.compile(method=method, **training_arguments(jit))
    return model


def training_arguments(jit):
    """Return the arguments that every network is compiled with."""
    return {
        "optimizer": keras.optimizers.SGD(0.01, momentum=0.9),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "jit_compile": jit,
    }
