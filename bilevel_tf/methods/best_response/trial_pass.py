"""A trial of the perturbed pass, traced without data, for early errors.

What cannot pass shows only in the first step, as an error of TensorFlow's that names no
layer. A trial of the graph finds it when the model is compiled.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from bilevel_tf.autodiff.tangents import Tangents
from bilevel_tf.hyperparameters.pass_in_force import RowsError, begin_pass
from bilevel_tf.methods.method import Method
from bilevel_tf.network.network import Network

# Sizes of axes that the model leaves open: one for the examples, one for all others.
_EXAMPLES, _OTHERS = 7, 16


def check_pass(network: Network, method: Method, linearized: bool) -> None:
    """Raise a `ValueError` for a layer that a perturbed pass cannot get through.

    Args:
        network: The compiled network, with responses.
        method: The method, for errors.
        linearized: Whether the pass is linearised.
    """
    if not _may_fail(network):
        return
    faults: list[tuple[keras.Layer, Exception]] = []

    def run(inputs):
        space = network.hyperparameters
        batch = keras.tree.flatten(inputs)[0].shape[0]
        delta = tf.zeros([batch, space.size], space.dtype)
        values = space.constrain(delta + space.unconstrained)
        tangents = Tangents(delta, delta) if linearized else None
        with keras.StatelessScope(), tangents or contextlib.nullcontext():
            scope = begin_pass(delta=delta, values=values, tangents=tangents)
            with _observed(network.layers, tangents, faults), scope:
                network(inputs, training=True)

    specs = keras.tree.map_structure(_make_spec, network.inputs)
    try:
        tf.function(run, autograph=False).get_concrete_function(specs)
    except Exception:
        if faults:
            _raise_for(faults, network, method)
        # Anything else is no fault of the pass, and shows in training.


def _make_spec(tensor):
    batch, *rest = tensor.shape
    shape = [_EXAMPLES if batch is None else batch]
    shape += [_OTHERS if size is None else size for size in rest]
    return tf.TensorSpec(shape, tensor.dtype)


def _may_fail(network):
    """Whether the model has anything but layers of Keras that keep the batch axis."""
    layers = network.layers
    models = [keras.Model(network.inputs, network.outputs), *layers]
    operations = [op for model in models for op in getattr(model, "operations", [])]
    return (
        any(isinstance(layer, keras.layers.RNN) for layer in layers)
        or any(not isinstance(operation, keras.Layer) for operation in operations)
        or any(
            isinstance(layer, keras.layers.Lambda)
            or not type(layer).__module__.startswith(("keras.", "bilevel_tf."))
            for layer in layers
        )
    )


class LoopError(ValueError):
    """A loop over time that forward mode does not get through."""


@contextlib.contextmanager
def _observed(
    layers: list[keras.Layer], tangents: Tangents | None, faults: list
) -> Iterator[None]:
    """Note the layers in which an error arises, from the innermost one, and the error.

    A sequence with a tangent that enters a loop is an error, a `LoopError`.
    """

    def observe(layer, call):
        loops = isinstance(layer, keras.layers.RNN) and not layer.unroll

        def observed(*args, **kwargs):
            try:
                if loops and tangents is not None:
                    # The sequence; initial states may have tangents.
                    entering = keras.tree.flatten(args[:1])
                    if any(tangents.of(tensor) is not None for tensor in entering):
                        raise LoopError
                return call(*args, **kwargs)
            except Exception as error:
                faults.append((layer, error))
                raise

        return observed

    before = [(layer, vars(layer).get("call")) for layer in layers]
    for layer in layers:
        # Keras looks `call` up on the object; its own `__setattr__` would track it.
        vars(layer)["call"] = observe(layer, layer.call)
    try:
        yield
    finally:
        for layer, call in before:
            del vars(layer)["call"]
            if call is not None:
                vars(layer)["call"] = call


def _raise_for(faults, network, method):
    """Raise a `ValueError` if the cause of an error is the perturbed pass."""
    kinds = [f"{type(layer).__name__} '{layer.name}'" for layer, _ in faults]
    cause, where = faults[0][1], " in ".join(kinds)
    if isinstance(cause, RowsError):
        if kinds[0] in str(cause):
            raise cause
        raise RowsError(f"{where}: {cause}")
    looped = isinstance(cause, LoopError)
    # Eagerly, a loop is a Python loop.
    if network.runs_eagerly or not (looped or "variant" in str(cause)):
        return
    remedy = (
        "set unroll=True in it, which needs a fixed number of steps"
        if looped
        else "write its loop as a Python loop over a fixed number of steps"
    )
    raise ValueError(
        f"{type(method).__name__} differentiates the network in forward mode, and "
        f"TensorFlow cannot do so through the loop over time in {kinds[0]}, which is "
        f"above a hyper-layer: {remedy}; or use bilevel_tf.methods.CenteredSTN(), "
        "which needs no forward mode. "
        f"Received: {where}" + (" with unroll=False" if looped else "")
    )
