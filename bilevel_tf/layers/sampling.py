"""Draws of the weights in passes that predict."""

import contextlib
import threading

_active = threading.local()


@contextlib.contextmanager
def sampling():
    """Have variational layers draw their weights also where `training=False`.

    Every call of a model inside predicts with one network, drawn from the posterior:
    all examples of the call share it, and the divergence is not added to the losses.

    It holds for calls of the model, `model(x)`. What is traced keeps what it was traced
    with: `model.predict` and `model.evaluate` go on with the means if they have been
    used before, and would go on to draw if they were first used in here, as would what
    `model.export` writes. Use them outside. For means and variances over many draws
    see `predictive`.

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
