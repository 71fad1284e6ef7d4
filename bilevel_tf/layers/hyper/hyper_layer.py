"""What all hyper-layers share."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import current_pass
from bilevel_tf.layers.response.penalty import response_penalty
from bilevel_tf.layers.response.response import BIAS, KERNEL


class HyperLayer:
    """Mixin for a Keras layer with a kernel and a bias that respond.

    The Keras class beside it brings arguments, weights and config. A layer has no
    response until a method attaches one; without, it is its Keras counterpart.
    A subclass gives `apply_kernel(inputs, kernel)` and `channel_axis`.
    """

    response = None

    def attach_response(self, response_class, size, **arguments):
        """Give the layer a response to `size` unconstrained hyperparameters.

        A response of this class and size that is already there is kept.

        Args:
            response_class: Subclass of `Response`.
            size: h.
            **arguments: Other arguments of the class, such as how it starts.

        Raises:
            ValueError: If the layer has LoRA or quantisation enabled.
        """
        if type(self.response) is response_class and self.response.size == size:
            return
        if self.lora_enabled or getattr(self, "quantization_mode", None):
            raise ValueError(
                f"{type(self).__name__} '{self.name}' has LoRA or quantisation "
                "enabled, with which its weights cannot respond to hyperparameters. "
                "Enable it after tuning, on the model of BilevelModel.to_keras."
            )
        self._tracker.unlock()
        # An attribute set anew leaves the old response's weights with the layer.
        self._tracker.untrack(self.response)
        self.response = response_class(
            size, name="response", dtype=self.dtype_policy, **arguments
        )
        self._tracker.lock()
        self.response.build_for(self)

    def call(self, inputs):
        """The layer at the weights that the current `Scope` asks for."""
        self._check_floating(inputs)
        scope = current_pass()
        if self.response is None or scope.delta is None:
            outputs = self._affine(inputs, self.kernel, self.bias)
        else:
            outputs = self._respond(inputs, scope)
        if self.activation is None or self in scope.peeled:
            return outputs
        return self.activation(outputs)

    def _respond(self, inputs, scope):
        delta = tf.cast(scope.delta, self.compute_dtype)
        if scope.linearized:
            return self._linearized(inputs, scope, delta)
        if delta.shape[0] == 1:
            return self._affine(inputs, *self.response_kernel_and_bias(delta))
        outputs = self._affine(inputs, self.kernel, self.bias)
        return outputs + self.response.output_term(self, inputs, delta)

    def _linearized(self, inputs, scope, delta):
        """The ordinary outputs, with the derivatives of the linearised network.

        The tangent along δ is the response plus what comes from below, and the
        cotangents are the linearised network's, because the inputs of the response
        are held constant.
        """
        tangents = scope.tangents
        below = tangents.of(inputs)
        with tangents.unseen():
            constant = tf.stop_gradient(inputs)
            term = self.response.output_term(self, constant, delta)
            outputs = self._affine(inputs, self.kernel, self.bias)
            outputs = _with_cotangents_of(outputs, term)
            tangent = term
            if below is not None:
                tangent += self.apply_kernel(below, self.kernel)
        tangents.state(outputs, tangent)
        return outputs

    def _affine(self, inputs, kernel, bias):
        outputs = self.apply_kernel(inputs, kernel)
        if not self.use_bias:
            return outputs
        data_format = "N...C" if self.channel_axis == -1 else "NC..."
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(bias), data_format)

    def per_example(self, factors, rank):
        """`[batch, units]` reshaped to broadcast over the layer's outputs.

        Args:
            factors: One factor per example and unit.
            rank: Rank of the outputs.
        """
        inner = [1] * (rank - 2)
        units = [factors.shape[-1]]
        shape = inner + units if self.channel_axis == -1 else units + inner
        return tf.reshape(factors, [-1, *shape])

    def penalty(self, delta):
        """Weight penalty of every example at its own λ and weights, `[batch]`.

        Args:
            delta: δ, `[batch, h]`.

        Returns:
            The penalties, or `None` where the layer has no regularizer.
        """
        terms = []
        for which in (KERNEL, BIAS):
            regularizer = getattr(self, f"{which}_regularizer")
            weight = getattr(self, which)
            if regularizer is not None and weight is not None:
                terms.append(
                    response_penalty(regularizer, self.response, which, weight, delta)
                )
        return tf.add_n(terms) if terms else None

    def responding_weights(self):
        """The ordinary weights that the response moves."""
        return [self.kernel] + ([self.bias] if self.use_bias else [])

    def response_kernel_and_bias(self, delta):
        """Kernel and bias at one δ of shape `[1, h]`; the bias may be `None`."""
        kernel, bias = tf.convert_to_tensor(self.kernel), None
        kernel += self.response.shift(KERNEL, delta)
        if self.use_bias:
            bias = tf.convert_to_tensor(self.bias) + self.response.shift(BIAS, delta)
        return kernel, bias

    def _check_floating(self, inputs):
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise TypeError(
                f"{type(self).__name__} '{self.name}' needs floating-point inputs. "
                f"Received: inputs of dtype {dtype}. Put keras.layers.Rescaling(1.0) "
                "before it, or convert the data to float32."
            )


@tf.custom_gradient
def _with_cotangents_of(outputs, term):
    """`outputs`, from which gradients reach `term` as if it had been added."""
    return tf.identity(outputs), lambda cotangent: (cotangent, cotangent)
