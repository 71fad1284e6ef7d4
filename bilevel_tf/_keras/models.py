"""Private parts of Keras models: their graph, what they are compiled with, steps."""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.trainers.compile_utils import CompileLoss

from bilevel_tf._keras.graphs import TracedGraphs


def flatten_layers(model: keras.Layer, include_self: bool = False) -> list[keras.Layer]:
    """Return all layers of a model, those inside nested layers and models as well.

    Args:
        model: A model, or a layer with sublayers.
        include_self: Whether the model itself comes first. Defaults to `False`.
    """
    return list(model._flatten_layers(include_self=include_self))


def add_layer(model: keras.Model, layer: keras.Layer) -> None:
    """Make `layer` one of the layers of a functional model, unless it is one already.

    Older releases of Keras 3 track the layers of the graph alone, and not a layer that
    is an attribute of the model.
    """
    if not any(known is layer for known in model._layers):
        model._layers.append(layer)


class CopiedByKeras:
    """Mixin for a functional model that is told when Keras rebuilds its graph.

    `keras.models.clone_model` makes symbolic outputs from copies of all layers, and
    calls the class of the model with these. It passes nothing else on.
    """

    def graph_rebuilt(self, outputs: Any) -> None:
        """Called with new outputs before a model is made of them.

        An ordinary call of the model leads here too.
        """

    def _run_through_graph(self, *args, **kwargs):
        outputs = super()._run_through_graph(*args, **kwargs)
        self.graph_rebuilt(outputs)
        return outputs


def get_graph_inputs(model: keras.Model) -> Any:
    """Return the symbolic inputs of a functional or Sequential model, as structured."""
    return _get_functional(model)._inputs_struct


def get_graph_outputs(model: keras.Model) -> Any:
    """Return the symbolic outputs of a functional or Sequential model, as structured.

    The public `model.outputs` is flat.
    """
    return _get_functional(model)._outputs_struct


def _get_functional(model):
    return model._functional if isinstance(model, keras.Sequential) else model


def get_compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return what a compiled model was given, by the names of `compile`'s arguments.

    Unlike `get_compile_config`, it returns the objects themselves.
    """
    return dict(model._compile_config.config)


def set_compile_argument(model: keras.Model, name: str, value: Any) -> None:
    """Make a compiled model save another value for an argument of `compile`."""
    model._compile_config.config[name] = value


class CombinedLoss(CompileLoss):
    """The losses of all outputs as one, of which no metrics are kept.

    Keras makes one of its own class of what `compile` is given as `loss`, with a metric
    for each of several outputs. These would stand in the logs beside those of the
    training loss, and may be made in the middle of a step.

    Args:
        loss: Loss as `compile` takes it.
        loss_weights: Factors of the outputs' losses, likewise, or `None`.
        output_names: Names of the flat outputs.

    Attributes:
        mean: A metric named "outer_loss", for whoever evaluates the loss.
    """

    def __init__(self, loss: Any, loss_weights: Any, output_names: list[str]):
        super().__init__(loss, loss_weights, output_names=output_names)
        self._tracker = types.SimpleNamespace(add_to_store=lambda *_: None)
        self.mean = keras.metrics.Mean(name="outer_loss")

    @property
    def metrics(self) -> list[None]:
        """One entry per loss, none of them a metric."""
        return [None for _ in self._flat_losses or []]


@contextlib.contextmanager
def compiled_loss(model: keras.Model, loss: CombinedLoss) -> Iterator[None]:
    """Make a compiled model compute another loss of its outputs inside the block."""
    given = model._compile_loss
    model._compile_loss = loss
    try:
        yield
    finally:
        model._compile_loss = given


def check_compiled(model: keras.Model, method: str) -> None:
    """Raise Keras's `ValueError` if a model is not compiled.

    Args:
        model: The model.
        method: Name of the method that was called too early, for the message.
    """
    model._assert_compile_called(method)


def get_strategy(model: keras.Model) -> tf.distribute.Strategy | None:
    """Return the strategy that the model was made under, or `None`.

    The public `distribute_strategy` returns the default strategy instead of `None`.
    """
    return model._distribute_strategy


def make_step_function(model: keras.Model, step: Callable) -> Callable:
    """Return Keras's function of a data iterator that runs `step` on its next batch.

    It compiles `step` and distributes it as the model is compiled, and takes
    `model.steps_per_execution` batches. Nothing of TensorFlow holds its graphs when the
    function is gone.
    """
    graphs = TracedGraphs()

    def noting_step(data):
        graphs.note()
        return step(data)

    function = model._make_function(noting_step)

    def forgetting_function(iterator):
        outputs = function(iterator)
        graphs.forget()
        return outputs

    return forgetting_function


def update_mean_loss(model: keras.Model, loss: tf.Tensor, count: tf.Tensor) -> None:
    """Add a batch of `count` examples to the mean that `fit` shows as "loss"."""
    model._loss_tracker.update_state(loss, sample_weight=count)


def is_graph(model: keras.Layer) -> bool:
    """Whether a layer is a functional model or a Sequential model that is built."""
    return isinstance(model, Functional) or (
        isinstance(model, keras.Sequential) and model._functional is not None
    )


def runs_its_graph(model: keras.Layer) -> bool:
    """Whether a call of a functional or Sequential model runs its graph and no more.

    A subclass may do something else in a `call` of its own.
    """
    return type(model).call in (Functional.call, keras.Sequential.call)


def takes_graph(model_class: type[keras.Model]) -> bool:
    """Whether a model class is made as `keras.Model(inputs, outputs, name=...)` is."""
    return functional_like_constructor(model_class)


def run_graph(model: keras.Model, inputs: Any, replace: Callable) -> Any:
    """Return outputs of a functional model's graph on other symbolic inputs.

    Args:
        model: A functional model.
        inputs: Symbolic inputs, in the structure of the model's.
        replace: Function from an operation of the graph, such as a layer, to the one
            that is called in its place.
    """
    return model._run_through_graph(inputs, operation_fn=replace)


def set_own_trainable(layer: keras.Layer, trainable: bool) -> None:
    """Set the flag of a layer alone, and not that of its variables and sublayers."""
    layer._trainable = trainable


def is_saving_to_hdf5() -> bool:
    """Whether Keras is about to write or read a model in the old `.h5` format."""
    return bool(get_global_attribute("use_legacy_config", False))
