"""Gradients of a loss of the linearised network."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff.tangents import Tangents
from bilevel_tf.hyperparameters.pass_in_force import begin_pass


def linearized_gradients(
    network, x, y, sample_weight, variables, scale_loss, *, delta, values
):
    """Gradients of L_T at y + J_yw Δw (Eq. 3.13), without differentiating a JVP.

    The layers answer with their ordinary outputs, whose tangents along δ are J_yw Δw
    and whose cotangents are the linearised network's. So: a forward accumulator
    outside and a tape inside give y and J_yw Δw; the loss is differentiated at
    y + J_yw Δw alone; its gradient there is pulled back from y in one ordinary
    backward pass.

    Losses that layers add (activity regularizers, `add_loss`) are linearised
    likewise, as if they were outputs. Weight penalties are those of the response
    weights. With respect to an ordinary weight the gradient is J_ywᵀ g: its effect
    through J_yw itself is left out.

    Args:
        network: The `Network`.
        x, y, sample_weight: A batch.
        variables: Keras variables to differentiate with respect to.
        scale_loss: Function applied to the loss before it is differentiated.
        delta: δ, `[batch, h]`.
        values: Hyperparameter values of every example.

    Returns:
        Loss, predictions of the linearised network, gradients in order.
    """
    sources = [v.value for v in variables]
    heads, peeled = network.output_heads()
    attributes = {"delta": delta, "values": values}
    with (
        Tangents(delta, delta) as tangents,
        tf.GradientTape(watch_accessed_variables=False) as tape,
    ):
        tape.watch(sources)
        with begin_pass(tangents=tangents, peeled=peeled, **attributes):
            outputs = network(x, training=True)
            added = network.added_losses()
        targets = [*keras.tree.flatten(outputs), *added]
    moved = [_moved(target, tangents.of(target)) for target in targets]
    with tf.GradientTape(watch_accessed_variables=False) as penalty_tape:
        penalty_tape.watch(sources)
        with begin_pass(**attributes):
            penalties = network.penalties()
        penalty = tf.add_n(penalties) if penalties else None
        scaled_penalty = None if penalty is None else scale_loss(penalty)
    with tf.GradientTape(watch_accessed_variables=False) as loss_tape:
        loss_tape.watch(moved)
        count = len(targets) - len(added)
        flat = [head(t) for head, t in zip(heads, moved[:count], strict=True)]
        predictions = keras.tree.pack_sequence_as(outputs, flat)
        with begin_pass(losses=tuple(moved[count:]), **attributes):
            loss = network.compute_loss(x, y, predictions, sample_weight, training=True)
        scaled = scale_loss(loss)
    cotangents = loss_tape.gradient(scaled, moved, unconnected_gradients="zero")
    gradients = tape.gradient(targets, sources, output_gradients=cotangents)
    if penalty is not None:
        loss += penalty
        extra = penalty_tape.gradient(scaled_penalty, sources)
        gradients = [_sum(a, b) for a, b in zip(gradients, extra, strict=True)]
    return loss, predictions, gradients


def _moved(target, tangent):
    return tf.identity(target) if tangent is None else target + tangent


def _sum(a, b):
    if a is None or b is None:
        return b if a is None else a
    return a + b
