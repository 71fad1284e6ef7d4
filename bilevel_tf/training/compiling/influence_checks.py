"""Hyperparameters that reach nothing, and those that lower their own judge."""

import warnings
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.losses import GaussianLikelihood
from bilevel_tf.network.influence import Influence
from bilevel_tf.network.network import Network
from bilevel_tf.network.reach import Reach
from bilevel_tf.training.data.validation_feed import OuterFeed

_LIBRARIES = ("keras", "bilevel_tf")


def check_influences(network: Network) -> frozenset[str]:
    """Check that hyperparameters can be judged, and that none judges itself.

    Args:
        network: The network of a model that is compiled.

    Returns:
        Names of hyperparameters that reach nothing so far, but may do so in `fit`: as
        weights of the examples, or in a loss that is a function of the user's.

    Raises:
        ValueError: If a hyperparameter cannot reach the outer objective.

    Warns:
        UserWarning: If a hyperparameter stands in a loss that judges it.
    """
    held = references(_list_judges(network))
    _warn_of_loss(network, {reference.name for reference in held})
    known = all(map(_is_known, (network.objective, network.method)))
    if not known or _is_settled(network):
        return frozenset()
    try:
        reach = Reach(network, not network.objective.takes_outer_loss)
    except Exception:
        # Whatever a layer raises that cannot be traced without data.
        return frozenset()
    _warn_of_added_losses(reach)
    used = reach.used(network.method.direct_only)
    unused = set(network.hyperparameters.scales) - used
    hidden = not all(map(_is_known, _list_losses(network)))
    waiting = {n for n in unused if hidden or _may_weigh_examples(network, n)}
    refuse_unused(network, unused - waiting)
    return frozenset(waiting)


def settle_influences(model: keras.Model, feed: OuterFeed) -> None:
    """Check what `compile` could not know: example weights and the user's losses.

    Args:
        model: The `BilevelModel`; `waiting_names` are what `check_influences` returned.
        feed: What outer steps draw from.

    Raises:
        ValueError: If a hyperparameter still cannot reach the outer objective.

    Warns:
        UserWarning: If a hyperparameter is read by a loss that judges it.
    """
    network = model.network
    unused = set(model.waiting_names) - {getattr(model.example_weights, "name", None)}
    if not all(map(_is_known, _list_losses(network))):
        spec = feed.find_judged_spec()
        if spec is None:
            return
        try:
            read, judging = _trace_losses(network, spec)
        except Exception:
            # The loss does not fit the data: the first step says so.
            return
        unused -= read | judging
        held = references(_list_judges(network))
        _warn_of_loss(network, judging - {reference.name for reference in held})
    refuse_unused(network, unused)


def refuse_unused(network: Network, names: Iterable[str]) -> None:
    """Raise a `ValueError` that names the hyperparameters, if there are any."""
    names = [name for name in network.hyperparameters.scales if name in set(names)]
    if not names:
        return
    shown = ", ".join(f"'{name}'" for name in names[:5])
    shown += ", …" if len(names) > 5 else ""
    way = (
        "in inference mode and at constant weights, which is all that "
        f"{type(network.method).__name__} sees"
        if network.method.direct_only
        else "neither directly nor through the trained weights"
    )
    raise ValueError(
        f"Nothing that {type(network.objective).__name__} judges depends on "
        f"hyperparameter {shown}: {way}. Give it to a layer, a regularizer of a weight "
        "that is trained, the loss, or a tuned optimizer, on the way to an output that "
        f"has a loss; or leave it out of the HyperparameterSpace. Received: {shown}"
    )


def _warn_of_loss(network: Network, names: set[str]) -> None:
    remedy = (
        "Give `compile` another loss that judges, such as outer_loss='mse'."
        if network.objective.takes_outer_loss
        else "Use objective=bilevel_tf.objectives.ValidationLoss() and give `compile` "
        "an `outer_loss`."
    )
    for name in sorted(names):
        warnings.warn(
            f"Hyperparameter '{name}' stands in the loss that judges it, so that it "
            f"lowers its own judge, whatever the data say. {remedy}",
            UserWarning,
            stacklevel=5,
        )


def _warn_of_added_losses(reach: Reach) -> None:
    for name, layer in reach.judging_themselves().items():
        warnings.warn(
            f"Hyperparameter '{name}' stands in what {type(layer).__name__} "
            f"'{layer.name}' adds to the loss that judges it, so that it lowers its "
            "own judge, whatever the data say. Leave added losses out of the outer "
            "objective: objective=bilevel_tf.objectives.ValidationLoss("
            "added_losses=False).",
            UserWarning,
            stacklevel=5,
        )


def _list_losses(network: Network) -> list:
    return [*network.losses, *network.outer_losses]


def _list_judges(network: Network) -> list:
    """List the losses that judge, without densities: data judge their parameters."""
    return [x for x in network.outer_losses if not isinstance(x, GaussianLikelihood)]


def _trace_losses(network: Network, spec: Any) -> tuple[set[str], set[str]]:
    """Find which hyperparameters the training loss and the outer loss read."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(spec)
    outputs = keras.tree.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype), network.outputs
    )
    parts = [x, y, weight, outputs]
    flat = [s for s in keras.tree.flatten(parts) if isinstance(s, tf.TensorSpec)]

    def run(h, current, *tensors):
        left = iter(tensors)
        x, y, weight, outputs = keras.tree.map_structure(
            lambda s: next(left) if isinstance(s, tf.TensorSpec) else s, parts
        )
        with network.at(network.weights, [h], current=current, losses=()):
            loss = network.compute_loss(x, y, outputs, weight, training=False)
            judge = network.compute_outer_loss(x, y, outputs, weight)
        return {"loss": loss, "judge": judge}

    found = Influence(run, network.hyperparameters, flat)
    return found.names("loss"), found.names("judge")


def _is_settled(network: Network) -> bool:
    """Whether all hyperparameters are factors of penalties that certainly act."""
    penalties = [weight.regularizer for weight in network.weights]
    factors = {reference.name for reference in references(penalties)}
    adding = [
        layer if not _is_known(layer) else layer.activity_regularizer
        for layer in network.layers
    ]
    return (
        factors == set(network.hyperparameters.scales)
        and all(loss is not None for loss in _list_losses(network))
        and not network.method.direct_only
        and not any(references(holder) for holder in adding)
    )


def _may_weigh_examples(network: Network, name: str) -> bool:
    scale = network.hyperparameters.scales[name]
    return network.objective.judged_on == "validation" and len(scale.shape) == 1


def _is_known(part: Any) -> bool:
    """Whether an object, or a function, is one of Keras's or of this library's own.

    A user's own may read hyperparameters in ways that nobody can see from outside.
    """
    if part is None or isinstance(part, (str, dict)):
        return True
    function = getattr(part, "fn", part)
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.partition(".")[0] in _LIBRARIES
