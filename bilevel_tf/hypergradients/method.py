"""The protocol of all methods."""


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
    """

    def __init__(self, train_steps=5, valid_steps=1, warmup_epochs=0):
        self.train_steps = count(train_steps, "train_steps", 1)
        self.valid_steps = count(valid_steps, "valid_steps", 1)
        self.warmup_epochs = count(warmup_epochs, "warmup_epochs", 0)

    def build(self, model):
        """Check that the method can tune `model`, and create what it needs."""

    def inner_step(self, model, x, y, sample_weight):
        """Update the weights on a training batch.

        Returns:
            The training loss, a scalar, and the predictions, for the metrics.
        """
        raise NotImplementedError

    def outer_step(self, model, x, y, sample_weight):
        """Update the hyperparameters on a validation batch.

        Returns:
            The outer objective, a scalar.
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


def count(value, name, least):
    """Return `value`, or raise a `ValueError` unless it is a whole number ≥ `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"`{name}` must be a whole number, at least {least}. "
            f"Received: {name}={value!r}"
        )
    return value
