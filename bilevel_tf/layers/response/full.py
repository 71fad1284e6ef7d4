"""A full linear response."""

import keras
import tensorflow as tf

from bilevel_tf.layers.response.response import Response


class FullResponse(Response):
    """The full linear Θ of Lorraine & Duvenaud (2018): h copies of every weight.

    Starts as N(0, 0.01²), as theirs. For small models: memory and time grow with h.
    """

    def build_for(self, layer):
        normal = keras.initializers.RandomNormal(stddev=0.01)
        shape = (self.size, *layer.kernel.shape)
        self.kernel = self._add("kernel", shape, normal, layer.dtype)
        if layer.use_bias:
            shape = (self.size, *layer.bias.shape)
            self.bias = self._add("bias", shape, normal, layer.dtype)
        self.built = True

    def output_term(self, layer, inputs, delta):
        rank = inputs.shape.rank
        kernels = tf.unstack(tf.convert_to_tensor(self.kernel))
        term = tf.add_n(
            [
                layer.per_example(delta[:, k : k + 1], rank)
                * layer.apply_kernel(inputs, kernel)
                for k, kernel in enumerate(kernels)
            ]
        )
        if layer.use_bias:
            term += layer.per_example(tf.matmul(delta, self.bias), rank)
        return term

    def shift(self, which, delta):
        return tf.tensordot(delta[0], getattr(self, which), 1)

    def inner(self, which, direction, delta):
        rows = self._rows(which)
        products = tf.linalg.matvec(rows, tf.reshape(direction, [-1]))
        return tf.linalg.matvec(delta, products)

    def squared_norm(self, which, delta):
        rows = self._rows(which)
        gram = tf.matmul(rows, rows, transpose_b=True)
        return tf.reduce_sum(tf.matmul(delta, gram) * delta, -1)

    def _rows(self, which):
        return tf.reshape(getattr(self, which), [self.size, -1])
