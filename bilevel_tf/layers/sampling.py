"""Draws of the weights in passes that predict."""

import contextlib
import threading

_active = threading.local()


@contextlib.contextmanager
def sampling():
    """Have variational layers draw their weights also where `training=False`.

    Every call of a model inside predicts with one network, drawn from the posterior:
    all examples of the call share it, and the divergence is not added to the losses.

    It holds for calls of the model, `model(x)`. Functions that were traced before, as
    `model.predict` is after its first use, stay what they are. For means and variances
    over many draws see `predictive`.

    Example:

    >>> with bt.sampling():
    ...     functions = [model(x) for _ in range(10)]
    """
    before = is_sampling()
    _active.value = True
    try:
        yield
    finally:
        _active.value = before


def is_sampling():
    """Whether this thread is inside `sampling`."""
    return getattr(_active, "value", False)
