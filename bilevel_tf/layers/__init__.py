"""Layers whose weights respond, whose noise is tuned, or whose weights are random."""

from bilevel_tf.layers.hyper.conv2d import HyperConv2D
from bilevel_tf.layers.hyper.dense import HyperDense
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.noise.dropout import HyperDropout
from bilevel_tf.layers.noise.gaussian_noise import HyperGaussianNoise
from bilevel_tf.layers.variational.conv2d import VariationalConv2D
from bilevel_tf.layers.variational.dense import VariationalDense

__all__ = [
    "HyperConv2D",
    "HyperDense",
    "HyperDropout",
    "HyperGaussianNoise",
    "HyperLayer",
    "VariationalConv2D",
    "VariationalDense",
]
