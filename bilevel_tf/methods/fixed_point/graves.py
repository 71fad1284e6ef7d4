"""Closed-form updates of the priors of variational layers."""

import math

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.hyperparameters.values import mean_value
from bilevel_tf.layers.variational.posterior import Posterior
from bilevel_tf.layers.variational.variational_layer import (
    VariationalLayer,
    variational_layers,
)
from bilevel_tf.methods.method import Method
from bilevel_tf.network.network import Network
from bilevel_tf.objectives.elbo import ELBO
from bilevel_tf.regularizers.normal_prior import NormalPrior


@keras.saving.register_keras_serializable("bilevel_tf")
class GravesUpdate(Method):
    """Sets the parameters of priors to the minimum of KL(q ‖ p), after every round.

    For weights with the prior w_i ~ N(m, A⁻¹) and the posterior N(μ_i, σ_i²),

        m ← mean of μ_i,    A⁻¹ ← mean of σ_i² + (μ_i − m)².

    The means are over all weights that share the hyperparameter, also in several
    layers; a hyperparameter with a value per unit has a mean for each unit. If weights
    share m but not A, the mean of μ_i is weighted by the precisions. Parameters that
    are numbers stay as they are. A hyperparameter whose best value is outside its range
    gets the nearest value inside. The update uses neither the hyper-optimizer nor the
    batch of the outer step.

    Args:
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as
            for all methods.
        valid_steps: The number of updates in a round. A second one changes nothing
            unless weights share a mean but not a precision. Defaults to 1.
        warmup_epochs: Number of epochs at the start without updates. Some are usually
            needed, because the update fits the prior to the initial means as long as
            the posterior has not seen the data. Defaults to 0.

    Raises:
        ValueError: If an argument is out of its range. At `compile`, if the objective
            is not `ELBO`, if a prior is not a `NormalPrior`, or if a hyperparameter
            acts elsewhere than in such priors.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.Positive(initial=1.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=100)
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.VariationalDense(2, prior=prior)(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile(
    ...     "adam",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     objective=bt.ELBO(),
    ...     method=bt.methods.GravesUpdate(warmup_epochs=10),
    ... )

    Reference:
        Graves, "Practical variational inference for neural networks", 2011.
    """

    def __init__(
        self, train_steps: int = 5, valid_steps: int = 1, warmup_epochs: int = 0
    ):
        super().__init__(train_steps, valid_steps, warmup_epochs)

    def check(self, network: Network) -> None:
        """Check that there is a closed form for all hyperparameters.

        Raises:
            ValueError: If there is none for one of them.
        """
        if not isinstance(network.objective, ELBO):
            raise ValueError(
                "GravesUpdate minimises the divergence in the evidence lower bound; "
                "`objective` must be bilevel_tf.ELBO(). Received: "
                f"objective={type(network.objective).__name__}"
            )
        posteriors = _list_posteriors(network)
        for posterior in posteriors:
            if not isinstance(posterior.prior, NormalPrior):
                raise ValueError(
                    "GravesUpdate has a closed form for bilevel_tf.NormalPrior alone. "
                    "For other priors use bilevel_tf.methods.DARTS(second_order=None). "
                    f"Received: a {type(posterior.prior).__name__} of "
                    f"'{posterior.mean.path}'"
                )
        shared = _find_acting_elsewhere(network)
        if shared:
            raise ValueError(
                f"GravesUpdate sets only priors, and {', '.join(shared)} acts "
                "elsewhere as well. Make it two hyperparameters, or use "
                "bilevel_tf.methods.DARTS(second_order=None). "
                f"Received: {', '.join(shared)}"
            )
        reached = {
            h.name for kind in ("mean", "precision") for h in _find_tuned(network, kind)
        }
        lost = [name for name in network.hyperparameters.names if name not in reached]
        if lost:
            raise ValueError(
                f"GravesUpdate sets only priors, and {', '.join(lost)} is in no prior "
                "of a variational layer. Make it a number, or use "
                "bilevel_tf.methods.DARTS(second_order=None). "
                f"Received: {', '.join(lost)}"
            )

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """Set m, then A⁻¹, to their best values.

        Arguments as in `Method`; the logs are empty.
        """
        space = network.hyperparameters
        for kind, best in (
            ("mean", _find_best_mean),
            ("precision", _find_best_precision),
        ):
            values = {h.name: best(network, h) for h in _find_tuned(network, kind)}
            if values:
                space.unconstrained.assign(_move_inside(space, values))
        return {}


