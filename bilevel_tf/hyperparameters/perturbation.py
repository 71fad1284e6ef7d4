"""How the perturbation of the hyperparameters reaches the layers during a pass.

A pass through the network runs inside a `scope`; layers, regularizers and the model
ask `current_scope()` what is in force. This is the only channel between them.
"""

import contextlib
import dataclasses
import threading

import tensorflow as tf

_active = threading.local()


@dataclasses.dataclass(frozen=True)
class Scope:
    """What a pass through the network is to compute.

    Attributes:
        delta: Input δ of the responses, `[batch, h]`, or `[1, h]` for one that all
            examples share; `None` for the ordinary weights alone.
        values: Hyperparameter values by name, `[batch, *shape]` each; `None` for the
            current values.
        tangents: `Tangents` along δ, where layers are to answer with the ordinary
            output carrying the derivatives of the linearised network (see
            `layers.hyper_layer`), instead of the output at the response weights.
        peeled: Layers that leave out their activation, to be linearised before it.
        penalties: Whether the model's losses have the weight penalties: training
            objectives do, outer ones don't.
        losses: What the model answers as its losses; `None` for those of the pass.
    """

    delta: tf.Tensor | None = None
    values: dict[str, tf.Tensor] | None = None
    tangents: object | None = None
    peeled: frozenset = frozenset()
    penalties: bool = True
    losses: tuple | None = None

    @property
    def linearized(self):
        """Whether the pass is one of the linearised network."""
        return self.tangents is not None


def current_scope():
    """The innermost `Scope` in force in this thread, or `None`."""
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


@contextlib.contextmanager
def scope(**attributes):
    """Run a pass under `Scope(**attributes)`."""
    if not hasattr(_active, "stack"):
        _active.stack = []
    entered = Scope(**attributes)
    _active.stack.append(entered)
    try:
        yield entered
    finally:
        _active.stack.pop()
