"""The loss on every part of the data of a model that was trained without it."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import count
from bilevel_tf.objectives.cross_validation import fold_checks
from bilevel_tf.objectives.cross_validation.fold_passes import (
    fold_losses,
    held_out_predictions,
)
from bilevel_tf.objectives.cross_validation.folds import class_labels, fold_numbers
from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("bilevel_tf")
class CrossValidation(Objective):
    """k-fold cross-validation in one fit, without validation data.

    The training data are split into k equal parts D_1 … D_k. Beside the model, which
    is trained on all of them and is what predicts, k copies of its weights are trained,
    w_q on all parts but D_q. Hyperparameters are judged by what these copies predict
    for the parts that they have not seen:

        L(θ, h) = Σ_q (mean loss of w_q over D∖D_q + its penalties),  θ = [w_1 … w_k]
        Q(θ, h) = mean over all examples i of the loss of w_q(i), where i ∈ D_q(i)

    Each copy's gradient in L is what Keras would train it by on D∖D_q. Q is in
    inference mode and without penalties, and in the logs as "cv_loss". That is the
    score hyperparameters were chosen by; keep a test set for a fair figure.

    The copies start at the weights that the model has when it is compiled, which should
    not have seen the data. They are one variable `[k, *shape]` per weight, trained by
    one copy of the optimizer, at its learning rate, on the batches of the model; all
    are saved with it. A step costs that of k + 1 models, and memory k + 1 times weights
    and optimizer. Passes are vectorised over k, but in networks with convolutions,
    which take one copy after the other. All k share the random masks of a step.

    `fit` takes arrays. Which part an example is in depends on its place in these, the
    number of examples and `seed` alone (and the classes): go on with the same data.
    A batch without any example outside of D_q leaves w_q to its momentum.

    Args:
        folds: k, a whole number of at least 2 and at most the number of examples;
            that is leave-one-out. Defaults to 5.
        stratified: Whether all parts have the classes in equal shares. Defaults to
            `None`: where the loss is a crossentropy and `y` whole numbers or one-hot.
        seed: What the parts are drawn with, a whole number from 0. Defaults to 0, not
            to chance: an interrupted training must go on with the same parts.

    Raises:
        ValueError: If an argument is out of range. At `compile`, for what would let an
            example reach the copy that must not see it: an optimizer that does not
            treat every weight by itself, batch statistics, a loss that is no mean over
            examples. At `fit`, if there are fewer examples, or of a class under
            stratification, than parts; or if the loss mixes examples.
        TypeError: At `fit`, if the data are not arrays.

    Example:

    >>> model.compile("adam", loss="mse", method=bt.ConjugateGradient(),
    ...               objective=bt.CrossValidation(folds=10))
    >>> model.fit(x, y, epochs=100)

    Reference:
        Stone, "Cross-validatory choice and assessment of statistical predictions",
        1974; as a bilevel problem: Bennett et al., "Model selection via bilevel
        optimization", 2006.
    """

    log_names = ("cv_loss",)

    def __init__(self, folds=5, stratified=None, seed=0):
        self.folds = count(folds, "folds", 2)
        self.seed = count(seed, "seed", 0)
        if stratified not in (None, True, False):
            raise ValueError(
                "`stratified` must be True, False or None. "
                f"Received: stratified={stratified!r}"
            )
        self.stratified = stratified

    # Compilation

    def check(self, network):
        """Check that neither model nor loss nor optimizer would mix the folds."""
        fold_checks.check_strategy(network)
        fold_checks.check_layers(network)
        fold_checks.check_losses(network)
        fold_checks.check_optimizer(network.optimizer)

    def build(self, network):
        """Make the k copies of the weights, and their optimizer."""
        weights = network.weights
        for i, weight in enumerate(weights):
            shape = (self.folds, *weight.shape)
            variable = network.add_state(f"fold_{i}", shape, weight.dtype)
            variable.assign(tf.repeat(weight.value[None], self.folds, 0))
            if weight.constraint is not None:
                variable.constraint = _InFolds(weight.constraint)
        if network.compiled:
            network.add_optimizer(self.variables(network), weights)

    def variables(self, network):
        """The copies of the weights, `[k, *shape]` each."""
        weights = network.weights
        return [network.state(f"fold_{i}") for i in range(len(weights))]

    def optimizer(self, network):
        """What trains the copies."""
        return network.objective_stepping_optimizer

    # Data

    def prepare(self, network, x, y, sample_weight):
        """The same, with x in a tuple with the number of every example's part."""
        fold_checks.check_arrays(x, y)
        examples = len(keras.tree.flatten(x)[0])
        if examples < self.folds:
            raise ValueError(
                "`folds` must be at most the number of examples. "
                f"Received: folds={self.folds}, and {examples} examples"
            )
        fold_checks.check_separable(network, x, y)
        labels = self._labels(network, y)
        numbers = fold_numbers(examples, self.folds, self.seed, labels)
        return (x, numbers), y, sample_weight

    def _labels(self, network, y):
        """Classes to stratify by, or `None`."""
        wanted = self.stratified
        if wanted is None:
            wanted = fold_checks.is_crossentropy(network.losses)
        labels = class_labels(y) if wanted else None
        if labels is None and self.stratified:
            raise ValueError(
                "`stratified=True` needs `y` to be classes: one array of whole "
                "numbers, [examples] or [examples, 1], or one-hot. "
                f"Received: y of shape {getattr(y, 'shape', None)}"
            )
        least = self.folds if labels is None else np.bincount(labels).min()
        if least < self.folds:
            raise ValueError(
                "Under stratification every class must have an example for every fold. "
                f"Received: folds={self.folds}, and a class of {least} examples. Use "
                "fewer folds, or stratified=False."
            )
        return labels

    # Training

    def inner_step(self, network, x, y, sample_weight):
        """A step of the model on the batch, and one of each copy."""
        data = _packed(x), y, sample_weight
        results = network.method.inner_step(network, data[0][0], y, sample_weight)
        batch = keras.tree.map_structure(
            lambda array: None if array is None else array[None], data
        )
        problem = network.problem(batch, None)
        gradients = problem.inner_gradients(problem.weights, problem.hyperparameters)
        # All of them before a variable moves that another is computed from.
        gradients = tf.tuple(gradients)
        network.objective_optimizer.apply(gradients, self.variables(network))
        return results

    def inner_loss(self, network, weights, hyperparameters, batch):
        """L: the sum over the copies of their training losses.

        Not the mean: a step along its gradient is then a step of every copy along its
        own, and damping or learning rates in methods mean what they mean for one.
        """
        losses = fold_losses(network, weights, hyperparameters, batch, self.folds)
        return tf.reduce_sum(losses)

    def outer_loss(self, network, weights, hyperparameters, batch):
        """Q, the compiled loss of held-out predictions."""
        outputs = held_out_predictions(network, weights, hyperparameters, batch)
        return network.data_loss(outputs, hyperparameters, batch, training=False)

    def get_config(self):
        return {
            "folds": self.folds,
            "stratified": self.stratified,
            "seed": self.seed,
        }


class _InFolds(keras.constraints.Constraint):
    """A constraint of one model's weight, for those of all folds."""

    def __init__(self, constraint):
        self.constraint = constraint

    def __call__(self, w):
        return tf.vectorized_map(self.constraint, tf.convert_to_tensor(w))


def _packed(x):
    """x if `prepare` has made it, or raise a `TypeError`."""
    if isinstance(x, tuple) and len(x) == 2:
        return x
    raise TypeError(
        "With CrossValidation a training batch must say which fold every example is "
        "in: train with `fit`. Received: a batch without these numbers"
    )
