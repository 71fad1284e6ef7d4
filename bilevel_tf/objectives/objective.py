"""The protocol of all objectives."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.network.network import Network


class Objective:
    """Q, by which hyperparameters are judged, and L, by which weights are trained.

    A `BilevelModel` takes an objective through these stages, and gives it its `Network`
    in each of them:

    1. `check(network)`, in `compile`: raise an error if this objective cannot judge
       the network.
    2. `build(network)`, in `compile`, and before it when a model is loaded: make
       variables with `network.add_state` and, only if `network.compiled` is true,
       `network.add_optimizer`.
    3. `prepare(network, x, y, sample_weight)`, on the data given to `fit`.
    4. `inner_step(network, x, y, sample_weight)`, on every training batch.
    5. `inner_loss` and `outer_loss`, asked for by methods that differentiate training:
       plain functions of weights and hyperparameters, traced into `tf.function`s.
    6. `logs(network, outer_loss)`, after every outer step.

    An objective object has the arguments that it was made with and nothing else, so
    that one object can serve several models: all state is in the network.

    To write an objective of your own, subclass this class and implement `outer_loss`
    with the plain functions of the network (`Network.loss`, `Network.predict`,
    `Network.data_loss`). Override `inner_loss` only together with `inner_step`, so that
    methods differentiate what the steps minimise. Implement `get_config` if you have
    arguments, and register the class with `keras.saving.register_keras_serializable`;
    models that use it can then be saved.

    Attributes:
        judged_on: The data from which outer batches are drawn: "validation" or
            "training" (the default).
        responds: Whether methods that fit a best response can use the objective; they
            minimise the compiled loss on the outer batches. Defaults to `False`.
        composed: Whether `inner_loss` is the compiled loss of the outputs plus
            penalties, which methods that need it in its parts rely on. `False` for a
            subclass that overrides `inner_loss`, unless it says otherwise.
        added_losses: Whether what layers add, by `add_loss` and activity regularizers,
            counts when a method that fits a best response judges. Defaults to `True`.
        takes_outer_loss: Whether the objective judges by the `outer_loss` that
            `compile` is given. Defaults to `False`, also for a subclass that overrides
            `outer_loss`, unless it says otherwise.
        suggested_method: A method that fits the objective, as a user would write it;
            error messages show it.
        log_names: The keys of what `logs` returns.
        validation_split: Share of the training arrays that `fit` takes as validation
            data if it is given none. Defaults to 0.

    Example:

    Judge by the largest loss of an example in place of the mean:

    >>> class WorstCase(bt.objectives.Objective):
    ...     judged_on = "validation"
    ...     def outer_loss(self, network, weights, hyperparameters, batch):
    ...         losses = network.example_losses(
    ...             weights, hyperparameters, batch, training=False
    ...         )
    ...         return tf.reduce_max(losses)
    """

    judged_on = "training"
    responds = False
    composed = True
    added_losses = True
    takes_outer_loss = False
    suggested_method = "bilevel_tf.ConjugateGradient()"
    log_names: tuple[str, ...] = ()
    validation_split: float = 0.0

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "inner_loss" in vars(cls) and "composed" not in vars(cls):
            cls.composed = False
        if "outer_loss" in vars(cls) and "takes_outer_loss" not in vars(cls):
            cls.takes_outer_loss = False

    def check(self, network: Network) -> None:
        """Raise a `ValueError` if this objective cannot judge the compiled network."""

    def build(self, network: Network) -> None:
        """Make what the objective needs: variables, and an optimizer for them."""

    def variables(self, network: Network) -> list[keras.Variable]:
        """Return the trained variables θ, of which L and Q are functions."""
        return network.weights

    def optimizer(self, network: Network) -> Any:
        """Return what trains θ: a Keras optimizer or a `TunedOptimizer`."""
        return network.stepping_optimizer

    def prepare(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[Any, Any, Any]:
        """Return the training data as `inner_step` and the losses take them.

        Args:
            network: The compiled network.
            x, y, sample_weight: As given to `fit`, without the part that
                `validation_split` takes away.

        Returns:
            x, y and sample weights.
        """
        return x, y, sample_weight

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """Train on a batch.

        Args:
            network: The network.
            x, y, sample_weight: A training batch.

        Returns:
            The training loss, a scalar, and the predictions, for the metrics.
        """
        return network.method.inner_step(network, x, y, sample_weight)

    def inner_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return L, a scalar; by default the training loss of `fit`.

        Args:
            network: The network.
            weights: Values of `variables`.
            hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
            batch: x, y and sample weights.
        """
        return network.loss(weights, hyperparameters, batch, training=True)

    def outer_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return Q, a scalar to be minimised.

        Args:
            network: The network.
            weights: Values of `variables`.
            hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
            batch: x, y and sample weights.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `outer_loss`.")

    def logs(self, network: Network, outer_loss: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what `fit` shows of Q after an outer step.

        Args:
            network: The network.
            outer_loss: Q, a scalar.

        Returns:
            A scalar for each of `log_names`.
        """
        return dict.fromkeys(self.log_names, outer_loss)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this objective again."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        """Make an objective from what `get_config` returned."""
        return cls(**config)
