"""The networks of the problems, and the hyperparameters that they have."""

import keras

import bilevel_tf as bt

RATES = ("input_dropout", "dropout_1", "dropout_2")
DECAYS = ("decay_1", "decay_2", "decay_3")


def units(width, scale):
    """Return the width of a layer at a scale."""
    return max(4, round(width * min(scale, 1.0)))


def rate_scales(names):
    """Return dropout rates from 0 to 0.95 that begin at 0.05."""
    return {name: bt.Uniform(0.0, 0.95, initial=0.05) for name in names}


def dropout_mlp(width, inputs, space, scale):
    """Return logits of an MLP with three hidden layers, with dropout before each."""
    x = inputs
    for name in RATES:
        x = bt.HyperDropout(space[name])(x)
        x = bt.HyperDense(units(width, scale), activation="relu")(x)
    return bt.HyperDense(10)(x)


def decay_scales():
    """Return a weight decay per layer that begins far above what is good."""
    return {name: bt.LogUniform(1e-6, 1.0, initial=3e-2) for name in DECAYS}


def decay_mlp(inputs, space, scale):
    """Return logits of an MLP with two hidden layers and a weight decay per layer."""
    x = inputs
    for name in DECAYS[:2]:
        decay = bt.L2(space[name])
        x = bt.HyperDense(
            units(128, scale), activation="relu", kernel_regularizer=decay
        )(x)
    return bt.HyperDense(10, kernel_regularizer=bt.L2(space[DECAYS[2]]))(x)


def cnn_scales():
    """Return weight decays of convolutions and dense layers, and two dropout rates."""
    decays = {
        name: bt.LogUniform(1e-6, 1e-1, initial=1e-5)
        for name in ("conv_decay", "dense_decay")
    }
    return {**decays, **rate_scales(("dropout_1", "dropout_2"))}


def cnn(inputs, space, scale):
    """Return logits of two convolutions and two dense layers."""
    x = inputs
    conv, dense = bt.L2(space["conv_decay"]), bt.L2(space["dense_decay"])
    for filters in (16, 32):
        x = bt.HyperConv2D(
            units(filters, scale),
            3,
            padding="same",
            activation="relu",
            kernel_regularizer=conv,
        )(x)
        x = keras.layers.MaxPooling2D()(x)
    x = bt.HyperDropout(space["dropout_1"])(keras.layers.Flatten()(x))
    x = bt.HyperDense(units(128, scale), activation="relu", kernel_regularizer=dense)(x)
    x = bt.HyperDropout(space["dropout_2"])(x)
    return bt.HyperDense(10, kernel_regularizer=dense)(x)


def regression_scales():
    """Return input noise, a dropout rate and a weight decay, all too small."""
    return {
        "input_noise": bt.LogUniform(1e-2, 3.0, initial=5e-2),
        **rate_scales(("dropout",)),
        "decay": bt.LogUniform(1e-6, 1.0, initial=1e-5),
    }


def regression_mlp(inputs, space, scale):
    """Return the prediction of an MLP with two hidden layers."""
    decay = bt.L2(space["decay"])
    x = bt.HyperGaussianNoise(space["input_noise"])(inputs)
    x = bt.HyperDense(units(64, scale), activation="relu", kernel_regularizer=decay)(x)
    x = bt.HyperDropout(space["dropout"])(x)
    x = bt.HyperDense(units(64, scale), activation="relu", kernel_regularizer=decay)(x)
    return bt.HyperDense(1, kernel_regularizer=decay)(x)
