"""What keeps every example from the model that must not see it."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.network.example_factors import weigh_examples
from bilevel_tf.network.network import Network

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")

# In these optimizers the gradient of an entry of a variable moves only that entry.
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
    "use_ema": "averages weights over steps, which the models of the folds do not do",
    "loss_scale_factor": "scales the loss, which the models of the folds do not do",
}


def check_optimizer(optimizer: Any) -> None:
    """Raise a `ValueError` for an optimizer that would mix the folds.

    Args:
        optimizer: The Keras optimizer of the weights, in the wrapper that Keras may
            have given it.
    """
    if type(optimizer) not in ELEMENTWISE:
        known = ", ".join(kind.__name__ for kind in ELEMENTWISE)
        raise ValueError(
            "CrossValidation trains the models of all folds by one optimizer, so that "
            f"`optimizer` must treat every weight by itself: {known}. It must not "
            "scale the loss either, as Keras does in mixed_float16: use "
            "mixed_bfloat16 there. "
            f"Received: {type(optimizer).__name__}"
        )
    for name, reason in _REFUSED.items():
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"CrossValidation cannot use an `optimizer` that {reason}. "
                f"Received: {name}={value!r}"
            )


def check_layers(network: Network) -> None:
    """Raise a `ValueError` for a layer whose state depends on all examples."""
    kinds = keras.layers.BatchNormalization, keras.layers.SpectralNormalization
    for layer in network.layers:
        if isinstance(layer, kinds) and layer.trainable:
            raise ValueError(
                f"CrossValidation cannot use {type(layer).__name__} '{layer.name}': "
                "its statistics are of all examples, including those held out. Use "
                "LayerNormalization or GroupNormalization, or freeze it. "
                f"Received: {type(layer).__name__} with trainable=True"
            )


def check_losses(network: Network) -> None:
    """Raise a `ValueError` for a loss that is not a mean over its examples."""
    for loss in network.losses:
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in _MEANS:
            raise ValueError(
                "With CrossValidation losses must be means over examples, so that "
                "folds of different sizes count alike. Use "
                "reduction='sum_over_batch_size'. "
                f"Received: {type(loss).__name__} with reduction={reduction!r}"
            )
        ignored = getattr(loss, "ignore_class", None)
        if ignored is not None:
            raise ValueError(
                "CrossValidation cannot use a loss that ignores a class, because Keras "
                "divides it by a number of the whole batch. Give `sample_weight` 0 to "
                f"what is to be ignored. Received: {type(loss).__name__} with "
                f"ignore_class={ignored!r}"
            )


def check_strategy(network: Network) -> None:
    """Raise a `ValueError` if training is distributed."""
    if network.strategy is not None:
        raise ValueError(
            "CrossValidation cannot be trained under a tf.distribute strategy: every "
            "replica would train the folds on its own part of the batch, in which they "
            "have other sizes. Make the model outside of the strategy's scope. "
            f"Received: a model made under {type(network.strategy).__name__}"
        )


def check_arrays(x: Any, y: Any) -> None:
    """Raise an error unless the training data are arrays of one length.

    Args:
        x, y: As given to `fit`.

    Raises:
        TypeError: If they are not arrays.
        ValueError: If their lengths differ, or there is no `y`.
    """
    for part in keras.tree.flatten((x, y)):
        if part is not None and not hasattr(part, "shape"):
            raise TypeError(
                "CrossValidation numbers the examples, so that `x` and `y` must be "
                "arrays, or lists or dicts of arrays. A tf.data.Dataset, a "
                "keras.utils.PyDataset or a generator has no numbers. "
                f"Received: {type(part).__name__}"
            )
    sizes = {len(part) for part in keras.tree.flatten((x, y)) if part is not None}
    if y is None or len(sizes) > 1:
        raise ValueError(
            "With CrossValidation `x` and `y` must be arrays of one length. Received: "
            + ("no `y`" if y is None else f"lengths {sorted(sizes)}")
        )


def check_separable(network: Network, x: Any, y: Any) -> None:
    """Raise a `ValueError` if the loss of one example depends on another.

    Args:
        network: The compiled network.
        x, y: Arrays of at least two examples.
    """
    x, y = keras.tree.map_structure(
        lambda array: None if array is None else tf.convert_to_tensor(array[:2]), (x, y)
    )
    outputs = network(x, training=False)
    if network.added_losses():
        raise ValueError(
            "CrossValidation cannot use `add_loss` or activity regularizers: they are "
            "taken over the whole batch, including the examples held out. Leave them "
            "out, or put them into `loss`. "
            f"Received: {len(network.added_losses())} of them"
        )
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        first = tf.constant([1.0, 0.0], keras.config.floatx())
        weight = weigh_examples(network, y, outputs, None, first)
        loss = network.compute_loss(x, y, outputs, weight, training=True)
    gradients = tape.gradient(loss, keras.tree.flatten(outputs))
    # NaN is no sign of mixing: it is an infinite gradient times a weight of 0.
    if any(g is not None and tf.reduce_any(tf.abs(g[1]) > 0) for g in gradients):
        raise ValueError(
            "With CrossValidation `loss` must return one value per example, of shape "
            "[batch]. It must not return their mean or compare examples. Received: a "
            "loss in which an example of sample weight 0 has a gradient"
        )


def is_crossentropy(loss: Any) -> bool:
    """Return whether a compiled loss is one crossentropy, which its name tells."""
    losses = keras.tree.flatten(loss)
    if len(losses) != 1 or losses[0] is None:
        return False
    loss = keras.losses.get(losses[0])
    name = getattr(loss, "__name__", type(loss).__name__)
    return "crossentropy" in name.lower()
