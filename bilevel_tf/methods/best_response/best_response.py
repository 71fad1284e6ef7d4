"""What the methods share that fit a best response."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _replicas
from bilevel_tf._arguments import check_non_negative
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.layers.response.response import Response
from bilevel_tf.layers.response.structured import StructuredResponse
from bilevel_tf.methods.best_response.added_losses import check_added_losses
from bilevel_tf.methods.best_response.reach import (
    check_factors_scalar,
    check_penalties_respond,
)
from bilevel_tf.methods.best_response.trial_pass import check_pass
from bilevel_tf.methods.method import Method, all_at_once, check_optimizer_not_tuned
from bilevel_tf.network.linearized_pass import linearized_gradients
from bilevel_tf.network.network import Network
from bilevel_tf.network.output_heads import check_outputs_linearize


class BestResponse(Method):
    """Base class of methods that learn how trained weights depend on λ.

    Beside the weights, the inner steps train the variables of a response r, such that
    r(λ + ε) are approximately the weights that training with λ + ε would find, for
    perturbations ε ~ N(0, σ²) on the unconstrained scale. An outer step then descends
    L_V(λ + ε, r(λ + ε)) − τ H[p(ε|σ)] in λ and σ, through the response.

    To write such a method, subclass this class, set the attributes below, and implement
    `inner_step`, with `update_jointly` if one pass trains everything, or with
    `perturbed_gradients` otherwise. Equation numbers here and in subclasses are those
    of the Δ-STN paper.

    Args:
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        entropy_weight: τ of Eq. 2.7, the weight of the entropy of the perturbation, in
            units of the loss; for a hyperparameter with a prior it is the weight of the
            KL divergence from that prior. Defaults to 1e-3, as in the Δ-STN paper on
            images.
        warmup_epochs: Number of epochs at the start in which λ and σ stay fixed while
            weights and response are trained. Defaults to 0.

    Attributes:
        response_class: The `Response` that layers get. Defaults to
            `StructuredResponse`.
        centered: Whether the response is a function of λ − λ₀, so that it has no effect
            at the present λ₀, or of λ itself. Defaults to `True`.
        linearized: Whether the response is trained through the linearised network.
            Defaults to `False`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    The STN with a centered response:

    >>> from bilevel_tf.methods.best_response.best_response import BestResponse
    >>> class Centered(BestResponse):
    ...     def inner_step(self, network, x, y, sample_weight):
    ...         return self.update_jointly(network, x, y, sample_weight)
    >>> Centered(entropy_weight=0.0).entropy_weight
    0.0

    Reference:
        Bae & Grosse, "Delta-STN: Efficient Bilevel Optimization for Neural Networks
        using Structured Response Jacobians", 2020.
    """

    response_class: type[Response] = StructuredResponse
    centered = True
    linearized = False
    splits_outer_batches = True

    def __init__(
        self,
        train_steps: int = 5,
        valid_steps: int = 1,
        entropy_weight: float = 1e-3,
        warmup_epochs: int = 0,
        **kwargs: Any,
    ):
        super().__init__(train_steps, valid_steps, warmup_epochs, **kwargs)
        self.entropy_weight = check_non_negative(entropy_weight, "entropy_weight")

    def check(self, network: Network) -> None:
        """Check that the weights can respond to the hyperparameters.

        Raises:
            ValueError: If there is no hyper-layer that is trained, if a tuned penalty
                is on a weight that cannot respond, or if the optimizer has
                hyperparameters.
        """
        check_optimizer_not_tuned(network, self)
        if not network.responding_layers:
            raise ValueError(
                f"{type(self).__name__} fits how the weights of layers respond to "
                "hyperparameters, and no layer of the model can respond (or all are "
                "frozen). Give `compile` a method that differentiates training, which "
                "needs no special layers, such as method=bilevel_tf.Neumann(); tuned "
                "weights of examples need one in any case. Or use layers such as "
                "bilevel_tf.HyperDense, or BilevelModel.from_keras. "
                f"Received: method={type(self).__name__}, and a model without a "
                "trainable hyper-layer"
            )
        check_penalties_respond(network)
        check_factors_scalar(network, self)
        check_added_losses(network, self)
        if self.linearized:
            check_outputs_linearize(keras.tree.flatten(network.outputs), network.losses)

    def build(self, network: Network) -> None:
        """Attach a response to every layer that can respond.

        Raises:
            ValueError: If the model is compiled, and a perturbed pass cannot get
                through one of its layers.
        """
        self.attach_responses(network.responding_layers, network.hyperparameters.size)
        if network.compiled:
            check_pass(network, self, self.linearized)

    def attach_responses(self, layers: list[keras.Layer], size: int) -> None:
        """Give responses to layers.

        Args:
            layers: Hyper-layers.
            size: h, the number of unconstrained hyperparameters.
        """
        arguments = self.response_arguments()
        for layer in layers:
            layer.attach_response(self.response_class, size, **arguments)

    def response_arguments(self) -> dict[str, Any]:
        """Return the arguments of `response_class` other than the size."""
        return {}

    def prediction_delta(self, space: HyperparameterSpace) -> tf.Tensor | None:
        """Return `None` if centered, since then Δw = 0 at the present λ; else λ."""
        return (
            None if self.centered else tf.convert_to_tensor(space.unconstrained)[None]
        )

    def tuned_variables(self, space: HyperparameterSpace) -> list[keras.Variable]:
        """Return λ and the variable behind σ."""
        return [space.unconstrained, space.raw_perturbation_scale]

    def train_delta(self, space: HyperparameterSpace, epsilon: tf.Tensor) -> tf.Tensor:
        """Return δ of a training pass, `[batch, h]`: ε if centered, else λ + ε."""
        return epsilon if self.centered else epsilon + space.unconstrained

    def perturbed_gradients(
        self,
        network: Network,
        x: Any,
        y: Any,
        sample_weight: Any,
        variables: list[keras.Variable],
        scale_loss: Callable[[tf.Tensor], tf.Tensor],
    ) -> tuple[tf.Tensor, Any, list[tf.Tensor | None]]:
        """Compute gradients of L_T(λ + ε, r(λ + ε)) at fresh perturbations (Eq. 3.10).

        Every example has an ε of its own.

        Args:
            network: The network.
            x, y, sample_weight: A training batch.
            variables: Variables with respect to which the loss is differentiated.
            scale_loss: Function that is applied to the loss first: `scale_loss` of the
                optimizer that gets the gradients.

        Returns:
            The loss, a scalar; the predictions; and one gradient per variable.
        """
        space = network.hyperparameters
        epsilon = tf.stop_gradient(space.sample(batch_size(x)))
        moved = tf.stop_gradient(epsilon + space.unconstrained)
        attributes = {
            "delta": self.train_delta(space, epsilon),
            "values": space.constrain(moved),
        }
        if self.linearized:
            loss, predictions, gradients = linearized_gradients(
                network, x, y, sample_weight, variables, scale_loss, **attributes
            )
        else:
            sources = [v.value for v in variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                with begin_pass(**attributes):
                    predictions = network(x, training=True)
                    loss = network.compute_loss(
                        x, y, predictions, sample_weight, training=True
                    )
                scaled = scale_loss(loss)
            gradients = tape.gradient(scaled, sources)
        return loss, predictions, all_at_once(gradients)

    def update_jointly(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """Train weights and response on the same perturbed pass.

        Args:
            network: The network.
            x, y, sample_weight: A training batch.

        Returns:
            The loss, a scalar, and the predictions.
        """
        weights, response = network.weights, network.response_variables
        optimizer, other = network.optimizer, network.response_optimizer
        loss, predictions, gradients = self.perturbed_gradients(
            network, x, y, sample_weight, weights + response, optimizer.scale_loss
        )
        of_response = rescale_gradients(gradients[len(weights) :], optimizer, other)
        optimizer.apply(gradients[: len(weights)], weights)
        other.apply(of_response, response)
        return loss, predictions

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """Descend L_V(λ + ε, r(λ + ε)) − τ H[p(ε|σ)] in λ and σ (Alg. 1, lower half).

        The network is perturbed, in inference mode and not linearised. L_V has no noise
        and no penalties. Arguments as in `Method`; the logs are empty.
        """
        x, y, sample_weight = validation
        space = network.hyperparameters
        variables = self.tuned_variables(space)
        tuned = [v.value for v in variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tuned)
            moved = tf.convert_to_tensor(space.unconstrained)
            if self.centered:
                moved -= tf.stop_gradient(moved)
            delta = space.sample(batch_size(x)) + moved
            attributes = {
                "delta": delta,
                "penalties": False,
                "losses": None if network.objective.added_losses else (),
                "current": space.current_at_once(),
            }
            with begin_pass(**attributes), network.single_precision():
                predictions = network(x, training=False)
                loss = network.compute_outer_loss(x, y, predictions, sample_weight)
            complexity = _replicas.take_share(tf.cast(space.complexity(), loss.dtype))
            objective = loss + self.entropy_weight * complexity
            # The identity, unless the optimizer divides gradients by a scale.
            objective = network.hyper_optimizer.scale_loss(objective)
        gradients = tape.gradient(objective, tuned, unconnected_gradients="zero")
        gradients[1] = space.mask_fixed_scales(gradients[1])
        network.hyper_optimizer.apply(all_at_once(gradients), variables)
        return {}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this method again."""
        return {**super().get_config(), "entropy_weight": self.entropy_weight}


def rescale_gradients(
    gradients: list[tf.Tensor | None],
    given: keras.optimizers.Optimizer,
    wanted: keras.optimizers.Optimizer,
) -> list[tf.Tensor | None]:
    """Return gradients of a loss that one optimizer scaled as if another had done so.

    Args:
        gradients: List of gradients; `None` for a variable without effect.
        given: Optimizer whose `scale_loss` was applied.
        wanted: Optimizer that gets the gradients, and takes its own scale out of them.
    """
    kinds = (type(given), type(wanted))
    if keras.optimizers.LossScaleOptimizer not in kinds:
        return gradients
    one = tf.ones([])
    ratio = wanted.scale_loss(one) / given.scale_loss(one)
    dense = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
    return [g if g is None else g * tf.cast(ratio, g.dtype) for g in dense]


def batch_size(x: Any) -> tf.Tensor:
    """Return the size of the leading axis that all inputs share, a scalar."""
    return tf.shape(keras.tree.flatten(x)[0])[0]
