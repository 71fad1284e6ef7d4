"""SavedModels, which may also answer at other hyperparameters."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.training.conversion import functional_model


def export_saved_model(
    model: keras.Model,
    filepath: Any,
    *,
    input_signature: Any = None,
    verbose: bool = True,
    **kwargs: Any,
) -> None:
    """Write a SavedModel with the signatures `serve` and, with responses, `serve_at`.

    Args:
        model: A `BilevelModel`.
        filepath: Folder to write.
        input_signature: `tf.TensorSpec`s of the inputs, as in `keras.Model.export`.
            Defaults to `None`: those of the model's inputs, with any batch size.
        verbose: Whether to print the signatures. Defaults to `True`, as in Keras.
        **kwargs: Must be empty; listed for an error that names them.

    Raises:
        TypeError: If there are further arguments.
    """
    if kwargs:
        raise TypeError(
            f"Unknown arguments of export: {', '.join(sorted(kwargs))}. A SavedModel "
            "of a BilevelModel takes `input_signature` and `verbose`. "
            f"Received: {kwargs!r}"
        )
    inputs = _keras.get_graph_inputs(model)
    signature = input_signature or keras.tree.map_structure(_make_spec, inputs)
    if not isinstance(signature, (list, tuple)) or input_signature is None:
        signature = [signature]
    archive = keras.export.ExportArchive()
    # Track the graph, not the model: Keras searches all that it tracks, and fails at an
    # optimizer whose learning rate was a variable and is now computed.
    archive.track(functional_model(model))
    archive.track(model.hyperparameters)

    def serve(inputs):
        return model(inputs, training=False)

    def serve_at(inputs, hyperparameters):
        return model.call_at(inputs, hyperparameters)

    archive.add_endpoint("serve", serve, input_signature=signature)
    if model.network.response_variables:
        values = {
            name: tf.TensorSpec(scale.shape, model.hyperparameters.dtype, name=name)
            for name, scale in model.hyperparameters.scales.items()
        }
        archive.add_endpoint("serve_at", serve_at, input_signature=[*signature, values])
    archive.write_out(str(filepath), verbose=verbose)


def _make_spec(tensor):
    return tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
