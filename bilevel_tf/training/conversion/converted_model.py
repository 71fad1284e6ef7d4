"""How a `BilevelModel` is made of a Keras model, turned into one, and cloned."""

from typing import TYPE_CHECKING, Any

import keras

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.training.conversion import networks
from bilevel_tf.training.conversion.inner_layers import check_tuned_reach

if TYPE_CHECKING:
    from bilevel_tf.training.bilevel_model import BilevelModel


class ConvertedModel(_keras.CopiedByKeras):
    """Mixin for a Keras model: from and to plain Keras models, and `clone_model`.

    `keras.models.clone_model` makes a model without its space. The space is handed on
    with the symbolic outputs.
    """

    @classmethod
    def from_keras(
        cls,
        model: keras.Model,
        hyperparameters: HyperparameterSpace,
        tune: dict | None = None,
        name: str | None = None,
    ) -> "BilevelModel":
        """Convert a Sequential or functional Keras model, keeping its weights.

        Layers that have a counterpart in this library become that counterpart: Dense,
        EinsumDense, Embedding, convolutions, Dropout and GaussianNoise. Its weights can
        respond and its arguments can be tuned. All other layers are copied, with their
        flags, vocabularies and random states; nested models stay nested. A Dense or
        Conv2D layer to which `tune` gives a `prior` becomes variational instead, with
        the model's weights as means.

        Args:
            model: A built `keras.Sequential` or functional `keras.Model`. It is left
                as it is.
            hyperparameters: The `HyperparameterSpace`.
            tune: The layer arguments to change: a dict whose keys are layer names, or
                Keras layer classes for all layers of a class, and whose values are
                dicts from argument names to values, such as hyperparameters or
                regularizers that hold them. A name goes before a class. Defaults to
                `None`: nothing is changed. Layers inside wrappers and custom layers
                are not reached, which a warning says.
            name: Name of the new model. Defaults to `None`, the name of `model`.

        Returns:
            A `BilevelModel`, not compiled.

        Raises:
            ValueError: If the model is subclassed or not built, or a layer of it cannot
                be made from its config; or if `tune` is not such a dict or names a
                layer, class or argument that does not exist.

        Warns:
            UserWarning: If the model has a `train_step` or the like of its own.

        Example:

        >>> keras_model = keras.Sequential([
        ...     keras.Input((8,)),
        ...     keras.layers.Dense(16, activation="relu", name="hidden"),
        ...     keras.layers.Dropout(0.5),
        ...     keras.layers.Dense(3),
        ... ])
        >>> hp = bt.HyperparameterSpace(
        ...     dropout=bt.Uniform(0.0, 0.9, initial=0.2),
        ...     weight_decay=bt.LogUniform(1e-6, 1.0, initial=1e-4),
        ... )
        >>> model = bt.BilevelModel.from_keras(keras_model, hp, tune={
        ...     keras.layers.Dropout: {"rate": hp["dropout"]},
        ...     "hidden": {"kernel_regularizer": bt.L2(hp["weight_decay"])},
        ... })
        >>> [type(layer).__name__ for layer in model.layers[1:4]]
        ['HyperDense', 'HyperDropout', 'HyperDense']
        """
        check_tuned_reach(model, tune)
        inputs, outputs = networks.hyper_network(model, tune or {})
        name = name or model.name
        new = cls(inputs, outputs, hyperparameters=hyperparameters, name=name)
        return networks.keep_own(model, new)

    def to_keras(self) -> keras.Model:
        """Return the trained network as a plain Keras model, free of this library.

        Tuned arguments become numbers, their present values. Weights are those that
        this model predicts with; of variational layers they are the means. A penalty
        with a factor per weight, which Keras does not have, is left out. Layers of your
        own are copied, and go on using what they make themselves of this library.

        Returns:
            A functional `keras.Model`, not compiled, with weights of its own.

        Raises:
            ValueError: If a layer of your own cannot be made from its config, or holds
                hyperparameters that its config does not have; if the model has a `call`
                of its own.

        Example:

        >>> hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.9, initial=0.25))
        >>> inputs = keras.Input((8,))
        >>> outputs = bt.HyperDense(1)(bt.HyperDropout(hp["rate"])(inputs))
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> plain = model.to_keras()
        >>> [type(layer).__name__ for layer in plain.layers[1:]]
        ['Dropout', 'Dense']
        >>> round(plain.layers[1].rate, 2)
        0.25
        """
        return networks.plain_network(self)

    def graph_rebuilt(self, outputs: Any) -> None:
        """Remember, on symbolic outputs, the space of the model that made them."""
        space = getattr(self, "hyperparameters", None)
        for tensor in keras.tree.flatten(outputs):
            if isinstance(tensor, keras.KerasTensor):
                tensor.space_of_original = space


def copy_space(outputs: Any) -> HyperparameterSpace | None:
    """Return a new space like that of the model which `outputs` are cloned from.

    Args:
        outputs: What a `BilevelModel` is made with.

    Returns:
        The space at its initial values, or `None` if these are no outputs of a clone.
    """
    for tensor in keras.tree.flatten(outputs):
        space = getattr(tensor, "space_of_original", None)
        if space is not None:
            return HyperparameterSpace.from_config(space.get_config())
    return None
