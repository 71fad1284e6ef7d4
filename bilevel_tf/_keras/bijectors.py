"""Private parts of TensorFlow Probability: what its bijectors remember."""

import threading

import tensorflow as tf
import tensorflow_probability as tfp

_lock = threading.RLock()


def apply_bijector(
    bijector: tfp.bijectors.Bijector, tensor: tf.Tensor, *, inverse: bool = False
) -> tf.Tensor:
    """Return `bijector.forward(tensor)`, or its inverse, without keeping the tensors.

    A dict that lives as long as the process holds the argument of every call of a
    bijector until the result is deleted. In a graph neither is ever deleted: the
    argument holds the graph, and the graph the result. Here a dict of its own takes
    their place for the time of the call.
    """
    # The attribute of the class makes a copy at every access.
    cache = vars(tfp.bijectors.Bijector)["_cache"]
    with _lock:
        kept = cache.storage
        cache.storage = type(kept)()
        try:
            return (bijector.inverse if inverse else bijector.forward)(tensor)
        finally:
            cache.storage = kept
