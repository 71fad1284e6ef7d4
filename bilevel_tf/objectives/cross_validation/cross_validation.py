"""Cross-validation: the loss on every fold of a model that was trained without it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.network.network import Network
from bilevel_tf.objectives.cross_validation import requirements
from bilevel_tf.objectives.cross_validation.fold_passes import (
    fold_losses,
    held_out_predictions,
)
from bilevel_tf.objectives.cross_validation.folds import class_labels, fold_numbers
from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("bilevel_tf")
class CrossValidation(Objective):
    """k-fold cross-validation in one fit, without validation data.

    The training data are split into k equal parts, the folds D_1 … D_k. The model is
    trained on all of them, and predicts. Beside it, k copies of its weights are
    trained: w_q on all folds but D_q. Hyperparameters are judged by what these copies
    predict for the folds that they have not seen:

        L(θ, h) = Σ_q (mean loss of w_q over D∖D_q + its penalties),  θ = [w_1 … w_k]
        Q(θ, h) = mean over all examples i of the loss of w_q(i), where i ∈ D_q(i)

    The gradient of L with respect to a copy is the one with which Keras would train it
    on D∖D_q. Q is taken in inference mode and without penalties; the logs show it as
    "cv_loss". Hyperparameters are chosen by this score; for an unbiased estimate keep a
    test set.

    **Copies.** They start at the weights that the model has when it is compiled, which
    should not have seen the data. There is one variable `[k, *shape]` per weight. One
    copy of the optimizer, which follows the learning rate of the original, trains them
    on the batches of the model. All are saved with the model. A step costs as much as
    those of k + 1 models, and weights and optimizer take k + 1 times the memory. Passes
    are vectorised over k, except in networks with convolutions, which take one copy
    after the other. All copies share the random masks of a step.

    **Data.** `fit` takes arrays. The fold of an example depends only on its place in
    these arrays, the number of examples, `seed` and, if stratified, the classes;
    therefore continue a training with the same data. If a batch has no example outside
    of D_q, only the momentum moves w_q.

    Args:
        folds: k, the number of folds, a whole number from 2 to the number of examples,
            which is leave-one-out. Defaults to 5, a common choice between the cost of
            many copies and the bias of few.
        stratified: Whether all folds have the same shares of the classes. Defaults to
            `None`: `True` if the loss is a crossentropy and `y` are whole numbers or
            one-hot rows, otherwise `False`.
        seed: Seed with which the folds are drawn, a whole number from 0. Defaults to
            0 and not to a random one, because an interrupted training must go on with
            the same folds.

    Raises:
        ValueError: If an argument is out of range. At `compile`, if an example could
            reach the copy that must not see it: through an optimizer that does not
            treat every weight by itself, batch statistics, or a loss that is not a mean
            over examples. At `fit`, if there are fewer examples than folds or, when
            stratified, fewer examples of a class; or if the loss mixes examples.
        TypeError: At `fit`, if the data are not arrays.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile(
    ...     "sgd",
    ...     loss="mse",
    ...     method=bt.methods.T1T2(train_steps=1),
    ...     objective=bt.CrossValidation(folds=3),
    ... )
    >>> x, y = np.random.default_rng(0).normal(size=(2, 12, 3))
    >>> history = model.fit(x, y[:, :1], batch_size=6, verbose=0)
    >>> "cv_loss" in history.history
    True

    Reference:
        Stone, "Cross-validatory choice and assessment of statistical predictions",
        1974; as a bilevel problem: Bennett et al., "Model selection via bilevel
        optimization", 2006.
    """

    log_names = ("cv_loss",)

    def __init__(self, folds: int = 5, stratified: bool | None = None, seed: int = 0):
        self.folds = check_count(folds, "folds", 2)
        self.seed = check_count(seed, "seed", 0)
        if stratified not in (None, True, False):
            raise ValueError(
                "`stratified` must be True, False or None. "
                f"Received: stratified={stratified!r}"
            )
        self.stratified = stratified

    # Compilation

    def check(self, network: Network) -> None:
        """Check that neither model nor loss nor optimizer would mix the folds.

        Raises:
            ValueError: If one of them would.
        """
        requirements.check_strategy(network)
        requirements.check_layers(network)
        requirements.check_losses(network)
        requirements.check_optimizer(network.optimizer)

    def build(self, network: Network) -> None:
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

    def variables(self, network: Network) -> list[keras.Variable]:
        """Return the copies of the weights, `[k, *shape]` each."""
        weights = network.weights
        return [network.state(f"fold_{i}") for i in range(len(weights))]

    def optimizer(self, network: Network) -> Any:
        """Return the optimizer of the copies."""
        return network.objective_stepping_optimizer

    # Data

    def prepare(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[Any, Any, Any]:
        """Return the training data with the number of every example's fold.

        Args:
            network: The compiled network.
            x, y, sample_weight: As given to `fit`.

        Returns:
            A pair of x and the numbers, int32 `[n]`; y; and sample weights.

        Raises:
            TypeError: If the data are not arrays.
            ValueError: If there are too few examples, or the loss mixes examples.
        """
        requirements.check_arrays(x, y)
        examples = len(keras.tree.flatten(x)[0])
        if examples < self.folds:
            raise ValueError(
                "`folds` must be at most the number of examples. "
                f"Received: folds={self.folds}, and {examples} examples"
            )
        requirements.check_separable(network, x, y)
        labels = self._find_labels(network, y)
        numbers = fold_numbers(examples, self.folds, self.seed, labels)
        return (x, numbers), y, sample_weight

    def _find_labels(self, network: Network, y: Any) -> np.ndarray | None:
        """Find the classes to stratify by, or return `None`."""
        wanted = self.stratified
        if wanted is None:
            wanted = requirements.is_crossentropy(network.losses)
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
                "Use fewer folds, or stratified=False. "
                f"Received: folds={self.folds}, and a class of {least} examples"
            )
        return labels

    # Training

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """Take a step of the model on the batch, and one of each copy.

        Args:
            network: The network.
            x, y, sample_weight: A training batch; x is a pair with the fold numbers.

        Returns:
            The training loss of the model, a scalar, and its predictions.

        Raises:
            TypeError: If x has no fold numbers.
        """
        data = _check_numbered(x), y, sample_weight
        results = network.method.inner_step(network, data[0][0], y, sample_weight)
        batch = keras.tree.map_structure(
            lambda array: None if array is None else array[None], data
        )
        problem = network.problem(batch, None)
        gradients = problem.inner_gradients(problem.weights, problem.hyperparameters)
        # Wait for all gradients: a variable must not move while one still needs it.
        gradients = tf.tuple(gradients)
        network.objective_optimizer.apply(gradients, self.variables(network))
        return results

    def inner_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return L, the sum of the training losses of the copies.

        It is a sum and not a mean, so that a step along the gradient of L is a step of
        every copy along its own gradient, and so that damping and learning rates of
        methods mean the same as for one model. Arguments as in `Objective`, with
        weights `[k, *shape]` and x in a pair with the fold numbers.
        """
        losses = fold_losses(network, weights, hyperparameters, batch, self.folds)
        return tf.reduce_sum(losses)

    def outer_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return Q, the compiled loss of the predictions for held-out examples.

        Arguments as for `inner_loss`.
        """
        outputs = held_out_predictions(network, weights, hyperparameters, batch)
        return network.data_loss(outputs, hyperparameters, batch, training=False)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this objective again."""
        return {
            "folds": self.folds,
            "stratified": self.stratified,
            "seed": self.seed,
        }


class _InFolds(keras.constraints.Constraint):
    """Applies the constraint of one model's weight to the weights of all folds."""

    def __init__(self, constraint: keras.constraints.Constraint):
        self.constraint = constraint

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return tf.vectorized_map(self.constraint, tf.convert_to_tensor(w))


def _check_numbered(x: Any) -> tuple:
    """Return x if `prepare` has made it, or raise a `TypeError`."""
    if isinstance(x, tuple) and len(x) == 2:
        return x
    raise TypeError(
        "With CrossValidation a training batch must say which fold every example is "
        "in: train with `fit`. Received: a batch without these numbers"
    )
