"""An inner loss in its parts."""


class ComposedLoss:
    """An inner loss in its parts: `loss(predict(w, h), h) + penalty(w, h)`.

    Args:
        predict: Function of weights and hyperparameters that returns the outputs, a
            tensor.
        loss: Function of outputs and hyperparameters that returns a scalar.
        penalty: Optional function of weights and hyperparameters that returns a
            scalar.

    Example:

    >>> ComposedLoss(
    ...     predict=lambda w, h: x @ w,
    ...     loss=lambda outputs, h: tf.reduce_mean((outputs - y) ** 2),
    ...     penalty=lambda w, h: h * tf.reduce_sum(w**2))
    """

    def __init__(self, predict, loss, penalty=None):
        self.predict = predict
        self.loss = loss
        self.penalty = penalty

    def __call__(self, weights, hyperparameters, step=None):
        value = self.loss(self.predict(weights, hyperparameters), hyperparameters)
        if self.penalty is None:
            return value
        return value + self.penalty(weights, hyperparameters)

    def on_lists(self, pack):
        """The same on flat lists, `pack` making the structures of these."""
        loss = self.loss
        return ComposedLoss(
            lambda w, h: self.predict(*pack(w, h)),
            lambda outputs, h: loss(outputs, pack(None, h)[1]),
            self.penalty and (lambda w, h: self.penalty(*pack(w, h))),
        )
