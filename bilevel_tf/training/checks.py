"""What can be said at construction or compile instead of ten minutes into a fit."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.noise.dropout import HyperDropout
from bilevel_tf.layers.variational.variational_layer import VariationalLayer
from bilevel_tf.methods.best_response.best_response import BestResponse
from bilevel_tf.methods.best_response.delta_stn import DeltaSTN
from bilevel_tf.methods.method import Method
from bilevel_tf.objectives.objective import Objective
from bilevel_tf.optimizers.tuned import TunedOptimizer
from bilevel_tf.training import rounds

_PEELED = ("softmax", "sigmoid", "log_softmax")


def check_objective(objective):
    """Return `objective`, or raise a `TypeError` that says what one looks like."""
    if isinstance(objective, Objective):
        return objective
    raise TypeError(
        "`objective` must be one objective object such as "
        f"bilevel_tf.objectives.ValidationLoss(). Received: objective={objective!r}"
    )


def check_method(method, objective):
    """Return `method` if it fits the objective; `None` stands for Δ-STN.

    Raises:
        TypeError: If it is no method.
        ValueError: If it fits a best response, and the objective cannot use one.
    """
    if method is None and not objective.responds:
        raise ValueError(
            f"`method` must be given with {type(objective).__name__}: the default, "
            "DeltaSTN, is for the loss on validation data. Use one that differentiates "
            f"training, such as {objective.suggested_method}."
        )
    method = DeltaSTN() if method is None else method
    if isinstance(method, Method):
        if isinstance(method, BestResponse) and not objective.responds:
            raise ValueError(
                f"{type(method).__name__} fits a best response to the loss on "
                f"validation data; with {type(objective).__name__} `method` must be "
                "one that differentiates training, such as "
                f"{objective.suggested_method}."
            )
        return method
    raise TypeError(
        "`method` must be one method object such as bilevel_tf.DeltaSTN() or "
        f"bilevel_tf.STN(). Received: method={method!r}"
    )


def check_responds(model):
    """Raise a `RuntimeError` if no response has been attached."""
    if not model.response_variables:
        raise RuntimeError(
            "The model has no best response: compile it with a method that fits one, "
            "such as bilevel_tf.DeltaSTN(), and fit it."
        )


def check_values(space, values):
    """Raise a `ValueError` for an unknown name, or a known value out of its range."""
    space.check_names(values)
    for name, value in values.items():
        if not tf.is_symbolic_tensor(value):
            space.scales[name].check_value(value, name)


def check_penalties_respond(model):
    """Raise a `ValueError` where a tuned penalty is on a layer without response."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, HyperLayer):
            continue
        if isinstance(layer, VariationalLayer) and references(layer):
            raise ValueError(
                f"'{references(layer)[0].name}' acts on {type(layer).__name__} "
                f"'{layer.name}', whose weights cannot respond to it. Use a method "
                "that differentiates training, such as bilevel_tf.ConjugateGradient(), "
                "or objective=bilevel_tf.ELBO() with "
                "bilevel_tf.methods.DARTS(second_order=None)."
            )
        for key, regularizer in vars(layer).items():
            if key.endswith("regularizer") and references(regularizer):
                raise ValueError(
                    f"`{key}` of {type(layer).__name__} '{layer.name}' has a tuned "
                    "factor, but the layer's weights cannot respond to it. Use "
                    "bilevel_tf.HyperDense or HyperConv2D, or a fixed factor."
                )


def check_hyperparameters_differentiable(model, method):
    """Raise a `ValueError` where a hyperparameter's effect has no derivative.

    Args:
        model: The model.
        method: Name of the method that is to differentiate.
    """
    fitting = "DeltaSTN, CenteredSTN, STN or Hypernetwork"
    for layer in model._flatten_layers(include_self=False):
        rate = getattr(layer, "rate", None)
        if isinstance(layer, HyperDropout) and isinstance(rate, Hyperparameter):
            raise ValueError(
                f"{method} cannot reach '{rate.name}', the rate of the dropout in "
                f"'{layer.name}': a unit is kept or not, so that the loss has no "
                "derivative in the rate. Use a method that fits a response: "
                f"{fitting}; or tune HyperGaussianNoise instead."
            )
    for name, scale in model.hyperparameters.scales.items():
        if not scale.differentiable:
            raise ValueError(
                f"{method} cannot reach '{name}', {scale.describe()}, which has no "
                f"derivative. Use a method that fits a response: {fitting}."
            )
        if scale.prior is not None:
            raise ValueError(
                f"`prior` of '{name}' has no effect under {method}, which keeps no "
                f"distribution of hyperparameters. Leave it out, or use {fitting}."
            )


