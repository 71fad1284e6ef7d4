"""Methods that train w₀ at λ, and the response under perturbation."""

import numbers
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.methods.best_response.best_response import BestResponse
from bilevel_tf.network.network import Network


class TwoPass(BestResponse):
    """Base class of methods with the inner step of Alg. 1 of the Δ-STN paper.

    Args:
        shared_pass: Whether one perturbed pass trains both w₀ and Θ, in place of two
            passes. This is cheaper, and the perturbation then regularises w₀ as well.
            Defaults to `False`, as in Alg. 1.
        response_share: Share of each batch, from its start, that trains the response if
            there are two passes; in (0, 1]. Less than 1 is cheaper. Defaults to 1, as
            in Alg. 1.
        response_initializer: Start of the response kernels: "kernel" copies the kernel
            of the layer; "random" draws them from the initializer of that kernel, as in
            the paper. Defaults to "kernel", because a random direction takes many
            epochs to turn into the one that is needed.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        entropy_weight: τ of Eq. 2.7, the weight of the entropy of the perturbation, in
            units of the loss; for a hyperparameter with a prior it is the weight of the
            KL divergence from that prior. Defaults to 1e-3, as in the Δ-STN paper on
            images.
        warmup_epochs: Number of epochs at the start in which λ and σ stay fixed while
            weights and response are trained. Defaults to 0.

    Raises:
        ValueError: If an argument is out of its range, if `response_share` is below 1
            with `shared_pass`, or if `response_initializer` is unknown.
    """

    def __init__(
        self,
        shared_pass: bool = False,
        response_share: float = 1.0,
        response_initializer: str = "kernel",
        *,
        train_steps: int = 5,
        valid_steps: int = 1,
        entropy_weight: float = 1e-3,
        warmup_epochs: int = 0,
        **kwargs: Any,
    ):
        super().__init__(
            train_steps, valid_steps, entropy_weight, warmup_epochs, **kwargs
        )
        if response_initializer not in ("kernel", "random"):
            raise ValueError(
                '`response_initializer` must be "kernel" or "random". '
                f"Received: response_initializer={response_initializer!r}"
            )
        number = isinstance(response_share, numbers.Real)
        if not number or not 0 < response_share <= 1:
            raise ValueError(
                "`response_share` must be a number above 0 and at most 1. "
                f"Received: response_share={response_share!r}"
            )
        if shared_pass and response_share != 1:
            raise ValueError(
                "`response_share` must be 1 with `shared_pass=True`: one pass trains "
                f"both. Received: response_share={response_share}"
            )
        self.shared_pass = bool(shared_pass)
        self.response_share = float(response_share)
        self.response_initializer = response_initializer

    def response_arguments(self) -> dict[str, Any]:
        """Return the start of the response kernels."""
        return {"initializer": self.response_initializer}

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """Train w₀ on the batch at λ, then Θ on fresh noise at the new w₀ (Alg. 1).

        Arguments as in `Method`.
        """
        if self.shared_pass:
            return self.update_jointly(network, x, y, sample_weight)
        loss, predictions = super().inner_step(network, x, y, sample_weight)
        with network.frozen_state():
            self.update_response(network, *self._take_share(x, y, sample_weight))
        return loss, predictions

    def update_response(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> None:
        """Θ ← Θ − α₁ ∇_Θ L_T(λ + ε, r_θ(λ + ε, λ)).

        Args:
            network: The network.
            x, y, sample_weight: A training batch.
        """
        variables = network.response_variables
        optimizer = network.response_optimizer
        _, _, gradients = self.perturbed_gradients(
            network, x, y, sample_weight, variables, optimizer.scale_loss
        )
        optimizer.apply(gradients, variables)

    def _take_share(self, *data: Any) -> tuple:
        """Return the first examples of a batch, as many as train the response."""
        if self.response_share == 1:
            return data

        def first(tensor):
            # Keep the size static if it is, so that the layers have static shapes.
            size = tensor.shape[0] or keras.ops.shape(tensor)[0]
            if isinstance(size, int):
                return tensor[: max(1, round(size * self.response_share))]
            count = keras.ops.cast(size, "float32") * self.response_share
            count = keras.ops.cast(keras.ops.round(count), "int32")
            return tensor[: keras.ops.maximum(count, 1)]

        return keras.tree.map_structure(
            lambda tensor: None if tensor is None else first(tensor), data
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this method again."""
        return {
            **super().get_config(),
            "shared_pass": self.shared_pass,
            "response_share": self.response_share,
            "response_initializer": self.response_initializer,
        }
