"""An inner loss in its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class ComposedLoss:
    """An inner loss in its parts: `loss(predict(w, h), h) + penalty(w, h)`.

    `GaussNewton` needs to know where the network ends and the loss begins. All other
    methods take a `ComposedLoss` as they take a function.

    Args:
        predict: Function of weights and hyperparameters that returns the outputs, a
            tensor or a structure (list, dict, …) of tensors.
        loss: Function of outputs and hyperparameters that returns a scalar.
        penalty: Function of weights and hyperparameters that returns a scalar. Defaults
            to `None`: no penalty.

    Example:

    >>> x, y = tf.constant([[1.0], [1.0]]), tf.constant([[1.0], [3.0]])
    >>> inner_loss = bt.methods.ComposedLoss(
    ...     predict=lambda w, h: x @ w,
    ...     loss=lambda outputs, h: tf.reduce_mean((outputs - y) ** 2),
    ...     penalty=lambda w, h: h * tf.reduce_sum(w**2))
    >>> float(inner_loss(tf.constant([[1.0]]), tf.constant(0.5)))
    2.5
    """

    def __init__(
        self,
        predict: Callable[[Any, Any], Any],
        loss: Callable[[Any, Any], tf.Tensor],
        penalty: Callable[[Any, Any], tf.Tensor] | None = None,
    ):
        self.predict = predict
        self.loss = loss
        self.penalty = penalty

    def __call__(
        self,
        weights: Any,
        hyperparameters: Any,
        step: int | tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The inner loss, a scalar.

        Args:
            weights: The weights, structured as `predict` and `penalty` expect them.
            hyperparameters: The hyperparameters, likewise.
            step: The number of the step. It is not used.
        """
        value = self.loss(self.predict(weights, hyperparameters), hyperparameters)
        if self.penalty is None:
            return value
        return value + self.penalty(weights, hyperparameters)

    def on_lists(self, pack: Callable) -> ComposedLoss:
        """The same loss as a function of flat lists.

        Args:
            pack: Function that packs flat lists of weights (or `None`) and
                hyperparameters into the structures that the parts expect.
        """
        loss, penalty = self.loss, self.penalty
        return ComposedLoss(
            lambda w, h: self.predict(*pack(w, h)),
            lambda outputs, h: loss(outputs, pack(None, h)[1]),
            penalty and (lambda w, h: penalty(*pack(w, h))),
        )
