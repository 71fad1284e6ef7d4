"""SavedModels, which may also answer at other hyperparameters."""

import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.training.conversion.networks import functional_model


def export_saved_model(
    model: keras.Model,
    filepath: Any,
    *,
    input_signature: Any = None,
    verbose: bool = True,
    **kwargs: Any,
) -> None:
    """Write a SavedModel with `serve` and, if the model has responses, `serve_at`.

    Args:
        model: A `BilevelModel`.
        filepath: Folder to write.
        input_signature: `tf.TensorSpec`s of the inputs, as in `keras.Model.export`.
            Defaults to `None`: those of the model's inputs, with any batch size.
        verbose: Whether to print the signatures. Defaults to `True`, as in Keras.
        **kwargs: Must be empty; listed for an error that names them.

    Raises:
        TypeError: If there are further arguments, or `filepath` is no path.
    """
    if not isinstance(filepath, (str, os.PathLike)):
        raise TypeError(
            "`filepath` must be the path of a folder, a string or os.PathLike. "
            f"Received: filepath={filepath!r}"
        )
    if kwargs:
        raise TypeError(
            f"Unknown arguments of export: {', '.join(sorted(kwargs))}. A SavedModel "
            "of a BilevelModel takes `input_signature` and `verbose`. "
            f"Received: {kwargs!r}"
        )
    inputs = _keras.get_graph_inputs(model)
    signature = _make_signature(inputs, input_signature)
    archive = keras.export.ExportArchive()
    # Track the graph, not the model: Keras searches all that it tracks, and fails at an
    # optimizer whose learning rate was a variable and is now computed.
    archive.track(functional_model(model))
    archive.track(model.hyperparameters)

    def serve(inputs):
        return model(inputs, training=False)

    archive.add_endpoint("serve", serve, input_signature=signature)
    if model.has_response and model.network.response_variables:
        space = model.hyperparameters
        archive.add_endpoint("hyperparameters", space.current, input_signature=[])
        archive.add_endpoint("serve_at", _trace_serve_at(model, signature))
    archive.write_out(str(filepath), verbose=verbose)


def _make_signature(inputs, given):
    """The specifications of the arguments of `serve`, in a list."""
    if given is None:
        return [keras.tree.map_structure(_make_spec, inputs)]
    if not isinstance(given, (list, tuple)):
        return [given]
    # A list may be that of the arguments, or the first argument, which is a list.
    several = isinstance(inputs, (list, tuple)) and len(inputs) > 1
    return [given] if several and len(given) == len(inputs) else list(given)


def _make_spec(tensor):
    return tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)


def _trace_serve_at(model: keras.Model, signature: list) -> Callable:
    """Return `serve_at`, traced for every set of names that it can be given.

    The traces share one graph of the network. The first trace, for all names, becomes
    the signature that TensorFlow Serving shows.
    """
    space = model.hyperparameters
    specs = {
        name: tf.TensorSpec(scale.shape, space.dtype, name=name)
        for name, scale in space.scales.items()
    }

    # Functions of their own, so that each is traced once and not in every set of names.
    predict = tf.function(model.call_at_unconstrained, autograph=False)
    parts = {name: _unconstrain_one(space, name) for name in space.names}
    sizes = [scale.size for scale in space.scales.values()]

    @tf.function(autograph=False)
    def serve_at(inputs, hyperparameters):
        present = tf.split(tf.convert_to_tensor(space.unconstrained), sizes)
        vectors = [
            parts[name](hyperparameters[name]) if name in hyperparameters else vector
            for name, vector in zip(space.names, present, strict=True)
        ]
        return predict(inputs, tf.concat(vectors, 0))

    for names in list_subsets(space.names):
        values = {name: specs[name] for name in names}
        serve_at.get_concrete_function(*signature, values)
    return serve_at


def list_subsets(names: list[str], most: int = 4) -> Iterable[tuple[str, ...]]:
    """List the sets of names that `serve_at` takes, that of all names first.

    Args:
        names: The names of all hyperparameters.
        most: Greatest number of names of which all sets are listed, since there are
            2**n of them. Of more names, only one, all or none can be given. Defaults
            to 4, hence 16 sets.
    """
    sizes = range(len(names), -1, -1) if len(names) <= most else (len(names), 1, 0)
    return [s for size in sizes for s in itertools.combinations(names, size)]


def _unconstrain_one(space, name):
    """A function from a value to its unconstrained form, if it is in its range."""
    scale = space.scales[name]

    @tf.function(autograph=False)
    def unconstrain(value):
        # Single precision would round what is next to an end to the end.
        part = scale.unconstrain(tf.cast(value, "float64"))
        part = tf.debugging.check_numerics(part, f"`{name}` must be {scale.describe()}")
        return tf.cast(tf.reshape(part, [scale.size]), space.dtype)

    return unconstrain
