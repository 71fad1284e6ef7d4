"""What the methods share that fit a best response: STN, Δ-STN and their kin."""

import keras
import tensorflow as tf

from bilevel_tf._arguments import non_negative
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.layers.response.structured import StructuredResponse
from bilevel_tf.methods.best_response.reach import (
    check_factors_scalar,
    check_penalties_respond,
)
from bilevel_tf.methods.method import Method, all_at_once, check_optimizer_not_tuned
from bilevel_tf.network.linearized_pass import linearized_gradients
from bilevel_tf.network.output_heads import check_outputs_linearize


class BestResponse(Method):
    """Fits Θ next to the weights and descends L_V(λ + ε, r(λ + ε)) in λ and σ.

    Args:
        train_steps: T_train, inner steps per round. Defaults to 5, the paper's.
        valid_steps: T_valid, outer steps per round. Defaults to 1, the paper's.
        entropy_weight: τ of Eq. 2.7, weight of the perturbation's entropy, or of the
            KL divergence from a prior. Defaults to 1e-3, the paper's on images.
        warmup_epochs: Epochs at the start in which λ and σ stay fixed while weights
            and response are trained. Defaults to 0.

    Raises:
        ValueError: If an argument is out of its range.
    """

    response_class = StructuredResponse
    centered = True
    linearized = False

    def __init__(
        self, train_steps=5, valid_steps=1, entropy_weight=1e-3, warmup_epochs=0
    ):
        super().__init__(train_steps, valid_steps, warmup_epochs)
        self.entropy_weight = non_negative(entropy_weight, "entropy_weight")

    def check(self, network):
        """Check that the weights can respond to the hyperparameters.

        Raises:
            ValueError: If there is no hyper-layer, or if a weight penalty with a
                tuned factor is on a weight that cannot respond.
        """
        check_optimizer_not_tuned(network, self)
        if not network.responding_layers:
            raise ValueError(
                f"{type(self).__name__} needs layers that respond to the "
                "hyperparameters, and the model has none (or all are frozen). Use "
                "bilevel_tf.HyperDense or HyperConv2D, or convert the model with "
                "BilevelModel.from_keras."
            )
        check_penalties_respond(network)
        check_factors_scalar(network, self)
        if self.linearized:
            check_outputs_linearize(keras.tree.flatten(network.outputs))

    def build(self, network):
        """Attach a response to every layer that can respond."""
        self.attach_responses(network.responding_layers, network.hyperparameters.size)

    def attach_responses(self, layers, size):
        """Give hyper-layers responses to `size` unconstrained hyperparameters."""
        arguments = self.response_arguments()
        for layer in layers:
            layer.attach_response(self.response_class, size, **arguments)

    def response_arguments(self):
        """Arguments of a new response, beside its size."""
        return {}

    def prediction_delta(self, space):
        """`None` when centered: Δw = 0 at the current λ. Else λ itself."""
        return (
            None if self.centered else tf.convert_to_tensor(space.unconstrained)[None]
        )

    def tuned_variables(self, space):
        """λ and the raw perturbation scale."""
        return [space.unconstrained, space.raw_perturbation_scale]

    def train_delta(self, space, epsilon):
        """δ of a training pass: ε when centered, λ + ε when not."""
        return epsilon if self.centered else epsilon + space.unconstrained

    def perturbed_gradients(self, network, x, y, sample_weight, variables, scale_loss):
        """Gradients of L_T(λ + ε, r(λ + ε)), one fresh ε per example (Eq. 3.10).

        Args:
            variables: What to differentiate with respect to.
            scale_loss: Function applied to the loss first, an optimizer's.

        Returns:
            Loss, predictions, gradients.
        """
        space = network.hyperparameters
        epsilon = tf.stop_gradient(space.sample(batch_size(x)))
        values = space.constrain(epsilon + space.unconstrained)
        attributes = {
            "delta": self.train_delta(space, epsilon),
            "values": tf.nest.map_structure(tf.stop_gradient, values),
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

    def update_jointly(self, network, x, y, sample_weight):
        """Weights and response on the same perturbed pass."""
        weights, response = network.weights, network.response_variables
        loss, predictions, gradients = self.perturbed_gradients(
            network,
            x,
            y,
            sample_weight,
            weights + response,
            network.optimizer.scale_loss,
        )
        network.optimizer.apply(gradients[: len(weights)], weights)
        network.response_optimizer.apply(gradients[len(weights) :], response)
        return loss, predictions

    def outer_step(self, network, validation, training):
        """λ, σ ← a step on L_V(λ + ε, r(λ + ε)) − τ H[p(ε|σ)] (Alg. 1, lower half).

        The network is the perturbed one, in inference mode and not linearised. Noise
        and penalties are no part of L_V.
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
            with begin_pass(delta=delta, penalties=False):
                predictions = network(x, training=False)
                loss = network.compute_loss(
                    x, y, predictions, sample_weight, training=False
                )
            complexity = tf.cast(space.complexity(), loss.dtype)
            objective = loss + self.entropy_weight * complexity
        gradients = tape.gradient(objective, tuned, unconnected_gradients="zero")
        gradients[1] = space.mask_fixed_scales(gradients[1])
        network.hyper_optimizer.apply(all_at_once(gradients), variables)
        return {}

    def get_config(self):
        return {**super().get_config(), "entropy_weight": self.entropy_weight}


def batch_size(x):
    """Size of the leading axis that all inputs share."""
    return tf.shape(keras.tree.flatten(x)[0])[0]
