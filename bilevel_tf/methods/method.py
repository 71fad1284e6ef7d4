"""The protocol of all methods."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.methods.unknown_arguments import refuse_unknown
from bilevel_tf.network.network import Network
from bilevel_tf.optimizers.tuned import TunedOptimizer


class Method:
    """How hyperparameters are tuned while the weights are trained.

    Every method works in rounds: `train_steps` inner steps train the weights, then
    `valid_steps` outer steps move the hyperparameters along a hypergradient. A method
    says what an inner step trains and how an outer step finds the hypergradient.

    A `BilevelModel` takes a method through these stages, and gives it its `Network` in
    each of them:

    1. `check(network)`, in `compile`: raise an error if the method cannot tune this
       network. The objective is built by then.
    2. `build(network)`, in `compile`, and before it when a model is loaded: attach
       responses, make variables with `network.add_state`. Nothing here may depend on
       the optimizers unless `network.compiled` is true.
    3. `inner_step(network, x, y, sample_weight)`, on every training batch.
    4. `outer_step(network, validation, training)`, after every `train_steps` inner
       steps, on `valid_steps` batches.

    The steps are traced into `tf.function`s. A method object has the arguments that it
    was made with and nothing else, so that one object can serve several models: all
    state is in the network.

    To write a method of your own, subclass this class, or `Differentiating` if you
    have a formula for dQ/dλ of a `Problem`, or `BestResponse` if you fit a response.
    Implement `outer_step`, and `get_config` if you have arguments of your own; register
    the class with `keras.saving.register_keras_serializable`, and models that use it
    can be saved.

    Args:
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.
        **unknown: Arguments that the class does not have. They are refused with an
            error that names those that it has.

    Raises:
        ValueError: If a number is not whole or too small.
        TypeError: If the class has no argument of that name.

    Attributes:
        inner_batches: How many training batches an outer step needs, or 0.
        fixed_batches: Whether all outer steps get the same training batches.
        direct_only: Whether the method sees only how the objective depends on
            hyperparameters at constant weights. Defaults to `False`.
        log_names: Names of what `outer_step` returns.
        splits_outer_batches: Whether the replicas of a `tf.distribute` strategy take
            part of the outer batch each, as they do of training batches. That is right
            for an outer step that hands the gradient of one mean over the examples to
            an optimizer, which adds up those of the replicas. Defaults to `False`: one
            device takes the step on the whole batch.

    Example:

    A method that shrinks every hyperparameter, whatever the data say:

    >>> class Shrink(bt.methods.Method):
    ...     def outer_step(self, network, validation, training):
    ...         space = network.hyperparameters
    ...         space.unconstrained.assign(0.9 * space.unconstrained)
    ...         return {}
    """

    inner_batches = 0
    fixed_batches = False
    direct_only = False
    log_names: tuple[str, ...] = ()
    splits_outer_batches = False

    def __init__(
        self,
        train_steps: int = 5,
        valid_steps: int = 1,
        warmup_epochs: int = 0,
        **unknown: Any,
    ):
        refuse_unknown(type(self), unknown)
        self.train_steps = check_count(train_steps, "train_steps", 1)
        self.valid_steps = check_count(valid_steps, "valid_steps", 1)
        self.warmup_epochs = check_count(warmup_epochs, "warmup_epochs", 0)

    def check(self, network: Network) -> None:
        """Raise a `ValueError` if this method cannot tune the compiled network."""

    def build(self, network: Network) -> None:
        """Create what the method needs: responses, variables."""

    def tuned_variables(self, space: HyperparameterSpace) -> list[keras.Variable]:
        """The variables of the space that the hyper-optimizer moves."""
        return [space.unconstrained]

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """Train the weights on a batch; by default w ← w − α ∇L_T(λ, w).

        Args:
            network: The network.
            x, y, sample_weight: A training batch.

        Returns:
            The training loss, a scalar, and the predictions, for the metrics.
        """
        current = network.hyperparameters.current_at_once()
        with tf.GradientTape() as tape, begin_pass(current=current):
            predictions = network(x, training=True)
            loss = network.compute_loss(x, y, predictions, sample_weight, training=True)
            scaled = network.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, network.weights)
        gradients = self.gradients_of_step(gradients)
        network.optimizer.apply(all_at_once(gradients), network.weights)
        return loss, predictions

    def gradients_of_step(self, gradients: list[Any]) -> list[Any]:
        """The gradients that the optimizer gets in an inner step; by default all."""
        return gradients

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """Move the hyperparameters.

        Args:
            network: The network.
            validation: x, y and sample weights of the batch on which the objective is
                taken: validation data, or training data if the objective is judged on
                these.
            training: The same of `inner_batches` training batches, stacked along a new
                first axis; `None` if `inner_batches` is 0.

        Returns:
            What `fit` logs: a scalar for each of `log_names` and for each of the
            objective's.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `outer_step`.")

    def prediction_delta(self, space: HyperparameterSpace) -> tf.Tensor | None:
        """The δ `[1, h]` at which the model predicts; `None` for its stored weights."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments to make this method again."""
        return {
            "train_steps": self.train_steps,
            "valid_steps": self.valid_steps,
            "warmup_epochs": self.warmup_epochs,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """Make a method from what `get_config` returned."""
        return cls(**config)


def check_optimizer_not_tuned(network: Network, method: Method) -> None:
    """Raise a `ValueError` if hyperparameters act through the optimizer."""
    if isinstance(network.stepping_optimizer, TunedOptimizer):
        names = ", ".join(f"`{name}`" for name in network.stepping_optimizer.functions)
        raise ValueError(
            f"{type(method).__name__} cannot reach {names} of the optimizer, which are "
            "not in the training loss. Use a method that follows the optimizer's "
            "steps: Unrolled, Greedy, ForwardMode, RMAD or DrMAD; or "
            "HypergradientDescent for learning rates alone."
        )


def all_at_once(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Make every gradient wait for all others.

    A variable must not change while the gradient of another is still computed from it.
    TensorFlow orders this by itself, but with static shapes its graph optimizers drop
    an order that seemed to follow from a shape which they then fold away.
    """
    return tf.tuple(gradients)
