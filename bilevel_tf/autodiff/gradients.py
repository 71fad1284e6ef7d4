"""Gradients as dense tensors."""

from typing import Any

import tensorflow as tf


def dense_gradients(
    tape: tf.GradientTape,
    targets: Any,
    sources: Any,
    output_gradients: Any = None,
    unconnected_gradients: str = "none",
) -> Any:
    """Return `tape.gradient(targets, sources)`, every gradient a dense tensor.

    TensorFlow's gradient of a lookup (`tf.gather`, an embedding) is an `IndexedSlices`,
    which knows no arithmetic. Whatever computes with gradients takes them from here.

    Args:
        tape: The tape.
        targets: What to differentiate, a tensor or a list of them.
        sources: A tensor, or a structure of them.
        output_gradients: Gradients of the targets, structured likewise. Defaults to
            `None`: ones.
        unconnected_gradients: "zero" for zeros where there is no connection. Defaults
            to "none": `None` there.

    Returns:
        Gradients, structured as the sources.

    Example:

    >>> from bilevel_tf.autodiff.gradients import dense_gradients
    >>> table = tf.constant([1.0, 2.0, 3.0])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(table)
    ...     picked = tf.gather(table, [2, 2])
    >>> dense_gradients(tape, picked, [table])[0].numpy().tolist()
    [0.0, 0.0, 2.0]
    """
    found = tape.gradient(
        targets,
        sources,
        output_gradients=output_gradients,
        unconnected_gradients=unconnected_gradients,
    )
    return tf.nest.map_structure(
        lambda g: g if g is None else tf.convert_to_tensor(g), found
    )
