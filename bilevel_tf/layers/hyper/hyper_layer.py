"""What all hyper-layers share."""

import types
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.pass_in_force import check_rows, current_pass
from bilevel_tf.layers.linear_map import LinearMap, Offset, require_maps
from bilevel_tf.layers.response.penalty import response_penalty
from bilevel_tf.layers.response.response import Response


class HyperLayer:
    """Mixin for a Keras layer whose weights respond to the hyperparameters.

    Beside a class of Keras whose maps are registered it needs nothing else:

    >>> class MyConv(bt.layers.HyperLayer, keras.layers.Conv2D):
    ...     pass

    The Keras class brings arguments, weights and config. A layer has no responses until
    a method attaches them with `attach_response`. As long as nothing perturbs it, it
    computes exactly what the Keras class computes, at the same cost.

    Beside `keras.layers.Layer`, write `build` and `call` as usual, and two things more:
    a method `linear_maps` that lists how the layer applies its weights (see
    `LinearMap`), and `self.respond(name, inputs)` in `call` wherever a weight is
    applied. If the layer may be the last one of a network and has an activation, apply
    it with `self.activate`.

    >>> class Bottleneck(bt.layers.HyperLayer, keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.down = self.add_weight(shape=(input_shape[-1], 2), name="down")
    ...         self.up = self.add_weight(shape=(2, input_shape[-1]), name="up")
    ...
    ...     def linear_maps(self):
    ...         names = ["down", "up"]
    ...         return [bt.layers.LinearMap(name, keras.ops.matmul) for name in names]
    ...
    ...     def call(self, inputs):
    ...         hidden = keras.ops.tanh(self.respond("down", inputs))
    ...         return inputs + self.respond("up", hidden)
    >>> Bottleneck()(np.ones((3, 5), "float32")).shape
    TensorShape([3, 5])

    Attributes:
        responses: The `Response` of every weight that has one, by the name of the
            weight; empty until a method attaches responses.
    """

    # The Keras class beside the mixin has these.
    name: str
    trainable: bool

    # Read-only: all layers without responses share it.
    responses: Mapping[str, Response] = types.MappingProxyType({})

    def linear_maps(self) -> list[LinearMap]:
        """How the layer applies its weights, in the order in which it does.

        Returns:
            The maps that are registered for the Keras class; a layer of your own
            overrides this.
        """
        return require_maps(self)

    def attach_response(
        self, response_class: type[Response], size: int, **arguments: Any
    ) -> None:
        """Give every weight of the layer a response to `size` hyperparameters.

        Responses of this class and size that are already there are kept; others are
        replaced.

        Args:
            response_class: Subclass of `Response`.
            size: h, the number of unconstrained hyperparameters.
            **arguments: Other arguments of the class, such as how it starts.

        Raises:
            AttributeError: If the layer is not built.
            ValueError: If the layer has LoRA or quantisation enabled.
        """
        self._check_can_respond()
        present = self.responses.values()
        if present and all(
            type(response) is response_class and response.size == size
            for response in present
        ):
            return
        maps = self.linear_maps()
        responses = {
            linear_map.weight: response_class(
                linear_map,
                size,
                name=f"{linear_map.weight}_response",
                dtype=self.dtype_policy,
                **arguments,
            )
            for linear_map in maps
        }
        _keras.replace_sublayers(self, "responses", responses)
        fan_in = 1
        for linear_map in maps:
            if not isinstance(linear_map, Offset):
                fan_in = linear_map.fan_in(getattr(self, linear_map.weight))
            self.responses[linear_map.weight].build_for(self, fan_in)

    def _check_can_respond(self):
        if not self.built:
            raise AttributeError(
                f"You must build the layer before its weights can respond. Received: "
                f"{type(self).__name__} '{self.name}', which is not built"
            )
        lora = getattr(self, "lora_enabled", False)
        if lora or getattr(self, "quantization_mode", None):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' has LoRA or quantisation "
                "enabled, with which its weights cannot respond to hyperparameters. "
                "Enable it after tuning, on the model of BilevelModel.to_keras. "
                f"Received: lora_enabled={lora}, "
                f"quantization_mode={getattr(self, 'quantization_mode', None)!r}"
            )

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The layer at the weights that the pass in force asks for."""
        maps = self.linear_maps()
        if not maps[0].takes_indices:
            self._check_floating(inputs)
        scope = current_pass()
        perturbed = self.responses and scope.delta is not None
        if not perturbed and self not in scope.peeled:
            return super().call(inputs)
        outputs = inputs
        for linear_map in maps:
            outputs = self._apply(linear_map, outputs)
        return self.activate(outputs)

    def respond(self, weight: str, inputs: tf.Tensor) -> tf.Tensor:
        """Apply one weight to inputs, as the pass in force asks.

        Use it in `call` of a layer of your own, in place of the map itself.

        Args:
            weight: Name of the weight, one of `linear_maps()`.
            inputs: What the layer applies the weight to, `[batch, ...]`.

        Returns:
            The outputs of the map: at the weight itself in an ordinary pass, and at
            every example's own weight w + Δw_i in a perturbed one.

        Raises:
            ValueError: If `linear_maps()` has no such weight.
        """
        maps = {linear_map.weight: linear_map for linear_map in self.linear_maps()}
        if weight not in maps:
            raise ValueError(
                f"`weight` must be one that `linear_maps` of {type(self).__name__} "
                f"'{self.name}' lists: {', '.join(maps)}. Received: weight={weight!r}"
            )
        return self._apply(maps[weight], inputs)

    def activate(self, outputs: tf.Tensor) -> tf.Tensor:
        """Apply the layer's `activation`, unless the pass in force leaves it out.

        A pass that linearises the network does so before the softmax or sigmoid of the
        last layer.
        """
        activation, scope = getattr(self, "activation", None), current_pass()
        if activation is None:
            return outputs
        if self in scope.peeled:
            scope.left_out.add(self)
            return outputs
        return activation(outputs)

    def _apply(self, linear_map, inputs):
        """The map at the weights of the pass in force."""
        scope = current_pass()
        weight = tf.convert_to_tensor(getattr(self, linear_map.weight))
        response = self.responses.get(linear_map.weight)
        if response is None or scope.delta is None:
            return linear_map.apply(inputs, weight)
        if scope.delta.shape[0] == 1 and not scope.linearized:
            shift = response.shift(tf.cast(scope.delta, weight.dtype))
            return linear_map.apply(inputs, weight + shift)
        check_rows(inputs, scope.delta, f"{type(self).__name__} '{self.name}'")
        delta = tf.cast(scope.delta, self.compute_dtype)
        if scope.linearized:
            return _linearize(response, inputs, weight, delta, scope.tangents)
        return linear_map.apply(inputs, weight) + response.term(inputs, delta)

    def penalty(self, delta: tf.Tensor) -> tf.Tensor | None:
        """Weight penalty of every example at its own λ and weights.

        Args:
            delta: δ, `[batch, h]`.

        Returns:
            The sum over the weights, `[batch]`; `None` if no weight has a regularizer.
        """
        terms = []
        for name, response in self.responses.items():
            weight = getattr(self, name)
            if weight.regularizer is not None:
                terms.append(
                    response_penalty(weight.regularizer, response, weight, delta)
                )
        return tf.add_n(terms) if terms else None

    def responding_weights(self) -> list[keras.Variable]:
        """The ordinary weights that responses move, in the order of `linear_maps`."""
        return [getattr(self, linear_map.weight) for linear_map in self.linear_maps()]

    @property
    def response_variables(self) -> list[keras.Variable]:
        """The weights of all responses."""
        return [v for response in self.responses.values() for v in response.variables]

    def weights_at(self, delta: tf.Tensor) -> list[tf.Tensor]:
        """The responding weights at one δ of shape `[1, h]`, in their order."""
        moved = []
        for linear_map in self.linear_maps():
            weight = tf.convert_to_tensor(getattr(self, linear_map.weight))
            response = self.responses.get(linear_map.weight)
            if response is not None:
                weight += response.shift(tf.cast(delta, weight.dtype))
            moved.append(weight)
        return moved

    def _check_floating(self, inputs):
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise TypeError(
                f"{type(self).__name__} '{self.name}' needs floating-point inputs. "
                f"Received: inputs of dtype {dtype}. Put keras.layers.Rescaling(1.0) "
                "before it, or convert the data to float32."
            )


def _linearize(response, inputs, weight, delta, tangents):
    """The ordinary outputs, with the derivatives of the linearised network.

    The tangent along δ is the response plus what comes from below, and the cotangents
    are the linearised network's, because the inputs of the response are held constant.
    """
    linear_map = response.linear_map
    below = None if linear_map.takes_indices else tangents.of(inputs)
    with tangents.paused():
        term = response.term(tf.stop_gradient(inputs), delta)
        outputs = _with_cotangents_of(linear_map.apply(inputs, weight), term)
        if below is not None:
            tangent = term + linear_map.push_forward(below, weight)
        elif _spread_axes(outputs, term):
            tangent = tf.broadcast_to(term, tf.shape(outputs))
        else:
            tangent = term
    tangents.set_tangent(outputs, tangent)
    return outputs


@tf.custom_gradient
def _with_cotangents_of(outputs, term):
    """`outputs`, from which gradients reach `term` as if it had been added."""
    spread = _spread_axes(outputs, term)

    def gradient(cotangent):
        if not spread:
            return cotangent, cotangent
        return cotangent, tf.reduce_sum(cotangent, spread, keepdims=True)

    return tf.identity(outputs), gradient


def _spread_axes(outputs, term):
    """The axes along which the term broadcasts to the outputs."""
    return [
        axis
        for axis in range(1, outputs.shape.rank)
        if term.shape[axis] == 1 and outputs.shape[axis] != 1
    ]
