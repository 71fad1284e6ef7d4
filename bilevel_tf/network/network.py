"""What a method or an objective may ask of a model."""

import abc
import contextlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.network.plain_functions import PlainFunctions


class Network(PlainFunctions, abc.ABC):
    """A trained network and its hyperparameters, as methods and objectives see them.

    A `BilevelModel` gives one of these to its `Method` and its `Objective` at every
    stage: `check`, `build`, and the steps. Neither uses anything else of the model, so
    this class is the whole contract between the two sides. Methods and objectives keep
    nothing of a network on themselves: what has to outlive a step goes to `add_state`.

    **What there is.** `hyperparameters` is the space with λ and σ. `weights` are the
    variables that training moves, `responding_layers` those layers whose weights also
    have a best response, `response_variables` the variables of these responses.
    `layers`, `inputs`, `outputs` and `losses` describe the graph, for checks.

    **A pass.** `network(x, training=...)` runs the network and `compute_loss` its loss,
    both under the pass in force (`begin_pass`): with perturbed hyperparameters, with or
    without penalties. Gradients by variables come from a `tf.GradientTape` around the
    two, as in any Keras `train_step`.

    **Plain functions.** `loss`, `predict`, `data_loss`, `penalty` and `example_losses`
    take the values of weights and hyperparameters as arguments, change nothing, and use
    the same random numbers at every call. `problem` packs the losses of the model's
    objective into a `Problem`, which is all that methods that differentiate training
    need.

    **Optimizers.** `optimizer` moves the weights, `response_optimizer` the responses,
    `hyper_optimizer` the hyperparameters; each has Keras's `apply(gradients,
    variables)`.

    **State.** `add_state` makes a variable that is saved with the model; `build` calls
    it, steps read it with `state` or `states`.

    A network may not be compiled yet: a model that is being loaded is built first, so
    that its variables exist. `build` is then called while `compiled` is `False`, and
    there are no optimizers and no losses; `check` is called only on a compiled one.

    Whoever wants to use the methods on something else than a `BilevelModel` implements
    the abstract members; the rest is derived from them.

    Example:

    >>> space = bt.HyperparameterSpace(noise=bt.Uniform(0.0, 1.0, initial=0.1))
    >>> inputs = keras.Input((3,))
    >>> x = bt.HyperGaussianNoise(space["noise"])(inputs)
    >>> model = bt.BilevelModel(inputs, bt.HyperDense(1)(x), hyperparameters=space)
    >>> network = model.network
    >>> [layer.name for layer in network.responding_layers] == [model.layers[-1].name]
    True
    """

    # What there is

    @property
    @abc.abstractmethod
    def compiled(self) -> bool:
        """Whether the model is compiled; if not, it has no optimizers and losses."""

    @property
    @abc.abstractmethod
    def hyperparameters(self) -> HyperparameterSpace:
        """The space of all hyperparameters."""

    @property
    @abc.abstractmethod
    def method(self) -> Any:
        """The `Method` that the model is compiled with, or `None`."""

    @property
    @abc.abstractmethod
    def objective(self) -> Any:
        """The `Objective` that the model is compiled with."""

    @property
    @abc.abstractmethod
    def layers(self) -> list[keras.Layer]:
        """All layers in order, those inside other layers and models too."""

    @property
    @abc.abstractmethod
    def weights(self) -> list[keras.Variable]:
        """The variables that training moves, in order."""

    @property
    @abc.abstractmethod
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All other variables of the layers: statistics, seeds, frozen weights, λ."""

    @property
    @abc.abstractmethod
    def inputs(self) -> Any:
        """The symbolic inputs, structured as the model takes them."""

    @property
    @abc.abstractmethod
    def outputs(self) -> Any:
        """The symbolic outputs, structured as the model returns them."""

    @property
    @abc.abstractmethod
    def output_names(self) -> list[str]:
        """The names of the flat outputs."""

    @property
    @abc.abstractmethod
    def losses(self) -> list:
        """The losses given to `compile`, one per flat output; `None` if it has none."""

    @property
    @abc.abstractmethod
    def loss_weights(self) -> Any:
        """The `loss_weights` given to `compile`, or `None`."""

    @property
    @abc.abstractmethod
    def runs_eagerly(self) -> bool:
        """Whether steps run eagerly, in Python, and not in a graph."""

    @property
    @abc.abstractmethod
    def strategy(self) -> tf.distribute.Strategy | None:
        """The `tf.distribute` strategy that the model was made under, or `None`."""

    @property
    @abc.abstractmethod
    def responding_layers(self) -> list[keras.Layer]:
        """The trainable `HyperLayer`s, whose weights can respond, in order."""

    @property
    @abc.abstractmethod
    def response_variables(self) -> list[keras.Variable]:
        """The variables of the responses that are trained."""

    # A pass

    @abc.abstractmethod
    def __call__(self, x: Any, training: bool) -> Any:
        """Run the network under the pass in force.

        Args:
            x: Inputs, structured as `inputs`, `[batch, ...]` each.
            training: As in Keras.

        Returns:
            Tensors structured as `outputs`.
        """

    @abc.abstractmethod
    def compute_loss(
        self, x: Any, y: Any, predictions: Any, sample_weight: Any, training: bool
    ) -> tf.Tensor:
        """The compiled loss of a batch plus the losses that the pass in force asks for.

        Args:
            x, y: The batch.
            predictions: Outputs of the network for `x`.
            sample_weight: Weights of the examples, or `None`.
            training: Whether the batch trains the weights; tuned example weights then
                count.

        Returns:
            A scalar.
        """

    @abc.abstractmethod
    def example_weights(self, sample_weight: Any) -> Any:
        """The weights of a batch's examples in force: tuned ones, or those given."""

    @abc.abstractmethod
    def added_losses(self) -> list[tf.Tensor]:
        """What layers added in the last pass: `add_loss`, activity regularizers."""

    @abc.abstractmethod
    def penalties(self) -> list[tf.Tensor]:
        """Weight penalties under the pass in force, scalars.

        In a perturbed pass those of the weights w + Δw, averaged over the examples.
        """

    @abc.abstractmethod
    def output_heads(self) -> tuple[list[Callable], frozenset]:
        """What turns linearised outputs into predictions.

        Returns:
            One function per flat output, and the layers that must leave out their
            activation for it (`Pass.peeled`).
        """

    @abc.abstractmethod
    def frozen_state(self) -> contextlib.AbstractContextManager:
        """Undo what passes inside the block do to batch statistics and the like.

        Random seeds advance.
        """

    @abc.abstractmethod
    def at(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        **attributes: Any,
    ) -> contextlib.AbstractContextManager:
        """Run the network at other values of its variables, without side effects.

        Args:
            weights: One tensor per variable in `weights`.
            hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
            **attributes: Attributes of the `Pass`.
        """

    # Optimizers

    @property
    @abc.abstractmethod
    def optimizer(self) -> Any:
        """The Keras optimizer that `fit` applies to the weights; may scale losses."""

    @property
    @abc.abstractmethod
    def stepping_optimizer(self) -> Any:
        """The optimizer whose steps a trajectory follows, or `None` if not compiled.

        It is the one of the weights as the user gave it: a Keras optimizer without the
        wrapper that scales losses, or a `TunedOptimizer`.
        """

    @property
    @abc.abstractmethod
    def response_optimizer(self) -> Any:
        """The Keras optimizer of the responses."""

    @property
    @abc.abstractmethod
    def hyper_optimizer(self) -> Any:
        """The Keras optimizer of λ and σ."""

    @property
    @abc.abstractmethod
    def objective_optimizer(self) -> Any:
        """The Keras optimizer that `add_optimizer` made, or `None`."""

    @property
    @abc.abstractmethod
    def objective_stepping_optimizer(self) -> Any:
        """The same as a trajectory follows it: perhaps a `TunedOptimizer`."""

    @abc.abstractmethod
    def add_optimizer(
        self, variables: list[keras.Variable], weights: list[keras.Variable]
    ) -> None:
        """Make an optimizer for variables that the objective trains itself.

        It is a copy of the weights' optimizer with slots of its own. It follows the
        learning rate of the original and is saved with the model.

        Args:
            variables: The variables.
            weights: For each of them the weight that it stands for.
        """

    # State

    @abc.abstractmethod
    def add_state(self, name: str, shape: tuple, dtype: str) -> keras.Variable:
        """Make a variable of a method or objective, zero at first, saved with it.

        Args:
            name: Its name, unique in the model.
            shape: Its shape.
            dtype: Its dtype.

        Raises:
            ValueError: If there is one of that name.
        """

    @abc.abstractmethod
    def state(self, name: str) -> keras.Variable:
        """The variable that `add_state` made under this name."""

    def add_states(self, name: str, like: list) -> list[keras.Variable]:
        """One variable for each tensor of a list, in its shape and dtype."""
        return [
            self.add_state(
                f"{name}_{i}", x.shape, keras.backend.standardize_dtype(x.dtype)
            )
            for i, x in enumerate(like)
        ]

    def states(self, name: str, count: int) -> list[keras.Variable]:
        """The first `count` variables that `add_states` made under this name."""
        return [self.state(f"{name}_{i}") for i in range(count)]

    @property
    @abc.abstractmethod
    def penalized(self) -> bool:
        """Whether the training loss has more than the compiled loss of the outputs."""
