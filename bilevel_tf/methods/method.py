"""The protocol of all methods."""

import tensorflow as tf

from bilevel_tf._arguments import count
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.methods.unknown_arguments import refuse_unknown


class Method:
    """One round: some inner steps, then outer steps on a hypergradient.

    A `BilevelModel` calls `build` when it is compiled, `inner_step` on every training
    batch, and after every `train_steps` of these `outer_step` on `valid_steps`
    validation batches. The last two are traced into `tf.function`s.

    Args:
        train_steps: T_train, inner steps per round.
        valid_steps: T_valid, outer steps per round.
        warmup_epochs: Epochs at the start in which hyperparameters stay fixed.

    Raises:
        ValueError: If a count is not a whole number, or too small.
        TypeError: If the class has no argument of that name.

    Attributes:
        inner_batches: Fresh training batches that an outer step needs, or 0.
        fixed_batches: Whether these are the same ones for all outer steps.
        log_names: Names of what `outer_step` returns.
    """

    inner_batches = 0
    fixed_batches = False
    log_names = ()

    def __init__(self, train_steps=5, valid_steps=1, warmup_epochs=0, **unknown):
        refuse_unknown(type(self), unknown)
        self.train_steps = count(train_steps, "train_steps", 1)
        self.valid_steps = count(valid_steps, "valid_steps", 1)
        self.warmup_epochs = count(warmup_epochs, "warmup_epochs", 0)

    def build(self, model):
        """Check that the method can tune `model`, and create what it needs."""

    def tuned_variables(self, space):
        """The variables of the space that the hyper-optimizer updates."""
        return [space.unconstrained]

    def inner_step(self, model, x, y, sample_weight):
        """Update the weights on a training batch: here w ← w − α ∇L_T(λ, w).

        Returns:
            The training loss, a scalar, and the predictions, for the metrics.
        """
        variables = model.trainable_variables
        with tf.GradientTape() as tape, begin_pass():
            predictions = model(x, training=True)
            loss = model.compute_loss(x, y, predictions, sample_weight, training=True)
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        model.optimizer.apply(all_at_once(gradients), variables)
        return loss, predictions

    def outer_step(self, model, validation, training):
        """Update the hyperparameters on a validation batch.

        Args:
            model: The model.
            validation: x, y and sample weights.
            training: The same of `inner_batches` fresh training batches, stacked
                along a new first axis; `None` where that is 0.

        Returns:
            Logs: scalars by name.
        """
        raise NotImplementedError

    def prediction_delta(self, space):
        """δ of shape `[1, h]` at which the model predicts; `None` for δ = 0."""
        return None

    def get_config(self):
        """Arguments to make this method again."""
        return {
            "train_steps": self.train_steps,
            "valid_steps": self.valid_steps,
            "warmup_epochs": self.warmup_epochs,
        }

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)


def all_at_once(gradients):
    """The gradients, none of which is there before all of them are.

    A variable must not be updated while the gradient of another is still computed from
    it. TensorFlow orders this, but with static shapes its graph optimizers drop an
    order that they had found to be implied by a shape which they then fold away.
    """
    return tf.tuple(gradients)
