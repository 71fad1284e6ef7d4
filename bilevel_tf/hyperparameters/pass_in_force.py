"""What the pass through the network that is running now is to compute.

Whoever runs the network begins a pass with `begin_pass`. Layers, regularizers, losses
and the model ask `current_pass()` what is in force. This is the only channel between
them, so that a layer needs no arguments beside Keras's own.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from bilevel_tf.autodiff.tangents import Tangents

_active = threading.local()


@dataclasses.dataclass(frozen=True)
class Pass:
    """What one pass through the network is to compute.

    The defaults describe an ordinary pass: the stored weights, the current
    hyperparameters, all losses that Keras would count.

    Attributes:
        delta: Input δ of the responses, on the unconstrained scale, `[batch, h]`, or
            `[1, h]` if all examples share one; `None` for the stored weights alone.
        values: Hyperparameter values by name, `[batch, *shape]` each; `None` for the
            current values.
        tangents: `Tangents` along δ if layers are to give their ordinary outputs
            together with the derivatives of the linearised network (see
            `HyperLayer`); `None` if they are to give the outputs at the weights
            w + Δw.
        peeled: Layers that leave out their activation, because the network is
            linearised before it.
        left_out: The layers that did leave it out; layers add themselves here.
        penalties: Whether the model's losses include the weight penalties. Training
            objectives include them, outer objectives do not.
        losses: The losses that the model reports instead of its own; `None` for its
            own.
        draws_weights: Whether variational layers draw their weights in inference mode
            too; see `sampling`.
        begun: Whether somebody began this pass. `False` outside of every pass, where
            a `BilevelModel` that is called begins one of its own.
    """

    delta: tf.Tensor | None = None
    values: dict[str, tf.Tensor] | None = None
    tangents: Tangents | None = None
    peeled: frozenset = frozenset()
    left_out: set = dataclasses.field(default_factory=set)
    penalties: bool = True
    losses: tuple | None = None
    draws_weights: bool = False
    begun: bool = True

    @property
    def linearized(self) -> bool:
        """Whether layers are to give the derivatives of the linearised network."""
        return self.tangents is not None


class RowsError(ValueError):
    """A tensor in a perturbed pass that does not have one row per example."""


def check_rows(tensor: tf.Tensor, examples: tf.Tensor, what: str) -> None:
    """Raise a `RowsError` if a tensor is known not to have one row per example.

    Every example has hyperparameters of its own. If time is folded into the first axis,
    nothing says which row belongs to which example.

    Args:
        tensor: A tensor, `[rows, ...]`.
        examples: A tensor with one row per example, `[batch, ...]`, or `[1, ...]`.
        what: What needs the rows, for the error.
    """
    rows, count = tensor.shape[0], examples.shape[0]
    if count in (1, rows) or None in (rows, count):
        return
    raise RowsError(
        f"{what} needs inputs with one row per example, because every example has "
        "hyperparameters of its own in a perturbed pass. Keep the batch axis: give the "
        "layer inputs [batch, time, ...] in place of reshape(x, (-1, ...)), if need be "
        "in keras.layers.TimeDistributed; or use a method that differentiates "
        "training, such as bilevel_tf.Neumann(). "
        f"Received: inputs of shape {tuple(tensor.shape)} for {count} examples"
    )


_OUTSIDE = Pass(begun=False)


def current_pass() -> Pass:
    """The innermost pass of this thread; outside of any, one that is not `begun`."""
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else _OUTSIDE


@contextlib.contextmanager
def begin_pass(**attributes: Any) -> Iterator[Pass]:
    """Put a pass in force for the code inside the `with` block.

    An inner pass inherits nothing from an outer one, except `draws_weights`.

    Args:
        **attributes: Attributes of `Pass`.

    Yields:
        The `Pass`.
    """
    attributes.setdefault("draws_weights", current_pass().draws_weights)
    with _in_force(Pass(**attributes)) as entered:
        yield entered


@contextlib.contextmanager
def sampling() -> Iterator[None]:
    """Make variational layers draw their weights in inference mode too.

    Each call of a model inside the block predicts with one network, drawn from the
    posterior: all examples of the call share its weights, and the layers add no
    divergence to the losses.

    This works for calls of the model, `model(x)`. A traced function keeps the
    behaviour with which it was traced: `model.predict` and `model.evaluate` go on using
    the means if they ran before, and would go on drawing if they first ran in here, as
    would what `model.export` writes. Use these outside of the block. For means and
    variances over many draws see `predictive`.

    Example:

    >>> prior = bt.regularizers.NormalPrior(1.0, data_size=100)
    >>> layer = bt.layers.VariationalDense(1, prior=prior, initial_scale=0.5)
    >>> inputs = np.ones((1, 3), "float32")
    >>> means = layer(inputs)
    >>> with bt.sampling():
    ...     draw = layer(inputs)
    >>> bool(means == draw)
    False
    """
    with _in_force(dataclasses.replace(current_pass(), draws_weights=True)):
        yield


@contextlib.contextmanager
def _in_force(entered):
    if not hasattr(_active, "stack"):
        _active.stack = []
    _active.stack.append(entered)
    try:
        yield entered
    finally:
        _active.stack.pop()
