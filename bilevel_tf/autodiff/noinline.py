"""Functions that TensorFlow is not to merge with the graph that calls them."""

import tensorflow as tf


def apart(function):
    """`function` as a graph of its own, for the body of a loop.

    In a graph that it expects to take 200 MB or more, TensorFlow sums three or more
    tensors in a temporary. If the first of them is a variable of a loop, it makes that
    temporary once more than there are passes, and the next call of the graph fails
    with an `AlreadyExistsError`. A cotangent is such a variable and such a term, for
    x_{t+1} is x_t and more. It does not look for sums across calls that it must not
    inline.
    """
    return tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )
