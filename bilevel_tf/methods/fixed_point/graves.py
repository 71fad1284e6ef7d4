"""The priors of variational layers, set to their best parameters."""

import math

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.hyperparameters.values import mean_value
from bilevel_tf.layers.variational.variational_layer import (
    VariationalLayer,
    variational_layers,
)
from bilevel_tf.methods.method import Method
from bilevel_tf.objectives.elbo import ELBO
from bilevel_tf.regularizers.normal_prior import NormalPrior


@keras.saving.register_keras_serializable("bilevel_tf")
class GravesUpdate(Method):
    """Sets the priors' parameters to the minimum of KL(q ‖ p), after every round.

    For the weights w_i ~ N(m, A⁻¹) that share m and A, with the posterior N(μ_i, σ_i²),

        m ← mean of μ_i,    A⁻¹ ← mean of σ_i² + (μ_i − m)².

    A mean or precision with a value per unit has a mean of its own for each; one that
    several weights or layers refer to has one over them all. Where weights share a mean
    but not the precision, m is the average weighted by the precisions. Numbers stay
    what they are, and so do hyperparameters where their best value lies outside their
    range: they get the nearest inside. The hyper-optimizer is not used, and neither are
    the batches that the objective is judged on.

    Args:
        train_steps: T_train, inner steps per round. Defaults to 5.
        valid_steps: Updates per round; a second one changes nothing unless weights
            share a mean and not the precision. Defaults to 1.
        warmup_epochs: Epochs at the start without updates. Defaults to 0. Some are
            needed as a rule: of a posterior that has not seen the data yet the best
            precision is that of its initial means.

    Raises:
        ValueError: At `compile`, if the objective is not `ELBO`, a prior is not normal,
            or a hyperparameter acts elsewhere than in such a prior.

    Reference:
        Graves, "Practical variational inference for neural networks", 2011.
    """

    def check(self, network):
        """Check that there is a closed form for all hyperparameters."""
        if not isinstance(network.objective, ELBO):
            raise ValueError(
                "GravesUpdate minimises the divergence in the evidence lower bound; "
                "`objective` must be bilevel_tf.ELBO(). Received: "
                f"objective={type(network.objective).__name__}"
            )
        posteriors = _posteriors(network)
        for posterior in posteriors:
            if not isinstance(posterior.prior, NormalPrior):
                raise ValueError(
                    "GravesUpdate has a closed form for bilevel_tf.NormalPrior alone; "
                    f"'{posterior.mean.path}' has a "
                    f"{type(posterior.prior).__name__}. Use "
                    "bilevel_tf.methods.DARTS(second_order=None)."
                )
        shared = _acting_elsewhere(network)
        if shared:
            raise ValueError(
                f"GravesUpdate sets priors alone, and {', '.join(shared)} acts "
                "elsewhere as well. Make it two hyperparameters, or use "
                "bilevel_tf.methods.DARTS(second_order=None)."
            )
        reached = {
            h.name for kind in ("mean", "precision") for h in _tuned(network, kind)
        }
        lost = [name for name in network.hyperparameters.names if name not in reached]
        if lost:
            raise ValueError(
                f"GravesUpdate sets priors alone, and {', '.join(lost)} is in no prior "
                "of a variational layer. Make it a number, or use "
                "bilevel_tf.methods.DARTS(second_order=None)."
            )

    def outer_step(self, network, validation, training):
        """m, then A⁻¹, to their best values."""
        space = network.hyperparameters
        for kind, best in (("mean", _best_mean), ("precision", _best_precision)):
            values = {h.name: best(network, h) for h in _tuned(network, kind)}
            if values:
                space.unconstrained.assign(_inside(space, values))
        return {}


def _acting_elsewhere(network):
    """Names of tuned parameters of priors that losses or other layers refer to."""
    layers = network.layers
    holders = [layer for layer in layers if not isinstance(layer, VariationalLayer)]
    holders += network.losses
    names = {reference.name for holder in holders for reference in references(holder)}
    tuned = _tuned(network, "mean") + _tuned(network, "precision")
    return sorted(names & {h.name for h in tuned})


def _best_mean(network, hyperparameter):
    numerators, denominators = [], []
    for posterior in _sharing(network, "mean", hyperparameter):
        mean = tf.convert_to_tensor(posterior.mean)
        precision = mean_value(posterior.prior.precision, mean.dtype)
        numerators.append(precision * mean)
        denominators.append(tf.broadcast_to(precision, mean.shape))
    return _ratio(numerators, denominators, hyperparameter.scale.shape)


def _best_precision(network, hyperparameter):
    numerators, denominators = [], []
    for posterior in _sharing(network, "precision", hyperparameter):
        mean = tf.convert_to_tensor(posterior.mean)
        distance = mean - mean_value(posterior.prior.mean, mean.dtype)
        numerators.append(tf.ones_like(mean))
        denominators.append(tf.square(posterior.scale()) + tf.square(distance))
    return _ratio(numerators, denominators, hyperparameter.scale.shape)


def _ratio(numerators, denominators, shape):
    """The ratio of two sums, over all weights and the axes that `shape` broadcasts."""
    top, bottom = (
        tf.add_n([_sum_to(tf.cast(t, "float64"), shape) for t in tensors])
        for tensors in (numerators, denominators)
    )
    return top / bottom


def _posteriors(network):
    layers = variational_layers(network.layers, "GravesUpdate")
    return [posterior for layer in layers for posterior in layer.posteriors()]


def _tuned(network, kind):
    """The hyperparameters that are a mean or a precision, each once."""
    found = [getattr(posterior.prior, kind) for posterior in _posteriors(network)]
    found = [h for h in found if isinstance(h, Hyperparameter)]
    return list({h.name: h for h in found}.values())


def _sharing(network, kind, hyperparameter):
    """The posteriors whose prior has the hyperparameter in that place."""
    return [
        posterior
        for posterior in _posteriors(network)
        if getattr(getattr(posterior.prior, kind), "name", None) == hyperparameter.name
    ]


def _sum_to(tensor, shape):
    """The sum over the axes along which `shape` broadcasts."""
    extra = tensor.shape.rank - len(shape)
    tensor = tf.reduce_sum(tensor, list(range(extra)))
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    return tf.reduce_sum(tensor, ones, keepdims=True)


def _inside(space, values):
    """The unconstrained vector at values, or at the nearest in their ranges."""
    inside = {}
    for name, value in values.items():
        scale = space.scales[name]
        if all(map(math.isfinite, scale.ends)):
            # The ends themselves are at infinity.
            ends = scale.constrain(tf.constant([-_FAR, _FAR], "float64"))
            value = tf.clip_by_value(value, ends[0], ends[1])
        inside[name] = value
    return space.unconstrain(inside)


# A sigmoid in single precision is not yet 1 here.
_FAR = 15.0
