"""Layers whose weights respond, whose noise is tuned, or whose weights are random."""

from bilevel_tf.layers import linear_maps as _linear_maps  # noqa: F401, registers
from bilevel_tf.layers.hyper.conv1d import HyperConv1D
from bilevel_tf.layers.hyper.conv1d_transpose import HyperConv1DTranspose
from bilevel_tf.layers.hyper.conv2d import HyperConv2D
from bilevel_tf.layers.hyper.conv2d_transpose import HyperConv2DTranspose
from bilevel_tf.layers.hyper.conv3d import HyperConv3D
from bilevel_tf.layers.hyper.conv3d_transpose import HyperConv3DTranspose
from bilevel_tf.layers.hyper.dense import HyperDense
from bilevel_tf.layers.hyper.depthwise_conv1d import HyperDepthwiseConv1D
from bilevel_tf.layers.hyper.depthwise_conv2d import HyperDepthwiseConv2D
from bilevel_tf.layers.hyper.einsum_dense import HyperEinsumDense
from bilevel_tf.layers.hyper.embedding import HyperEmbedding
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.hyper.separable_conv1d import HyperSeparableConv1D
from bilevel_tf.layers.hyper.separable_conv2d import HyperSeparableConv2D
from bilevel_tf.layers.linear_map import LinearMap, Offset
from bilevel_tf.layers.noise.dropout import HyperDropout
from bilevel_tf.layers.noise.gaussian_noise import HyperGaussianNoise
from bilevel_tf.layers.variational.conv2d import VariationalConv2D
from bilevel_tf.layers.variational.dense import VariationalDense

__all__ = [
    "HyperConv1D",
    "HyperConv1DTranspose",
    "HyperConv2D",
    "HyperConv2DTranspose",
    "HyperConv3D",
    "HyperConv3DTranspose",
    "HyperDense",
    "HyperDepthwiseConv1D",
    "HyperDepthwiseConv2D",
    "HyperDropout",
    "HyperEinsumDense",
    "HyperEmbedding",
    "HyperGaussianNoise",
    "HyperLayer",
    "HyperSeparableConv1D",
    "HyperSeparableConv2D",
    "LinearMap",
    "Offset",
    "VariationalConv2D",
    "VariationalDense",
]
