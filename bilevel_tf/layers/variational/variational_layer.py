"""What variational layers share."""

import keras
import tensorflow as tf
from keras.src.backend import AutocastScope

from bilevel_tf._arguments import positive
from bilevel_tf.hyperparameters.pass_in_force import current_pass
from bilevel_tf.layers.variational.estimators import ESTIMATORS, draw, shared
from bilevel_tf.layers.variational.posterior import Posterior, raw_scale
from bilevel_tf.regularizers.weight_prior import WeightPrior, check_shape


class VariationalLayer:
    """Mixin for a Keras layer whose kernel and bias have a posterior.

    The Keras class beside it brings arguments, config and the weights `kernel` and
    `bias`, here the means μ. A subclass gives `apply_kernel(inputs, kernel)`,
    `channel_axis` and `default_estimator`.
    """

    def __init__(
        self,
        *args,
        prior,
        bias_prior=None,
        estimator=None,
        initial_scale=0.02,
        seed=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.prior = _read_prior(prior, "prior")
        given = bias_prior is not None
        self.bias_prior = _read_prior(bias_prior, "bias_prior") if given else None
        self.estimator = estimator or self.default_estimator
        if self.estimator not in ESTIMATORS:
            raise ValueError(
                f"`estimator` must be one of {', '.join(ESTIMATORS)}. "
                f"Received: estimator={estimator!r}"
            )
        self.initial_scale = positive(initial_scale, "initial_scale")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        """Create μ and ρ, and check that the priors fit their shapes."""
        if self.quantization_mode:
            self._refuse("quantisation")
        super().build(input_shape)
        check_shape(self.prior, self.kernel.shape, "prior", self.name)
        self.raw_kernel_scale = self._add_raw_scale("raw_kernel_scale", self.kernel)
        if self.use_bias:
            name = "prior" if self.bias_prior is None else "bias_prior"
            check_shape(self._prior_of_bias, self.bias.shape, name, self.name)
            self.raw_bias_scale = self._add_raw_scale("raw_bias_scale", self.bias)

    def _add_raw_scale(self, name, mean):
        value = keras.initializers.Constant(raw_scale(self.initial_scale))
        return self.add_weight(name=name, shape=mean.shape, initializer=value)

    @property
    def _prior_of_bias(self):
        return self.prior if self.bias_prior is None else self.bias_prior

    def posteriors(self):
        """The `Posterior`s of the kernel and, where the layer has one, the bias."""
        kernel = Posterior(self.kernel, self.raw_kernel_scale, self.prior)
        if not self.use_bias:
            return [kernel]
        return [kernel, Posterior(self.bias, self.raw_bias_scale, self._prior_of_bias)]

    def call(self, inputs, training=False):
        """The layer at its means; at a draw while it is trained."""
        if not training and not current_pass().draws_weights:
            return super().call(inputs)
        estimator = ESTIMATORS[self.estimator] if training else shared
        # Divergences are sums over many weights, and variances small.
        with AutocastScope(None):
            posteriors = self.posteriors()
            normals = [posterior.distribution() for posterior in posteriors]
            padded = normals if self.use_bias else [*normals, None]
            inputs = keras.ops.cast(inputs, self.compute_dtype)
            outputs, drawn = estimator(self, inputs, *padded)
            # A layer that is called twice in a pass has one posterior.
            if training and not self._get_own_losses():
                self._add_divergence(posteriors, normals, drawn)
        return outputs if self.activation is None else self.activation(outputs)

    def _add_divergence(self, posteriors, normals, drawn):
        """KL(q ‖ p) / N, which training minimises beside the mean loss."""
        for index, (posterior, normal) in enumerate(
            zip(posteriors, normals, strict=True)
        ):
            prior, weight = posterior.prior, None
            if prior.needs_draw:
                weight = drawn[index] if drawn else draw(normal, self.seed_generator)
            logarithm = tf.convert_to_tensor(posterior.raw_scale)
            divergence = prior.kl_divergence(normal, weight, logarithm)
            self.add_loss(divergence / prior.data_size)

    def affine(self, inputs, kernel, bias):
        """The layer's map, without activation, with other weights."""
        outputs = self.apply_kernel(inputs, tf.cast(kernel, inputs.dtype))
        if bias is None:
            return outputs
        data_format = "N...C" if self.channel_axis == -1 else "NC..."
        return tf.nn.bias_add(outputs, tf.cast(bias, outputs.dtype), data_format)

    def save_own_variables(self, store):
        """All weights; Keras's layers would save kernel and bias alone."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        """The inverse of `save_own_variables`."""
        keras.layers.Layer.load_own_variables(self, store)

    def enable_lora(self, *args, **kwargs):
        """Refused: the divergence is that of all weights."""
        self._refuse("LoRA")

    def quantize(self, *args, **kwargs):
        """Refused: the means are to be trained."""
        self._refuse("quantisation")

    def _refuse(self, what):
        raise ValueError(
            f"{type(self).__name__} '{self.name}' does not take {what}. Enable it "
            "after training, on the model of BilevelModel.to_keras."
        )

    def get_config(self):
        """The Keras layer's config, and the arguments above."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "prior": serialize(self.prior),
            "bias_prior": self.bias_prior and serialize(self.bias_prior),
            "estimator": self.estimator,
            "initial_scale": self.initial_scale,
            "seed": self.seed,
        }


def _read_prior(value, name):
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, WeightPrior):
        return value
    raise ValueError(
        f"`{name}` must be a prior on weights, such as "
        f"bilevel_tf.NormalPrior(data_size=len(x_train)). Received: {name}={value!r}"
    )


def variational_layers(model, purpose):
    """The variational layers of a model, in order.

    Args:
        model: A Keras model.
        purpose: Name of what needs them, for the error.

    Raises:
        ValueError: If there is none.
    """
    layers = model._flatten_layers(include_self=False)
    found = [layer for layer in layers if isinstance(layer, VariationalLayer)]
    if not found:
        raise ValueError(
            f"{purpose} needs weights with a posterior, and the model has no "
            "variational layer. Use bilevel_tf.VariationalDense or VariationalConv2D, "
            "or convert the model with BilevelModel.from_keras and a `prior`."
        )
    return found
