"""What would let an example reach the model that must not see it."""

import keras
import tensorflow as tf

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")

# Every entry of a variable moves by its own gradient alone.
ELEMENTWISE = tuple(
    getattr(keras.optimizers, name)
    for name in (
        "Adadelta",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "Ftrl",
        "Lion",
        "Nadam",
        "RMSprop",
        "SGD",
    )
)
_REFUSED = {
    "clipnorm": "clips by a norm over all folds together; use `clipvalue`",
    "global_clipnorm": "clips by a norm over all folds together; use `clipvalue`",
    "use_ema": "averages weights over steps, which the models of the folds don't",
    "loss_scale_factor": "scales the loss, which the models of the folds don't",
}


def check_optimizer(optimizer):
    """Raise a `ValueError` for an optimizer that would mix the folds.

    Args:
        optimizer: The Keras optimizer that trains the weights, as Keras has wrapped it.
    """
    if type(optimizer) not in ELEMENTWISE:
        known = ", ".join(kind.__name__ for kind in ELEMENTWISE)
        raise ValueError(
            "CrossValidation trains the models of all folds by one optimizer, so that "
            f"`optimizer` must treat every weight by itself: {known}. It cannot scale "
            "the loss either, as Keras does in mixed_float16; use mixed_bfloat16. "
            f"Received: {type(optimizer).__name__}"
        )
    for name, reason in _REFUSED.items():
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"CrossValidation cannot use an `optimizer` that {reason}. "
                f"Received: {name}={value!r}"
            )


def check_layers(network):
    """Raise a `ValueError` for a layer whose state all examples write."""
    kinds = keras.layers.BatchNormalization, keras.layers.SpectralNormalization
    for layer in network.layers:
        if isinstance(layer, kinds) and layer.trainable:
            raise ValueError(
                f"CrossValidation cannot use {type(layer).__name__} '{layer.name}': "
                "its statistics are of all examples, the ones held out as well. Use "
                "LayerNormalization or GroupNormalization, or freeze it."
            )


def check_losses(network):
    """Raise a `ValueError` for a loss that is not a mean over all that it is given."""
    if any(
        getattr(o, "_keras_mask", None) is not None
        for o in keras.tree.flatten(network.outputs)
    ):
        raise ValueError(
            "CrossValidation cannot use masked outputs, whose loss Keras divides by "
            "the entries of the whole batch. Give `sample_weight` in place of a mask."
        )
    for loss in network.losses:
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in _MEANS:
            raise ValueError(
                "With CrossValidation losses must be means over examples, which "
                f"parts of different sizes share. Received: {type(loss).__name__} with "
                f"reduction={reduction!r}; use 'sum_over_batch_size'."
            )


def check_strategy(network):
    """Raise a `ValueError` where training is distributed."""
    if network.distributed:
        raise ValueError(
            "CrossValidation cannot be trained under a tf.distribute strategy. "
            "Received: a model made under one"
        )


def check_arrays(x, y):
    """Raise a `TypeError` unless the training data are arrays."""
    for part in keras.tree.flatten((x, y)):
        if part is not None and not hasattr(part, "shape"):
            raise TypeError(
                "CrossValidation numbers the examples, so that `x` and `y` must be "
                "arrays, or lists or dicts of arrays: not a tf.data.Dataset, a "
                "keras.utils.PyDataset or a generator. "
                f"Received: {type(part).__name__}"
            )
    sizes = {len(part) for part in keras.tree.flatten((x, y)) if part is not None}
    if y is None or len(sizes) > 1:
        raise ValueError(
            "With CrossValidation `x` and `y` must be arrays of one length. Received: "
            + ("no `y`" if y is None else f"lengths {sorted(sizes)}")
        )


def check_separable(network, x, y):
    """Raise a `ValueError` where the loss of one example sees another.

    Args:
        network: The compiled `Network`.
        x, y: Arrays of at least two examples.
    """
    x, y = keras.tree.map_structure(
        lambda array: None if array is None else tf.convert_to_tensor(array[:2]), (x, y)
    )
    outputs = network(x, training=False)
    if network.added_losses():
        raise ValueError(
            "CrossValidation cannot use `add_loss` or activity regularizers: they are "
            "taken over the whole batch, the examples held out as well."
        )
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = network.compute_loss(
            x, y, outputs, tf.constant([1.0, 0.0]), training=True
        )
    gradients = tape.gradient(loss, keras.tree.flatten(outputs))
    # NaN is what a weight of 0 makes of an infinite gradient, and no sign of mixing.
    if any(g is not None and tf.reduce_any(tf.abs(g[1]) > 0) for g in gradients):
        raise ValueError(
            "With CrossValidation `loss` must return one value per example. The "
            "compiled one gives an example of sample weight 0 a gradient: it returns "
            "their mean, or compares them. Return losses of shape [batch]."
        )


def is_crossentropy(loss):
    """Whether a compiled loss is a crossentropy, by its name."""
    losses = keras.tree.flatten(loss)
    if len(losses) != 1 or losses[0] is None:
        return False
    loss = keras.losses.get(losses[0])
    name = getattr(loss, "__name__", type(loss).__name__)
    return "crossentropy" in name.lower()
