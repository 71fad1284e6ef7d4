"""From a Keras model to hyper-layers and back."""

import contextlib
import inspect
from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.layers.counterparts import HYPER, VARIATIONAL, plain_class
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.linear_map import linear_maps
from bilevel_tf.layers.variational.variational_layer import VariationalLayer
from bilevel_tf.regularizers.given import check_regularizers
from bilevel_tf.training.conversion import cloning, layer_state
from bilevel_tf.training.conversion.convertible import check_convertible
from bilevel_tf.training.conversion.plain_config import (
    VARIATIONAL_ARGUMENTS,
    plain_config,
)
from bilevel_tf.training.reasons import shorten


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
    check_convertible(model)
    _check_tuned(model, tune)

    def arguments_of(layer):
        return {**tune.get(type(layer), {}), **tune.get(layer.name, {})}

    copy, pairs = cloning.clone(model, lambda la: _hyper_layer(la, arguments_of(la)))
    for old, new in pairs:
        if cloning.is_transparent(old):
            _keras.set_own_trainable(new, old.trainable)
        elif isinstance(old, keras.Layer):
            # The scales of a new posterior keep their initial values.
            layer_state.copy_state(old, new, _weights_in_force(old, new, None))
            if "trainable" not in arguments_of(old):
                layer_state.copy_flags(old, new)
    return _structure(_as_graph(copy))


def plain_network(model):
    """A plain Keras model that predicts as the `BilevelModel` does.

    Args:
        model: A `BilevelModel`.

    Returns:
        A functional Keras model without classes of this library, at the current
        hyperparameters.

    Raises:
        ValueError: If a layer of the user's own cannot be copied, or keeps
            hyperparameters that its config does not tell.
    """
    if not cloning.is_ordinary(model):
        raise ValueError(
            f"{type(model).__name__} '{model.name}' has a `call` of its own, which a "
            "plain Keras model of its graph would not have. Put it into a layer of the "
            "graph, or use export."
        )
    delta = model.method and model.method.prediction_delta(model.hyperparameters)

    def plain_layer(layer):
        with _naming(layer):
            config = plain_config(layer, model.hyperparameters)
        return _make(plain_class(type(layer)), config, layer)

    copy, pairs = cloning.clone(functional_model(model), plain_layer)
    for old, new in pairs:
        if cloning.is_transparent(old):
            _keras.set_own_trainable(new, old.trainable)
        elif isinstance(old, keras.Layer):
            _check_untuned(new)
            layer_state.copy_state(old, new, _weights_in_force(old, new, delta))
            layer_state.copy_flags(old, new)
    _keras.set_own_trainable(copy, model.trainable)
    return copy


def keep_own(model, new):
    """Return a new model that has the flag and the attributes of another one."""
    _keras.set_own_trainable(new, model.trainable)
    layer_state.copy_attributes(model, new)
    return new


def _hyper_layer(layer, arguments):
    """The layer that stands for one of Keras, with some arguments changed."""
    hyper = _counterpart(layer)
    with _naming(layer):
        config = layer.get_config()
    known = {*config, *_constructor_arguments(hyper)}
    if type(layer) in VARIATIONAL:
        known.update(VARIATIONAL_ARGUMENTS)
        if "prior" in arguments:
            hyper = VARIATIONAL[type(layer)]
    unknown = set(arguments) - known
    if unknown:
        raise ValueError(
            f"`tune` gives {type(layer).__name__} '{layer.name}' unknown "
            f"arguments: {', '.join(sorted(unknown))}. It has: "
            f"{', '.join(sorted(known))}"
        )
    lost = set(arguments).intersection(VARIATIONAL_ARGUMENTS) - set(config)
    if lost and "prior" not in arguments:
        raise ValueError(
            f"`tune` gives {type(layer).__name__} '{layer.name}' "
            f"{', '.join(sorted(lost))} without a `prior`, which makes it a "
            "variational layer."
        )
    check_regularizers(arguments, f"{type(layer).__name__} '{layer.name}'")
    return _make(hyper, {**config, **arguments}, layer, arguments)


def _make(layer_class, config, layer, changed=()):
    """The new layer of a config, with what the config does not tell."""
    with _naming(layer):
        try:
            new = layer_class.from_config(config)
        except TypeError as error:
            cause = error.__context__
            if not changed or not isinstance(cause, (TypeError, ValueError)):
                raise
            raise _explain_tuned(layer_class, layer, changed, cause) from error
    if isinstance(layer, keras.Layer):
        layer_state.copy_attributes(layer, new, changed)
    return new


