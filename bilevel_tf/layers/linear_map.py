"""How a layer applies its weights, and where this is looked up."""

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """How a layer applies one of its weights W: outputs = apply(inputs, W).

    `apply` is linear in the weight and linear in the inputs. A layer is described by
    a list of these, one for each weight, in the order in which the layer applies them:
    a `Dense` layer is a `LinearMap` of its kernel and an `Offset` of its bias. All that
    this library does with the weights of a layer follows from its list: responses to
    hyperparameters, variational layers, Kronecker factors of a Hessian, and networks
    with one copy of the weights per fold.

    A *unit* is what one slice of the weight computes by itself. The units of a `Dense`
    kernel are its columns: column j makes output j and nothing else. `unit_axes` are
    the axes of the weight that number the units, `output_axes` are the axes of the
    outputs that the same numbers appear on. They must satisfy, for any factor u of one
    number per unit,

        apply(inputs, u ⊙ W) == u ⊙ apply(inputs, W)

    where u is laid along `unit_axes` on the left and along `output_axes` on the right.
    The first axis of the inputs and of the outputs is the batch, which no weight has.

    To make a layer of your own respond, inherit from `HyperLayer` beside
    `keras.layers.Layer`, return this list from a method `linear_maps`, and apply each
    weight with `self.respond(name, inputs)` in `call`:

    >>> class Gate(bt.layers.HyperLayer, keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.gain = self.add_weight(shape=input_shape[-1:], name="gain")
    ...
    ...     def linear_maps(self):
    ...         # Each entry of the gain scales one channel: it is a unit by itself.
    ...         return [
    ...             bt.layers.LinearMap("gain", lambda inputs, gain: inputs * gain)
    ...         ]
    ...
    ...     def call(self, inputs):
    ...         return inputs + self.respond("gain", inputs)
    >>> Gate()(np.ones((2, 3), "float32")).shape
    TensorShape([2, 3])

    To teach the library a layer class of Keras, decorate a function from the layer to
    its list with `register`; see `bilevel_tf/layers/linear_maps.py`.

    Args:
        weight: Name of the layer's attribute that holds W.
        apply: Function of the inputs `[batch, ...]` and of a tensor shaped as W, which
            returns outputs `[batch, ...]`. It must not read the layer's own weight.
        unit_axes: Axes of W that number the units, ascending; all of them positive or
            all negative. Defaults to the last one.
        output_axes: Axes of the outputs that these become, in the same order. One axis
            alone means that all units are merged into it, in the order of the weight,
            as depthwise convolutions merge channels and multipliers. Defaults to the
            last one.
        initializer: Name of the layer's attribute that holds the initializer of W; the
            layer need not have it. Defaults to "kernel_initializer".
        patches: Function of the inputs that returns what every unit's slice, flattened,
            is multiplied with, `[batch, *positions, entries]`. `None` if units see
            different inputs, or if the units are not the last axis of W. Kronecker
            factors need it. Defaults to `None`.
        vectorizes: Whether `tf.vectorized_map` can map `apply` over weights in a way
            that XLA can differentiate twice. Defaults to `True`.
        takes_indices: Whether the inputs are indices, and linear in the sense of
            one-hot vectors alone: integers are accepted, and no derivative by the
            inputs exists. Defaults to `False`.

    Raises:
        ValueError: If `unit_axes` are not ascending and of one sign, or if the number
            of `output_axes` is neither theirs nor one.
    """

    weight: str
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    unit_axes: tuple[int, ...] = (-1,)
    output_axes: tuple[int, ...] = (-1,)
    initializer: str = "kernel_initializer"
    patches: Callable[[tf.Tensor], tf.Tensor] | None = None
    vectorizes: bool = True
    takes_indices: bool = False

    def __post_init__(self):
        units, outputs = self.unit_axes, self.output_axes
        one_sign = len({axis < 0 for axis in units}) <= 1
        if not one_sign or list(units) != sorted(set(units)):
            raise ValueError(
                f"`unit_axes` of the map of '{self.weight}' must be ascending, and all "
                f"positive or all negative. Received: unit_axes={units}"
            )
        if len(outputs) != len(units) and len(outputs) != 1:
            raise ValueError(
                f"`output_axes` of the map of '{self.weight}' must be as many as "
                "`unit_axes`, or one axis into which all units are merged. "
                f"Received: unit_axes={units}, output_axes={outputs}"
            )

    def units(self, weight: tf.Tensor) -> tuple[int, ...]:
        """Sizes of the unit axes of the weight."""
        return tuple(weight.shape[axis] for axis in self.unit_axes)

    def fan_in(self, weight: tf.Tensor) -> int:
        """How many entries of the weight one unit has."""
        entries = math.prod(weight.shape)
        return entries // max(1, math.prod(self.units(weight)))

    def over_weight(self, factors: tf.Tensor, rank: int) -> tf.Tensor:
        """Reshape `[*units]` to broadcast over a weight of this rank."""
        shape = [1] * rank
        for axis, size in zip(self.unit_axes, factors.shape, strict=True):
            shape[axis] = size
        return tf.reshape(factors, shape)

    def over_outputs(self, factors: tf.Tensor, rank: int) -> tf.Tensor:
        """Reshape `[batch, *units]` to broadcast over outputs of this rank."""
        axes = [axis % rank for axis in self.output_axes]
        sizes = list(factors.shape[1:])
        if len(axes) < len(sizes):
            sizes = [math.prod(sizes)]
        elif axes != sorted(axes):
            order = sorted(range(len(axes)), key=axes.__getitem__)
            factors = tf.transpose(factors, [0, *(1 + place for place in order)])
        shape = [1] * rank
        for axis, size in zip(axes, sizes, strict=True):
            shape[axis] = size
        return tf.reshape(factors, [-1, *shape[1:]])

    def sum_over_units(self, tensor: tf.Tensor) -> tf.Tensor:
        """Sum a tensor shaped as the weight over all but the unit axes, `[*units]`."""
        rank = tensor.shape.rank
        units = {axis % rank for axis in self.unit_axes}
        return tf.reduce_sum(
            tensor, [axis for axis in range(rank) if axis not in units]
        )

    def scaled(
        self, inputs: tf.Tensor, weight: tf.Tensor, factors: tf.Tensor
    ) -> tf.Tensor:
        """Apply a weight whose units are scaled anew for every example.

        Args:
            inputs: `[batch, ...]`.
            weight: A tensor shaped as W.
            factors: u, `[batch, *units]`, or `[1, *units]` for all examples.

        Returns:
            u_i ⊙ apply(inputs_i, weight) for example i; it broadcasts to the outputs.
        """
        outputs = self.apply(inputs, weight)
        return self.over_outputs(factors, outputs.shape.rank) * outputs

    def mixed(
        self, inputs: tf.Tensor, weights: tf.Tensor, coefficients: tf.Tensor
    ) -> tf.Tensor:
        """Apply another sum of weights for every example.

        Args:
            inputs: `[batch, ...]`.
            weights: n tensors shaped as W, `[n, ...]`.
            coefficients: c, `[batch, n]`, or `[1, n]` for all examples.

        Returns:
            Σ_k c_ik apply(inputs_i, weights_k) for example i; it broadcasts to the
            outputs.
        """
        terms = []
        for k, weight in enumerate(tf.unstack(weights)):
            outputs = self.apply(inputs, weight)
            ones = [1] * (outputs.shape.rank - 1)
            terms.append(tf.reshape(coefficients[:, k], [-1, *ones]) * outputs)
        return tf.add_n(terms)

    def push_forward(self, tangent: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """The tangent of the outputs that belongs to a tangent of the inputs."""
        return self.apply(tangent, weight)


def _add_along_last_axis(inputs: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Add a vector along the last axis of the inputs."""
    return tf.nn.bias_add(inputs, weight)


@dataclasses.dataclass(frozen=True)
class Offset(LinearMap):
    """How a layer adds one of its weights: outputs = inputs + b.

    Arguments and protocol are those of `LinearMap`. Every entry of b is a unit, so that
    axes of b beside `unit_axes` have size one.

    Args:
        weight: Name of the layer's attribute that holds b.
        apply: Function of the inputs and b that adds b. Defaults to adding a vector
            along the last axis.
        unit_axes: Axes of b that are larger than one. Defaults to the last one.
        output_axes: Axes of the outputs that these are added along. Defaults to the
            last one.
        initializer: Name of the layer's attribute that holds the initializer of b.
            Defaults to "bias_initializer".
        patches: Not used.
        vectorizes: As for `LinearMap`.
        takes_indices: Not used.

    Example:

    >>> offset = bt.layers.Offset("bias")
    >>> offset.apply(tf.zeros([2, 3]), tf.constant([1.0, 2.0, 3.0])).shape
    TensorShape([2, 3])
    """

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = _add_along_last_axis
    initializer: str = "bias_initializer"

    def scaled(
        self, inputs: tf.Tensor, weight: tf.Tensor, factors: tf.Tensor
    ) -> tf.Tensor:
        """u_i ⊙ weight for example i; see `LinearMap.scaled`."""
        if weight.shape != factors.shape[1:]:
            weight = tf.reshape(weight, factors.shape[1:])
        return self.over_outputs(factors * weight, inputs.shape.rank)

    def mixed(
        self, inputs: tf.Tensor, weights: tf.Tensor, coefficients: tf.Tensor
    ) -> tf.Tensor:
        """Σ_k c_ik weights_k for example i; see `LinearMap.mixed`."""
        units = self.units(weights[0])
        sums = tf.matmul(coefficients, tf.reshape(weights, [weights.shape[0], -1]))
        return self.over_outputs(tf.reshape(sums, [-1, *units]), inputs.shape.rank)

    def push_forward(self, tangent: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """The tangent itself: an offset has the derivative one."""
        return tangent


_REGISTRY = {}


def register(*layer_classes: type) -> Callable:
    """Decorate the function that describes these Keras layer classes.

    Args:
        *layer_classes: Classes of Keras.

    Returns:
        A decorator of a function from a layer to the list of its `LinearMap`s, in the
        order in which the layer applies them before its activation. The function may
        be called before the layer is built. It returns `None` for a layer that
        `LinearMap` cannot describe.
    """

    def decorate(function):
        _REGISTRY.update(dict.fromkeys(layer_classes, function))
        return function

    return decorate


def linear_maps(layer: keras.Layer) -> list[LinearMap] | None:
    """Look up how a layer applies its weights.

    Args:
        layer: Any Keras layer.

    Returns:
        What the layer's own method `linear_maps` says, or what is registered for
        exactly its class: a subclass might compute something else. `None` if nothing is
        known.
    """
    if hasattr(layer, "linear_maps"):
        return layer.linear_maps()
    describe = _REGISTRY.get(type(layer))
    return describe and describe(layer)


def inherited_maps(layer: keras.Layer) -> list[LinearMap] | None:
    """What is registered for the class, or for the nearest one it inherits from."""
    for layer_class in type(layer).__mro__:
        if layer_class in _REGISTRY:
            return _REGISTRY[layer_class](layer)
    return None


def require_maps(layer: keras.Layer) -> list[LinearMap]:
    """Return the `inherited_maps` of a layer.

    Raises:
        TypeError: If there are none.
    """
    maps = inherited_maps(layer)
    if maps is None:
        raise TypeError(
            f"{type(layer).__name__} needs a method `linear_maps` that lists how it "
            "applies its weights, since nothing is registered for the Keras layer "
            "that it inherits from. See bilevel_tf.layers.LinearMap. "
            f"Received: '{layer.name}' without maps"
        )
    return maps


def is_registered(layer_class: type) -> bool:
    """Whether layers of exactly this class apply their maps and an activation."""
    return layer_class in _REGISTRY


def vectorizes(layer: keras.Layer) -> bool:
    """Whether `tf.vectorized_map` can map a layer over its weights.

    A subclass of a convolution counts as a convolution, whatever else it computes. A
    layer of which nothing is known counts as one that vectorizes.
    """
    own = getattr(layer, "linear_maps", None)
    maps = own() if own else inherited_maps(layer)
    return all(linear_map.vectorizes for linear_map in maps or ())
