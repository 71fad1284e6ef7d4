"""From a Keras model to hyper-layers and back."""

import keras
import numpy as np

from bilevel_tf import _keras
from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.configs import numbers_of
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.layers.counterparts import HYPER, VARIATIONAL, plain_class
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.linear_map import linear_maps
from bilevel_tf.layers.variational.variational_layer import VariationalLayer
from bilevel_tf.regularizers.given import check_regularizers
from bilevel_tf.regularizers.normal_prior import NormalPrior
from bilevel_tf.regularizers.norms import L1, L1L2, L2
from bilevel_tf.regularizers.weight_prior import WeightPrior

_VARIATIONAL_ARGUMENTS = ("prior", "bias_prior", "estimator", "initial_scale", "seed")
_PLAIN_REGULARIZERS = {
    L1: keras.regularizers.L1,
    L2: keras.regularizers.L2,
    L1L2: keras.regularizers.L1L2,
}


def hyper_network(model, tune):
    """The model's graph with hyper-layers in place of their counterparts.

    Args:
        model: A built Sequential or functional Keras model.
        tune: Dict from layer names or Keras layer classes to dicts of arguments.

    Returns:
        Inputs and outputs in the model's structure, with the model's weights.

    Raises:
        ValueError: If the model is subclassed or not built, or `tune` names a layer
            or class that the model does not have, or an argument that it lacks.
    """
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        raise ValueError(
            "Only Sequential and functional models can be converted. Received: "
            f"model of class {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built before it is converted: give it an Input, or call "
            "it on data once."
        )
    _check_tuned(model, tune)

    def swap(layer):
        arguments = {**tune.get(type(layer), {}), **tune.get(layer.name, {})}
        hyper = _counterpart(layer)
        config = layer.get_config()
        known = list(config)
        if type(layer) in VARIATIONAL:
            known += _VARIATIONAL_ARGUMENTS
            if "prior" in arguments:
                hyper = VARIATIONAL[type(layer)]
        unknown = set(arguments) - set(known)
        if unknown:
            raise ValueError(
                f"`tune` gives {type(layer).__name__} '{layer.name}' unknown "
                f"arguments: {', '.join(sorted(unknown))}. It has: "
                f"{', '.join(sorted(known))}"
            )
        lost = set(arguments).intersection(_VARIATIONAL_ARGUMENTS) - set(config)
        if lost and "prior" not in arguments:
            raise ValueError(
                f"`tune` gives {type(layer).__name__} '{layer.name}' "
                f"{', '.join(sorted(lost))} without a `prior`, which makes it a "
                "variational layer."
            )
        if hyper is type(layer) and not arguments:
            return type(layer).from_config(config)
        check_regularizers(arguments, f"{type(layer).__name__} '{layer.name}'")
        return _make_tuned(hyper, config, arguments)

    def weights(new, old):
        # The scales of a new posterior keep their initial values.
        count = len(old.weights)
        return [*old.get_weights(), *new.get_weights()[count:]]

    return _structure(_clone(model, swap, weights))


def _make_tuned(kind, config, arguments):
    """A layer of that class, or an error that leaves out Keras's dump of the config."""
    try:
        return kind.from_config({**config, **arguments})
    except TypeError as error:
        cause = error.__context__
        if not arguments or not isinstance(cause, (TypeError, ValueError)):
            raise
        given = ", ".join(f"{name}={show(value)}" for name, value in arguments.items())
        received = "" if "Received" in str(cause) else f" Received: {given}"
        raise ValueError(
            f"`tune` gives {kind.__name__} '{config.get('name')}' what it cannot take. "
            f"{cause}{received}"
        ) from error


def plain_network(model):
    """A plain Keras model that predicts as the `BilevelModel` does.

    Args:
        model: A `BilevelModel`.

    Returns:
        A functional Keras model without classes of this library, at the current
        hyperparameters.
    """
    delta = model.method and model.method.prediction_delta(model.hyperparameters)

    def swap(layer):
        plain = plain_class(type(layer))
        # A variational layer has arguments that its Keras class does not have.
        config = plain.get_config(layer)
        config = {key: _current(layer, key, value) for key, value in config.items()}
        return plain.from_config(config)

    def weights(new, old):
        if isinstance(old, VariationalLayer):
            return [posterior.mean.numpy() for posterior in old.posteriors()]
        if isinstance(old, HyperLayer):
            return _weights_in_force(old, delta)
        return [w.numpy() for w in old.weights]

    clone = _clone(functional_model(model), swap, weights)
    clone.name = model.name
    return clone


