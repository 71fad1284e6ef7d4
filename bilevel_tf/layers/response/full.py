"""A full linear response."""

import keras
import tensorflow as tf

from bilevel_tf.layers.response.response import Response, read


class FullResponse(Response):
    """The full linear Θ of Lorraine & Duvenaud (2018): h copies of the weight.

    Θ starts as N(0, 0.01²), as theirs. It is for small models: memory and time grow
    with h.

    Args:
        linear_map: How the layer applies the weight.
        size: h, the number of unconstrained hyperparameters.
        **kwargs: `name` and `dtype` of `keras.layers.Layer`.

    Reference:
        Lorraine & Duvenaud, "Stochastic hyperparameter optimization through
        hypernetworks", 2018.
    """

    def build_for(self, layer: keras.Layer, fan_in: int) -> None:
        shape = getattr(layer, self.linear_map.weight).shape
        normal = keras.initializers.RandomNormal(stddev=0.01)
        self.jacobian = self._add("jacobian", (self.size, *shape), normal)
        self.built = True

    def term(self, inputs: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        return self.linear_map.mixed(inputs, read(self.jacobian, delta), delta)

    def shift(self, delta: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(delta[0], read(self.jacobian, delta), 1)

    def inner(self, direction: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        products = tf.linalg.matvec(self._rows(delta), tf.reshape(direction, [-1]))
        return tf.linalg.matvec(delta, products)

    def squared_norm(self, delta: tf.Tensor) -> tf.Tensor:
        rows = self._rows(delta)
        gram = tf.matmul(rows, rows, transpose_b=True)
        return tf.reduce_sum(tf.matmul(delta, gram) * delta, -1)

    def _rows(self, delta):
        return tf.reshape(read(self.jacobian, delta), [self.size, -1])
