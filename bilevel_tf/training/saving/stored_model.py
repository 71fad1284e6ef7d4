"""How a `BilevelModel` is saved, loaded and exported."""

import functools
from typing import Any

import keras
import numpy as np

import bilevel_tf
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.training.compiling import construction
from bilevel_tf.training.conversion import cloning, layer_state
from bilevel_tf.training.saving import (
    exporting,
    loading,
    restoring,
    resume_state,
    writing,
)


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
        takes the inputs and a dict of hyperparameters and answers as `call_at` does:
        those that are left out keep their present values. Of more than four
        hyperparameters either one or all must be given. `hyperparameters` returns a
        dict of the present values.

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
            TypeError: If an argument is unknown, or `filepath` is no path.

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

    def save(
        self,
        filepath: Any,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the whole model, so that training can go on, in a `.keras` file.

        A file of this name is replaced only when the new one is complete.

        Args:
            filepath: The file, a string or path that ends in `.keras`.
            overwrite: Whether a file of this name is replaced without asking. Defaults
                to `True`.
            zipped: As in `keras.Model.save`: `False` writes a folder. Defaults to
                `None`, a file.
            **kwargs: What Keras takes beside.

        Raises:
            ValueError: If the name ends in something else, such as `.h5`: that format
                has no place for the state of training.

        Example:

        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((3,))
        >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> model.save("model.keras")
        >>> loaded = keras.models.load_model("model.keras")
        >>> round(loaded.hyperparameters.values()["l2"], 4)
        0.01
        """

        def write(path):
            super(StoredModel, self).save(path, overwrite, zipped, **kwargs)

        writing.save(filepath, overwrite, zipped, write)

    def save_weights(
        self, filepath: Any, overwrite: bool = True, **kwargs: Any
    ) -> None:
        """Write the weights and all else that training changes.

        A file of this name is replaced only when the new one is complete.

        Args:
            filepath: File to write, a string or path that ends in ".weights.h5".
            overwrite: Whether to replace a file without asking. Defaults to `True`.
            **kwargs: `max_shard_size`, which newer releases of Keras take: the size in
                GB of the files into which the weights are cut.

        Example:

        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((3,))
        >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> model.save_weights("model.weights.h5")
        >>> hp.assign({"l2": 0.5})
        >>> model.load_weights("model.weights.h5")
        >>> round(hp.values()["l2"], 3)
        0.01
        """

        def write(path):
            super(StoredModel, self).save_weights(path, overwrite=overwrite, **kwargs)

        writing.save_weights(filepath, overwrite, bool(kwargs), write)

    def load_weights(
        self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any
    ) -> None:
        """Read the weights that `save_weights` or `save` wrote for such a model.

        Args:
            filepath: The file, a string or path.
            skip_mismatch: Whether weights that do not fit are skipped with a warning.
                Defaults to `False`.
            **kwargs: What Keras takes beside.

        Raises:
            OSError: If the file cannot be read, or (FileNotFoundError) is not there.
            ValueError: If it belongs to another model.
                In each case the model stays as it was.
        """

        def load():
            super(StoredModel, self).load_weights(filepath, skip_mismatch, **kwargs)

        restoring.load_weights(self, filepath, load)

    def set_weights(self, weights: list[Any]) -> None:
        """Set all weights, or none if one does not fit.

        Args:
            weights: List of arrays as `get_weights` returns it.

        Raises:
            TypeError: If it is not a list.
            ValueError: If there are more or fewer arrays than weights, or one has
                another shape.
        """
        restoring.check_weights(self, weights)
        super().set_weights([np.asarray(weight) for weight in weights])

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
        writing.check_format()
        construction.check_savable(self, StoredModel.from_config)
        serialize = keras.saving.serialize_keras_object
        # Before the graph, so that models in it share this space when they are loaded.
        space = serialize(self.hyperparameters)
        return {
            **super().get_config(),
            "version": f"bilevel_tf {bilevel_tf.__version__}",
            "hyperparameters": space,
            "method": self.method and serialize(self.method),
            "objective": serialize(self.objective),
            "sharing": cloning.get_sharing(self),
            "flags": layer_state.get_flags(self),
            "frozen_responses": _list_frozen_responses(self),
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
        writing.check_format()
        config = dict(config)
        version = config.pop("version", None)
        read = functools.partial(loading.read_part, config, version)
        space = read("hyperparameters", HyperparameterSpace)
        method, objective = read("method"), read("objective")
        flags = config.pop("flags", None)
        frozen = config.pop("frozen_responses", [])
        inputs, outputs, name = loading.read_graph(config, version, custom_objects)
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
        arguments = loading.attempt(
            lambda: keras.saving.deserialize_keras_object(config),
            f"What BilevelModel '{self.name}' was compiled with",
        )
        self.compile(**arguments)


def _list_frozen_responses(model):
    """The places of layers that have a response of the method, but are frozen now."""
    if not model.has_response:
        return []
    return [
        place
        for place, layer in enumerate(layer_state.walk(model))
        if getattr(layer, "responses", None) and not layer.trainable
    ]
