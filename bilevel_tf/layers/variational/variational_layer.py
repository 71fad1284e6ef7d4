"""What variational layers share."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf._arguments import check_positive
from bilevel_tf.hyperparameters.pass_in_force import current_pass
from bilevel_tf.layers.linear_map import LinearMap, Offset, require_maps
from bilevel_tf.layers.variational.estimators import ESTIMATORS, draw, shared
from bilevel_tf.layers.variational.posterior import Posterior, raw_scale
from bilevel_tf.regularizers.weight_prior import WeightPrior, check_shape


class VariationalLayer:
    """Mixin for a Keras layer whose weights have a posterior.

    The Keras class beside it brings arguments, config and the weights, here the means
    μ. Its maps must be registered (see `bilevel_tf.layers.linear_map`), with one weight
    that multiplies and perhaps an offset. A subclass says its `default_estimator`.

    Args:
        *args: Positional arguments of the Keras class.
        prior: A `WeightPrior`.
        bias_prior: That of offsets. Defaults to `prior`.
        estimator: "local", "flipout" or "shared"; see `estimators`. Defaults to the
            class's `default_estimator`.
        initial_scale: σ at the start, in the unit of the weights. Defaults to 0.02.
        seed: Integer seed of the draws. Defaults to `None`, a random one.
        **kwargs: Other arguments of the Keras class.

    Raises:
        ValueError: If an argument is out of its range, or if, at `build`, a
            hyperparameter of a prior does not broadcast to its weight.
    """

    # The Keras class beside the mixin has it.
    name: str

    def __init__(
        self,
        *args: Any,
        prior: WeightPrior,
        bias_prior: WeightPrior | None = None,
        estimator: str | None = None,
        initial_scale: float = 0.02,
        seed: int | None = None,
        **kwargs: Any,
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
        self.initial_scale = check_positive(initial_scale, "initial_scale")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        """Create μ and ρ, and check that the priors fit their shapes."""
        if self.quantization_mode:
            self._refuse("quantisation")
        super().build(input_shape)
        start = keras.initializers.Constant(raw_scale(self.initial_scale))
        for linear_map in self.linear_maps():
            shape = getattr(self, linear_map.weight).shape
            argument = self._prior_argument(linear_map)
            check_shape(getattr(self, argument), shape, argument, self.name)
            name = f"raw_{linear_map.weight}_scale"
            scale = self.add_weight(name=name, shape=shape, initializer=start)
            setattr(self, name, scale)

    def _prior_argument(self, linear_map):
        """Name of the argument that holds the prior of this map's weight."""
        own = isinstance(linear_map, Offset) and self.bias_prior is not None
        return "bias_prior" if own else "prior"

    def linear_maps(self) -> list[LinearMap]:
        """How the layer applies its weights: what is registered for the Keras class."""
        return require_maps(self)

    def posteriors(self) -> list[Posterior]:
        """The `Posterior` of every weight, in the order of `linear_maps`."""
        return [
            Posterior(
                getattr(self, linear_map.weight),
                getattr(self, f"raw_{linear_map.weight}_scale"),
                getattr(self, self._prior_argument(linear_map)),
            )
            for linear_map in self.linear_maps()
        ]

    def call(self, inputs, training=False):
        """The layer at its means; at a draw while it is trained."""
        if not training and not current_pass().draws_weights:
            return super().call(inputs)
        estimator = ESTIMATORS[self.estimator] if training else shared
        # Divergences are sums over many weights, and variances small.
        with _keras.without_autocast():
            posteriors = self.posteriors()
            normals = [posterior.distribution() for posterior in posteriors]
            inputs = keras.ops.cast(inputs, self.compute_dtype)
            outputs, drawn = estimator(self, inputs, normals)
            # A layer that is called twice in a pass has one posterior.
            if training and not _keras.get_own_losses(self):
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

    def affine(self, inputs: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        """The layer before its activation, with other weights.

        Args:
            inputs: `[batch, ...]`.
            *weights: Tensors shaped as the weights, in the order of `linear_maps`.
        """
        for linear_map, weight in zip(self.linear_maps(), weights, strict=True):
            inputs = linear_map.apply(inputs, tf.cast(weight, inputs.dtype))
        return inputs

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


def variational_layers(layers, purpose):
    """The variational ones among layers, in order.

    Args:
        layers: All layers of a model.
        purpose: Name of what needs them, for the error.

    Raises:
        ValueError: If there is none.
    """
    found = [layer for layer in layers if isinstance(layer, VariationalLayer)]
    if not found:
        raise ValueError(
            f"{purpose} needs weights with a posterior, and the model has no "
            "variational layer. Use bilevel_tf.VariationalDense or VariationalConv2D, "
            "or convert the model with BilevelModel.from_keras and a `prior`."
        )
    return found
