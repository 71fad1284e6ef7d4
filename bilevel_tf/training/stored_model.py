"""How a `BilevelModel` is saved, loaded and exported."""

from typing import Any

import keras

from bilevel_tf.training import conversion, exporting, layer_state, resume_state


class StoredModel:
    """Mixin for a Keras model: its configs, its checkpoints and its export.

    `model.save`, `model.save_weights` and their inverses, which are Keras's, call the
    methods of this class.
    """

    def export(
        self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any
    ) -> None:
        """Write the model for serving; what is written does not need this library.

        A SavedModel has the signature `serve`, which takes the inputs. If the model is
        compiled with a method that fits a best response, it also has `serve_at`, which
        takes the inputs and a dict of hyperparameters and answers as `call_at` does.

        Args:
            filepath: Folder (or, of other formats, file) to write, a string or path.
            format: "tf_saved_model", or another format that Keras can write, such as
                "onnx". Other formats have no `serve_at`. Defaults to "tf_saved_model".
            **kwargs: Arguments of `keras.Model.export`. A SavedModel takes
                `input_signature` (a structure of `tf.TensorSpec`s of the inputs;
                defaults to the inputs of the model, for any batch size) and `verbose`
                (whether to print the signatures; defaults to `True`). Other formats
                take what Keras documents for them.

        Raises:
            TypeError: If an argument is unknown.

        Example:

        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((3,))
        >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> model.compile("sgd", loss="mse", method=bt.DeltaSTN())
        >>> model.export("exported", verbose=False)
        >>> served = tf.saved_model.load("exported")
        >>> x = np.ones((2, 3), "float32")
        >>> served.serve(x).shape
        TensorShape([2, 1])
        >>> served.serve_at(x, {"l2": tf.constant(0.1)}).shape
        TensorShape([2, 1])
        """
        if format != "tf_saved_model":
            return super().export(filepath, format=format, **kwargs)
        return exporting.export_saved_model(self, filepath, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        """Write what Keras does not save: counts, random seeds, states of methods."""
        resume_state.save(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` wrote."""
        resume_state.load(self, store)

    def get_config(self) -> dict[str, Any]:
        """Return the functional graph, the space, the method and the objective.

        Method and objective are here as well as in the compile config because they
        give variables, such as responses, to a model that is not compiled.
        """
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "hyperparameters": serialize(self.hyperparameters),
            "method": self.method and serialize(self.method),
            "objective": serialize(self.objective),
            "flags": layer_state.get_flags(self),
            "frozen_responses": [
                index
                for index, layer in enumerate(layer_state.walk(self))
                if getattr(layer, "responses", None) and not layer.trainable
            ],
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "StoredModel":
        """Make a model from what `get_config` returned.

        Args:
            config: The config.
            custom_objects: Dict from names to classes that Keras does not know.
                Defaults to `None`.

        Returns:
            A `BilevelModel`, not compiled, with weights of its own.
        """
        config, deserialize = dict(config), keras.saving.deserialize_keras_object
        space = deserialize(config.pop("hyperparameters"))
        method = deserialize(config.pop("method", None))
        objective = deserialize(config.pop("objective", None))
        flags = config.pop("flags", None)
        frozen = config.pop("frozen_responses", [])
        inputs, outputs, name = conversion.graph_from_config(config, custom_objects)
        model = cls(inputs, outputs, hyperparameters=space, name=name)
        if flags is not None:
            layer_state.set_flags(model, flags)
        model.objective = objective or model.objective
        if method is not None:
            model._build_stages(model.objective, method)
        if frozen:
            layers = layer_state.walk(model)
            method.attach_responses([layers[index] for index in frozen], space.size)
        return model

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return everything that `compile` was given."""
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

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model with what `get_compile_config` returned."""
        self.compile(**keras.saving.deserialize_keras_object(config))