@contextlib.contextmanager
def _naming(layer):
    """Let the error of a layer of the user's own name it, and say what it lacks."""
    try:
        yield
    except Exception as error:
        # Keras's layers, and ours, say themselves what is wrong with an argument.
        if type(layer).__module__.partition(".")[0] in ("keras", "bilevel_tf"):
            raise
        raise ValueError(
            f"{type(layer).__name__} '{layer.name}' cannot be converted, because a "
            "copy cannot be made from its config. Give it a constructor that takes "
            "**kwargs and a `get_config` that returns all other arguments, or build "
            "the BilevelModel around the layer itself: BilevelModel(inputs, outputs, "
            f"hyperparameters=hp). Error: {shorten(error)}"
        ) from error


def _explain_tuned(layer_class, layer, changed, cause):
    """The error that leaves out Keras's dump of the config."""
    given = ", ".join(f"{name}={show(value)}" for name, value in changed.items())
    received = "" if "Received" in str(cause) else f" Received: {given}"
    return ValueError(
        f"`tune` gives {layer_class.__name__} '{layer.name}' what it cannot take. "
        f"{cause}{received}"
    )


def _constructor_arguments(layer_class):
    """Names of the arguments of a layer class that its config need not have."""
    own = inspect.signature(layer_class.__init__).parameters.values()
    names = {p.name for p in own if p.kind is not p.VAR_POSITIONAL} - {"self"}
    passed_on = {p.name for p in own if p.kind is p.VAR_KEYWORD}
    if passed_on and issubclass(layer_class, keras.Layer):
        base = inspect.signature(keras.layers.Layer.__init__).parameters.values()
        names |= {p.name for p in base if p.kind is p.KEYWORD_ONLY}
    return names - passed_on


def _as_graph(model):
    """A model of which the graph is all; a `call` of its own goes inside."""
    if cloning.is_ordinary(model):
        return model
    inputs = keras.tree.map_structure(
        cloning.copy_input, _keras.get_graph_inputs(model)
    )
    return keras.Model(inputs, model(inputs))


def _counterpart(layer):
    """The class of ours for a layer; its own if it has none or cannot respond."""
    kind = type(layer)
    counterpart = HYPER.get(kind, kind)
    if issubclass(counterpart, HyperLayer) and linear_maps(layer) is None:
        return kind
    return counterpart


def _weights_in_force(layer, new, delta):
    """The weights of a layer for its plain copy, at δ or at none."""
    parts = layer_state.walk(layer)
    moved: dict[int, Any] = {}
    if delta is not None:
        for part in parts:
            if isinstance(part, HyperLayer) and part.responses:
                weights = part.responding_weights()
                moved |= zip(map(id, weights), part.weights_at(delta), strict=True)
    weights = layer_state.own_weights(layer)
    if len(weights) > len(layer_state.own_weights(new)):
        # The copy has the means of posteriors and not their scales.
        variational = [part for part in parts if isinstance(part, VariationalLayer)]
        scales = {id(p.raw_scale) for part in variational for p in part.posteriors()}
        weights = [v for v in weights if id(v) not in scales]
    return [moved.get(id(v), v).numpy() for v in weights]


def _check_untuned(layer):
    """Check that a plain copy holds numbers and no hyperparameters."""
    for part in layer_state.walk(layer):
        found = references(part)
        if found:
            raise ValueError(
                f"{type(layer).__name__} '{layer.name}' cannot become a plain Keras "
                f"layer: its copy still holds the hyperparameter '{found[0].name}'. "
                "Let the layer take it as an argument of its constructor and return "
                "it in `get_config` by bilevel_tf.hyperparameters.config_of."
            )


def functional_model(model):
    """The graph of a `BilevelModel` as a functional Keras model of the same layers."""
    inputs, outputs = _keras.get_graph_inputs(model), _keras.get_graph_outputs(model)
    return keras.Model(inputs, outputs, name=model.name)


def graph_from_config(config, custom_objects=None, sharing=None):
    """Inputs, outputs and name of a functional model's config."""
    network = keras.Model.from_config(config, custom_objects)
    if sharing is not None:
        network = cloning.share(network, sharing)
    return (*_structure(network), network.name)


def _structure(model):
    return _keras.get_graph_inputs(model), _keras.get_graph_outputs(model)


def _check_tuned(model, tune):
    nested = isinstance(tune, dict) and all(isinstance(v, dict) for v in tune.values())
    if not nested:
        raise ValueError(
            "`tune` must be a dict from layers to dicts of arguments, such as "
            "{'dense': {'kernel_regularizer': bilevel_tf.L2(hp['l2'])}}. "
            f"Received: tune={tune!r}"
        )
    layers = cloning.graph_layers(model)
    names, classes = {la.name for la in layers}, {type(la) for la in layers}
    for key in tune:
        if not isinstance(key, (str, type)):
            raise ValueError(
                "The keys of `tune` must be layer names or Keras layer classes. "
                f"Received: {key!r}; use its name, '{getattr(key, 'name', '')}'"
            )
        if key not in names and key not in classes:
            what = key if isinstance(key, str) else key.__name__
            raise ValueError(
                f"`tune` has '{what}', which no layer of the model is. "
                f"Layers: {', '.join(sorted(names))}"
            )