def _find_acting_elsewhere(network: Network) -> list[str]:
    """Name the tuned parameters of priors that losses or other layers refer to too."""
    layers = network.layers
    holders = [layer for layer in layers if not isinstance(layer, VariationalLayer)]
    holders += network.losses
    names = {reference.name for holder in holders for reference in references(holder)}
    tuned = _find_tuned(network, "mean") + _find_tuned(network, "precision")
    return sorted(names & {h.name for h in tuned})


def _find_best_mean(network: Network, hyperparameter: Hyperparameter) -> tf.Tensor:
    numerators, denominators = [], []
    for posterior in _find_sharing(network, "mean", hyperparameter):
        mean = tf.convert_to_tensor(posterior.mean)
        precision = mean_value(posterior.prior.precision, mean.dtype)
        numerators.append(precision * mean)
        denominators.append(tf.broadcast_to(precision, mean.shape))
    return _divide_sums(numerators, denominators, hyperparameter.scale.shape)


def _find_best_precision(network: Network, hyperparameter: Hyperparameter) -> tf.Tensor:
    numerators, denominators = [], []
    for posterior in _find_sharing(network, "precision", hyperparameter):
        mean = tf.convert_to_tensor(posterior.mean)
        distance = mean - mean_value(posterior.prior.mean, mean.dtype)
        numerators.append(tf.ones_like(mean))
        denominators.append(tf.square(posterior.scale()) + tf.square(distance))
    return _divide_sums(numerators, denominators, hyperparameter.scale.shape)


def _divide_sums(
    numerators: list[tf.Tensor], denominators: list[tf.Tensor], shape: tuple
) -> tf.Tensor:
    """Divide two sums, over all weights and the axes along which `shape` broadcasts."""
    top, bottom = (
        tf.add_n([_sum_to(tf.cast(t, "float64"), shape) for t in tensors])
        for tensors in (numerators, denominators)
    )
    return top / bottom


def _list_posteriors(network: Network) -> list[Posterior]:
    layers = variational_layers(network.layers, "GravesUpdate")
    return [posterior for layer in layers for posterior in layer.posteriors()]


def _find_tuned(network: Network, kind: str) -> list[Hyperparameter]:
    """Find the hyperparameters that are a "mean" or a "precision", each once."""
    found = [getattr(posterior.prior, kind) for posterior in _list_posteriors(network)]
    found = [h for h in found if isinstance(h, Hyperparameter)]
    return list({h.name: h for h in found}.values())


def _find_sharing(
    network: Network, kind: str, hyperparameter: Hyperparameter
) -> list[Posterior]:
    """Find the posteriors whose prior has the hyperparameter as its `kind`."""
    return [
        posterior
        for posterior in _list_posteriors(network)
        if getattr(getattr(posterior.prior, kind), "name", None) == hyperparameter.name
    ]


def _sum_to(tensor: tf.Tensor, shape: tuple) -> tf.Tensor:
    """Sum over the axes along which `shape` broadcasts."""
    extra = tensor.shape.rank - len(shape)
    tensor = tf.reduce_sum(tensor, list(range(extra)))
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    return tf.reduce_sum(tensor, ones, keepdims=True)


def _move_inside(space: HyperparameterSpace, values: dict[str, tf.Tensor]) -> tf.Tensor:
    """Return the unconstrained vector at values, each moved into its range."""
    inside = {}
    for name, value in values.items():
        scale = space.scales[name]
        if all(map(math.isfinite, scale.ends)):
            # On the unconstrained scale the ends themselves are at infinity.
            ends = scale.constrain(tf.constant([-_FAR, _FAR], "float64"))
            value = tf.clip_by_value(value, ends[0], ends[1])
        inside[name] = value
    return space.unconstrain(inside)


# Unconstrained value at which a sigmoid in single precision is not yet 1.
_FAR = 15.0
