"""What a `BilevelModel` writes and reads."""

import keras

from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.training import conversion, exporting, state


class StoredModel:
    """Mixin for a Keras model: its configs, its checkpoints and its export."""

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Export a SavedModel for serving; it does not need this library.

        Beside the ordinary signature `serve` it has `serve_at`, which takes also the
        hyperparameters by name and answers as `call_at` does, where the model has
        been compiled with a method that fits a response. Other formats are Keras's,
        without that second signature.

        Args:
            filepath: Folder to write.
            format: As in Keras. Defaults to "tf_saved_model".
            **kwargs: The other arguments of `keras.Model.export`.
        """
        if format != "tf_saved_model":
            return super().export(filepath, format=format, **kwargs)
        return exporting.export_saved_model(self, filepath, **kwargs)

    def save_own_variables(self, store):
        """Also what Keras does not save: progress and the states of random seeds."""
        state.save(self, store)

    def load_own_variables(self, store):
        """The inverse of `save_own_variables`."""
        state.load(self, store)

    def get_config(self):
        """The functional graph, the space, the method, and the objective.

        The last two have what a model that is not compiled has as well: responses.
        """
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "hyperparameters": serialize(self.hyperparameters),
            "method": self.method and serialize(self.method),
            "objective": serialize(self.objective),
            "frozen_responses": [
                layer.name for layer in _responding(self) if not layer.trainable
            ],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""
        config, deserialize = dict(config), keras.saving.deserialize_keras_object
        space = deserialize(config.pop("hyperparameters"))
        method = deserialize(config.pop("method", None))
        objective = deserialize(config.pop("objective", None))
        frozen = config.pop("frozen_responses", [])
        inputs, outputs, name = conversion.graph_from_config(config, custom_objects)
        model = cls(inputs, outputs, hyperparameters=space, name=name)
        model.objective = objective or model.objective
        if method is not None:
            model._build_stages(model.objective, method)
        if frozen:
            layers = model._flatten_layers(include_self=False)
            layers = [layer for layer in layers if layer.name in frozen]
            method.attach_responses(layers, space.size)
        return model

    def get_compile_config(self):
        """Everything `compile` was given."""
        config = super().get_compile_config()
        if not config:
            return config
        serialize = keras.saving.serialize_keras_object
        response = None if self.response_follows else serialize(self.response_optimizer)
        return {
            **config,
            "hyper_optimizer": serialize(self.hyper_optimizer),
            "response_optimizer": response,
            "method": serialize(self.method),
            "objective": serialize(self.objective),
        }

    def compile_from_config(self, config):
        """The inverse of `get_compile_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))


def _responding(model):
    """All layers that have a response, those that were frozen later too."""
    layers = model.network.layers
    return [la for la in layers if isinstance(la, HyperLayer) and la.responses]
