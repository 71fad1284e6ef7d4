"""Inner problems solved to convergence, for examples that need the exact answer."""

import tensorflow as tf
import tensorflow_probability as tfp


def minimiser(loss, tolerance=1e-8, iterations=5000):
    """Return a compiled function that minimises a smooth loss.

    Args:
        loss: Function of a list of weights and of hyperparameters; returns a scalar.
        tolerance: Stop when no entry of the gradient is larger. Defaults to 1e-8.
        iterations: Largest number of L-BFGS iterations. Defaults to 5000.

    Returns:
        Function of two arguments: a list of tensors to start from, and the
        hyperparameters. It returns the weights at the minimum, and the largest entry
        of the gradient there.
    """

    @tf.function(autograph=False)
    def minimise(start, hyperparameters):
        # L-BFGS calls it in many places: the graph would be large with it inlined.
        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def value_and_gradient(vector):
            with tf.GradientTape() as tape:
                tape.watch(vector)
                value = loss(_unflatten(vector, start), hyperparameters)
            return value, tape.gradient(value, vector)

        found = tfp.optimizer.lbfgs_minimize(
            value_and_gradient,
            initial_position=tf.concat([tf.reshape(w, [-1]) for w in start], 0),
            tolerance=tolerance,
            max_iterations=iterations,
        )
        slope = tf.reduce_max(tf.abs(found.objective_gradient))
        return _unflatten(found.position, start), slope

    return minimise


def _unflatten(vector, like):
    parts = tf.split(vector, [w.shape.num_elements() for w in like])
    return [tf.reshape(p, w.shape) for p, w in zip(parts, like, strict=True)]