def check_optimizer_not_tuned(model, method):
    """Raise a `ValueError` where hyperparameters act through the optimizer."""
    if isinstance(model.stepping_optimizer, TunedOptimizer):
        names = ", ".join(f"`{name}`" for name in model.stepping_optimizer.functions)
        raise ValueError(
            f"{method} cannot reach {names} of the optimizer, which are not in the "
            "training loss. Use a method that follows the optimizer's steps: Unrolled, "
            "Greedy, ForwardMode, RMAD or DrMAD; or HypergradientDescent for learning "
            "rates alone."
        )


def check_factor_shapes(model):
    """Raise a `ValueError` where a penalty factor does not fit its weight."""
    for variable in model.trainable_variables:
        for factor in references(variable.regularizer):
            target = tuple(variable.shape)
            if not factor.broadcasts_to(target):
                raise ValueError(
                    f"Hyperparameter '{factor.name}' of shape {factor.scale.shape} "
                    f"cannot be the penalty factor of '{variable.path}' of shape "
                    f"{target}: give it shape (), {target}, or one that broadcasts to "
                    "that."
                )


def check_factors_scalar(model, method):
    """Raise a `ValueError` where a penalty has a factor per weight or unit."""
    for variable in model.trainable_variables:
        for factor in references(variable.regularizer):
            if factor.scale.shape != ():
                raise ValueError(
                    f"{method} needs one penalty factor per weight tensor. Received: "
                    f"'{factor.name}' of shape {factor.scale.shape}. Use a method "
                    "that differentiates training, such as bilevel_tf.Neumann()."
                )


def check_log_names(model):
    """Raise a `ValueError` if a hyperparameter is called as a metric is."""
    taken = {"loss", *model.objective.log_names}
    taken |= {metric.name for metric in model.metrics}
    config = model._compile_config.config
    compiled = [config.get("metrics"), config.get("weighted_metrics")]
    taken |= {_metric_name(metric) for metric in keras.tree.flatten(compiled)}
    if len(model.outputs) > 1:
        taken |= {f"{o}_{name}" for o in model.output_names for name in taken}
    taken |= {f"val_{name}" for name in taken}
    for name in rounds.log_names(model.hyperparameters):
        if name in taken:
            raise ValueError(
                f"Hyperparameter '{name}' has the name of a loss or metric, so that "
                "`fit` could not show both. Choose another name."
            )


def _metric_name(metric):
    if isinstance(metric, str):
        return metric
    return getattr(metric, "name", getattr(metric, "__name__", None))


def check_losses_fit_outputs(model, losses):
    """Raise a `ValueError` for a softmax or sigmoid under a loss on logits."""
    pairs = loss_per_output(model, losses)
    for loss, (layer, activation) in zip(pairs, _final_activations(model), strict=True):
        if activation in _PEELED and getattr(loss, "from_logits", False):
            raise ValueError(
                f"The output of '{layer.name}' goes through {activation}, and its loss "
                f"{type(loss).__name__} has from_logits=True. Leave out the "
                "activation, or set from_logits=False."
            )


def check_outputs_linearize(model):
    """Raise a `ValueError` where an output's softmax is a layer of its own."""
    for layer, activation in _final_activations(model):
        if activation in _PEELED and not isinstance(layer, HyperLayer):
            raise ValueError(
                f"The loss is linearised before the final {activation}, which is in "
                f"{type(layer).__name__} '{layer.name}', not in a hyper-layer. Give it "
                f"to the last layer, as in HyperDense(..., activation='{activation}'), "
                "or leave it out and set from_logits=True in the loss."
            )


def output_heads(model):
    """What turns linearised outputs into predictions, and the layers peeled for it."""
    heads, peeled = [], set()
    for layer, activation in _final_activations(model):
        peel = activation in _PEELED and isinstance(layer, HyperLayer)
        heads.append(layer.activation if peel else _unchanged)
        if peel:
            peeled.add(layer)
    return heads, frozenset(peeled)


def _unchanged(tensor):
    return tensor


def _final_activations(model):
    """The layer that makes each flat output, and its activation's name."""
    finals = []
    for output in model.outputs:
        layer = _maker(output)
        if isinstance(layer, keras.layers.Softmax):
            finals.append((layer, "softmax"))
            continue
        activation = getattr(layer, "activation", None)
        finals.append((layer, getattr(activation, "__name__", None)))
    return finals


def _maker(tensor):
    """The layer that makes a tensor, inside nested models if need be."""
    layer, _, index = tensor._keras_history
    nested = isinstance(layer, keras.Model) and hasattr(layer, "outputs")
    return _maker(layer.outputs[index]) if nested else layer


def loss_per_output(model, losses):
    """The losses in the order of the outputs; `None` where there is none."""
    count = len(model.outputs)
    if isinstance(losses, dict):
        keys = model.output_names
        if isinstance(model._outputs_struct, dict):
            order = keras.tree.flatten({k: k for k in model._outputs_struct})
            keys = [k if k in losses else n for k, n in zip(order, keys, strict=True)]
        return [losses.get(key) for key in keys]
    flat = keras.tree.flatten(losses)
    return flat if len(flat) == count else flat[:1] * count or [None] * count
