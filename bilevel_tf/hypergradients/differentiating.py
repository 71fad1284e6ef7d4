"""What the methods share that differentiate the training of any model."""

from bilevel_tf.hypergradients.method import Method


class Differentiating(Method):
    """Finds dQ/dλ of a `Problem`; needs no special layers.

    A subclass gives `hypergradient(problem)`. In `fit`, the inner step is Keras's own;
    the outer step makes a `Problem` of a validation batch and fresh training batches,
    with the current weights, and hands dQ/dλ to the hyper-optimizer.

    Attributes:
        inner_batches: Training batches that an outer step needs.
        needs_optimizer: Whether the method differentiates optimizer steps.
    """

    inner_batches = 1
    needs_optimizer = False

    def hypergradient(self, problem):
        """dQ/dλ of a `Problem`.

        Returns:
            A `Hypergradient`, whose gradients and weights are flat lists.
        """
        raise NotImplementedError
