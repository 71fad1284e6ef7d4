"""SavedModels, which may answer at other hyperparameters."""

import keras
import tensorflow as tf


def export_saved_model(
    model, filepath, *, input_signature=None, verbose=True, **kwargs
):
    """Write a SavedModel with the signatures `serve` and, with responses, `serve_at`.

    Args:
        model: A `BilevelModel`.
        filepath: Folder to write.
        input_signature: Of the model's inputs, as in `keras.Model.export`.
        verbose: As in `keras.Model.export`.
        **kwargs: Refused, with their names.

    Raises:
        TypeError: If there are further arguments.
    """
    if kwargs:
        raise TypeError(f"Unknown arguments of export: {', '.join(sorted(kwargs))}")
    signature = input_signature or keras.tree.map_structure(_spec, model._inputs_struct)
    if not isinstance(signature, (list, tuple)) or input_signature is None:
        signature = [signature]
    archive = keras.export.ExportArchive()
    # Not the model itself: Keras searches what it tracks, and there fails at optimizers
    # whose learning rate was a variable once and is computed now.
    archive.track(keras.Model(model._inputs_struct, model._outputs_struct))
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


def _spec(tensor):
    return tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
