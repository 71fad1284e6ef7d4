"""How a learning rate moves along its hypergradient, as functions of tensors."""

import keras
import tensorflow as tf

RULES = ("additive", "multiplicative")


def rate_hypergradient(
    pairs: list[tuple[tf.Tensor, tf.Tensor]], rule: str, elementwise: bool
) -> tf.Tensor:
    """Return h_t = ∇L · d_{t−1}, the derivative of the loss in a rate.

    Args:
        pairs: The gradient and the last direction of every weight with this rate.
        rule: "additive" for h itself, "multiplicative" for h / (‖∇L‖ ‖d_{t−1}‖), which
            lies between −1 and 1.
        elementwise: Whether every entry of a weight has a rate of its own. There is
            then one pair, and h has the shape of the weight. Otherwise h is a scalar.
    """

    def multiply(a, b):
        a, b = (tf.cast(x, keras.backend.floatx()) for x in (a, b))
        return a * b if elementwise else tf.reduce_sum(a * b)

    inner = tf.add_n([multiply(g, d) for g, d in pairs])
    if rule == "additive":
        return inner
    # The root of the product of both squares could underflow.
    gradient = tf.sqrt(tf.add_n([multiply(g, g) for g, _ in pairs]))
    direction = tf.sqrt(tf.add_n([multiply(d, d) for _, d in pairs]))
    return tf.math.divide_no_nan(inner, gradient * direction)


def next_rate(
    rate: tf.Tensor,
    hypergradient: tf.Tensor,
    rule: str,
    step_size: float,
    clipvalue: float | None,
    bounds: tuple[float, float],
) -> tf.Tensor:
    """Return α_t from α_{t−1}; it stays if the hypergradient is NaN or infinite.

    Args:
        rate: α_{t−1}, a scalar or a tensor with the shape of a weight.
        hypergradient: As `rate_hypergradient` returns it.
        rule: "additive" or "multiplicative".
        step_size: β.
        clipvalue: Largest absolute value of the hypergradient; `None` for no limit.
        bounds: The lowest and the highest rate.
    """
    change = hypergradient
    if clipvalue is not None:
        change = tf.clip_by_value(change, -clipvalue, clipvalue)
    if rule == "multiplicative":
        change *= rate
    stepped = tf.clip_by_value(rate - step_size * change, *bounds)
    return tf.where(tf.math.is_finite(hypergradient), stepped, rate)
