"""The protocol of all objectives."""


class Objective:
    """Q, by which hyperparameters are judged, and L, which trains the weights for it.

    A `BilevelModel` calls `check` and `build` when it is compiled, before its method
    is built, `prepare` on the data given to `fit`, `inner_step` on every training
    batch. Methods that differentiate training ask for `inner_loss` and `outer_loss`,
    which are traced into `tf.function`s. It keeps nothing of a model, so that one
    object can judge several.

    Attributes:
        judged_on: Which data outer batches are drawn from: "validation" or "training".
        responds: Whether methods that fit a best response can use the objective.
        suggested_method: A method that fits, as a user would write it.
        log_names: Names of what `logs` returns.
    """

    judged_on = "training"
    responds = False
    suggested_method = "bilevel_tf.ConjugateGradient()"
    log_names = ()

    def build(self, model):
        """Create what it needs.

        That is `model.add_method_state` for variables and `model.add_optimizer` for
        what trains them. A model that is made from its config, to be compiled later or
        not at all, builds this as well; its `stepping_optimizer` is then `None`.
        """

    def check(self, model):
        """Raise a `ValueError` if the compiled model cannot be judged by this."""

    def variables(self, model):
        """The trained variables θ that L and Q are functions of."""
        return model.trainable_variables

    def optimizer(self, model):
        """What trains them: a Keras optimizer or a `TunedOptimizer`."""
        return model.stepping_optimizer

    def prepare(self, model, x, y, sample_weight):
        """The training data in the form in which `inner_step` and the losses take it.

        Args:
            model: The compiled model.
            x, y, sample_weight: As given to `fit`, after `validation_split`.

        Returns:
            The three of them.
        """
        return x, y, sample_weight

    def inner_step(self, model, x, y, sample_weight):
        """Train on a batch.

        Returns:
            The training loss, a scalar, and the predictions, for the metrics.
        """
        return model.method.inner_step(model, x, y, sample_weight)

    def inner_loss(self, network, weights, hyperparameters, batch):
        """L, a scalar: here the training loss of `fit`.

        Args:
            network: The model as a `StatelessModel`.
            weights: Values of `variables`, a list of tensors.
            hyperparameters: Values of the hyperparameters, a list of tensors.
            batch: x, y and sample weights.
        """
        return network.loss(weights, hyperparameters, batch, training=True)

    def outer_loss(self, network, weights, hyperparameters, batch):
        """Q, a scalar to be minimised; arguments as of `inner_loss`."""
        raise NotImplementedError

    def logs(self, model, outer_loss):
        """What `fit` shows of a Q that an outer step has found, scalars by name."""
        return dict.fromkeys(self.log_names, outer_loss)

    def get_config(self):
        """Arguments to make this objective again."""
        return {}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)