def _counterpart(layer):
    """The class of ours for a layer; its own if it has none or cannot respond."""
    kind = type(layer)
    counterpart = HYPER.get(kind, kind)
    if issubclass(counterpart, HyperLayer) and linear_maps(layer) is None:
        return kind
    return counterpart


def _weights_in_force(layer, delta):
    """The weights of a hyper-layer without those of its responses, at δ or at none."""
    moved = {}
    if delta is not None:
        weights = zip(layer.responding_weights(), layer.weights_at(delta), strict=True)
        moved = {id(variable): value for variable, value in weights}
    responses = {id(v) for v in layer.response_variables}
    own = [v for v in layer.weights if id(v) not in responses]
    return [moved.get(id(v), v).numpy() for v in own]


def functional_model(model):
    """The graph of a `BilevelModel` as a functional Keras model of the same layers."""
    inputs, outputs = _keras.get_graph_inputs(model), _keras.get_graph_outputs(model)
    return keras.Model(inputs, outputs, name=model.name)


def graph_from_config(config, custom_objects=None):
    """Inputs, outputs and name of a functional model's config."""
    network = keras.Model.from_config(config, custom_objects)
    return (*_structure(network), network.name)


def _clone(model, swap, weights):
    clone = keras.models.clone_model(model, clone_function=swap, recursive=True)
    pairs = zip(_leaves(clone), _leaves(model), strict=True)
    for new, old in pairs:
        if old.weights:
            new.set_weights(weights(new, old))
        if hasattr(new, "finalize_state"):
            new.finalize_state()
    return clone


def _leaves(model):
    """The layers in order; a nested model counts as its own layers."""
    leaves: list[keras.Layer] = []
    for layer in model.layers:
        nested = isinstance(layer, keras.Model)
        leaves.extend(_leaves(layer) if nested else [layer])
    return leaves


def _structure(model):
    return _keras.get_graph_inputs(model), _keras.get_graph_outputs(model)


def _current(layer, key, value):
    """A config entry with tuned arguments at their current values."""
    own = getattr(layer, key, None)
    if isinstance(own, (Hyperparameter, list, tuple, dict)) and references(own):
        return numbers_of(own)
    if type(own) not in _PLAIN_REGULARIZERS and not isinstance(own, WeightPrior):
        return value
    plain = _plain_regularizer(own)
    return plain and keras.saving.serialize_keras_object(plain)


def _plain_regularizer(own):
    """Keras's penalty of the same value, or `None` if Keras has no such penalty.

    Keras has none with a factor per weight, and none around a mean other than zero.
    """
    if type(own) not in _PLAIN_REGULARIZERS and not isinstance(own, NormalPrior):
        return None
    numbers = {
        name: np.asarray(value, float) for name, value in numbers_of(vars(own)).items()
    }
    if any(number.ndim for number in numbers.values()):
        return None
    if isinstance(own, NormalPrior):
        half = 0.5 * numbers["precision"] / own.data_size
        return None if numbers["mean"] else keras.regularizers.L2(float(half))
    plain = _PLAIN_REGULARIZERS[type(own)]
    return plain(**{name: float(n) for name, n in numbers.items()})


def _check_tuned(model, tune):
    nested = isinstance(tune, dict) and all(isinstance(v, dict) for v in tune.values())
    if not nested:
        raise ValueError(
            "`tune` must be a dict from layers to dicts of arguments, such as "
            "{'dense': {'kernel_regularizer': bilevel_tf.L2(hp['l2'])}}. "
            f"Received: tune={tune!r}"
        )
    layers = _leaves(model)
    names, classes = {la.name for la in layers}, {type(la) for la in layers}
    for key in tune:
        if key not in names and key not in classes:
            what = key if isinstance(key, str) else key.__name__
            raise ValueError(
                f"`tune` has '{what}', which no layer of the model is. "
                f"Layers: {', '.join(sorted(names))}"
            )
