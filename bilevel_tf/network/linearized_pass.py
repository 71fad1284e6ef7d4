"""Gradients of the loss of a linearised network."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _replicas
from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.autodiff.tangents import Tangents
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.network.masks import hand_on_masks
from bilevel_tf.network.network import Network


def linearized_gradients(
    network: Network,
    x: Any,
    y: Any,
    sample_weight: Any,
    variables: list[keras.Variable],
    scale_loss: Callable[[tf.Tensor], tf.Tensor],
    *,
    delta: tf.Tensor,
    values: Any,
) -> tuple[tf.Tensor, Any, list[tf.Tensor | None]]:
    """Compute gradients of L_T at y + J_yw Δw (Eq. 3.13 of the Δ-STN paper).

    Differentiating a Jacobian-vector product is not necessary. The layers return their
    ordinary outputs y, and a forward accumulator gives the tangents J_yw Δw of these.
    The loss is differentiated at y + J_yw Δw with respect to its argument only, and
    one ordinary backward pass from y applies J_ywᵀ to that gradient.

    Losses that layers add (activity regularizers, `add_loss`) are linearised in the
    same way, as if they were outputs. Weight penalties are those of the weights
    w + Δw. The gradient with respect to an ordinary weight is J_ywᵀ g; the effect that
    the weight has on J_yw itself is left out.

    Args:
        network: The network.
        x, y, sample_weight: A batch.
        variables: Variables with respect to which the loss is differentiated.
        scale_loss: Function that is applied to the loss before it is differentiated,
            such as `scale_loss` of an optimizer.
        delta: δ, the perturbation of every example on the unconstrained scale,
            `[batch, h]`.
        values: Values of the hyperparameters for every example, on the constrained
            scale.

    Returns:
        The loss, a scalar; the predictions of the linearised network; and one gradient
        per variable, `None` for a variable without effect.

    Reference:
        Bae & Grosse, "Delta-STN: Efficient Bilevel Optimization for Neural Networks
        using Structured Response Jacobians", 2020, section 3.3.
    """
    sources = [v.value for v in variables]
    heads, peeled = network.output_heads()
    attributes = {"delta": delta, "values": values}
    with (
        Tangents(delta, delta) as tangents,
        tf.GradientTape(watch_accessed_variables=False) as tape,
    ):
        tape.watch(sources)
        with begin_pass(tangents=tangents, peeled=peeled, **attributes) as present:
            outputs = network(x, training=True)
            added = network.added_losses()
        _check_left_out(present)
        targets = [*keras.tree.flatten(outputs), *added]
    moved = [_add_tangent(target, tangents.of(target)) for target in targets]
    # An output may be of whole numbers, which nothing moves.
    real = [i for i, target in enumerate(targets) if target.dtype.is_floating]
    with tf.GradientTape(watch_accessed_variables=False) as penalty_tape:
        penalty_tape.watch(sources)
        with begin_pass(**attributes):
            penalties = network.penalties()
        # Unlike the loss, penalties do not come from Keras, which divides both.
        penalty = _replicas.take_share(tf.add_n(penalties)) if penalties else None
        scaled_penalty = None if penalty is None else scale_loss(penalty)
    with tf.GradientTape(watch_accessed_variables=False) as loss_tape:
        sites = [moved[i] for i in real]
        loss_tape.watch(sites)
        count = len(targets) - len(added)
        flat = [head(t) for head, t in zip(heads, moved[:count], strict=True)]
        predictions = keras.tree.pack_sequence_as(outputs, flat)
        hand_on_masks(outputs, predictions)
        with begin_pass(losses=tuple(moved[count:]), **attributes):
            loss = network.compute_loss(x, y, predictions, sample_weight, training=True)
        scaled = scale_loss(loss)
    cotangents = dense_gradients(loss_tape, scaled, sites, unconnected_gradients="zero")
    reals = [targets[i] for i in real]
    gradients = dense_gradients(tape, reals, sources, output_gradients=cotangents)
    if penalty is not None:
        loss += penalty
        extra = dense_gradients(penalty_tape, scaled_penalty, sources)
        gradients = [
            _add_gradients(a, b) for a, b in zip(gradients, extra, strict=True)
        ]
    return loss, predictions, gradients


def _check_left_out(present):
    """Raise a `ValueError` if a layer applied an activation that heads apply again."""
    for layer in present.peeled - present.left_out:
        raise ValueError(
            "The loss is linearised before the final activation, which the last layer "
            "must leave out: `call` must apply it with `self.activate(outputs)`. "
            f"Received: {type(layer).__name__} '{layer.name}', which applies "
            f"{layer.activation.__name__} by itself"
        )


def _add_tangent(target, tangent):
    return tf.identity(target) if tangent is None else target + tangent


def _add_gradients(a, b):
    if a is None or b is None:
        return b if a is None else a
    return a + b
