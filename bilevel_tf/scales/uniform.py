"""A number in an interval."""

import keras

from bilevel_tf.scales.interval import Interval, stretched_sigmoid


@keras.saving.register_keras_serializable("bilevel_tf")
class Uniform(Interval):
    """A number in an open interval; free through a stretched sigmoid.

    Args:
        low: Lower end, never reached.
        high: Upper end, never reached.
        initial: Initial value, strictly inside the interval. A list or array makes
            the hyperparameter vector-valued.
        **kwargs: See `Scale`.

    Example:

    >>> dropout = Uniform(0.0, 0.95, initial=0.05)
    """

    def bijector(self, dtype):
        return stretched_sigmoid(self.low, self.high, dtype)
