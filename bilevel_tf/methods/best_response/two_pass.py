"""Methods that train w₀ at λ and the response under perturbation."""

import keras

from bilevel_tf.methods.best_response.best_response import BestResponse


class TwoPass(BestResponse):
    """The inner step of Alg. 1, with ways to make it cheaper.

    Args:
        shared_pass: Train w₀ and Θ on one perturbed pass instead of two. Cheaper, and
            the perturbation then regularises w₀ as well. Defaults to `False`, Alg. 1.
        response_share: Share of each batch, from its start, that trains the response
            when there are two passes; in (0, 1]. Defaults to 1, Alg. 1.
        response_initializer: Where response kernels start: "kernel", at the layer's
            own, or "random", the paper's. Defaults to "kernel", because a random
            direction takes many epochs to turn into the one that is needed; the
            README has the comparison.
        **kwargs: See `BestResponse`.

    Raises:
        ValueError: If `response_share` is out of range, or below 1 with a shared
            pass, or `response_initializer` is unknown.
    """

    def __init__(
        self,
        shared_pass=False,
        response_share=1.0,
        response_initializer="kernel",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if response_initializer not in ("kernel", "random"):
            raise ValueError(
                '`response_initializer` must be "kernel" or "random". '
                f"Received: response_initializer={response_initializer!r}"
            )
        if not 0 < response_share <= 1:
            raise ValueError(
                "`response_share` must be above 0 and at most 1. "
                f"Received: response_share={response_share}"
            )
        if shared_pass and response_share != 1:
            raise ValueError(
                "`response_share` must be 1 with `shared_pass=True`: one pass trains "
                f"both. Received: response_share={response_share}"
            )
        self.shared_pass = bool(shared_pass)
        self.response_share = float(response_share)
        self.response_initializer = response_initializer

    def response_arguments(self):
        """Where the response kernels start."""
        return {"initializer": self.response_initializer}

    def inner_step(self, network, x, y, sample_weight):
        """w₀ on the batch at λ, then Θ on fresh noise with the updated w₀ (Alg. 1)."""
        if self.shared_pass:
            return self.update_jointly(network, x, y, sample_weight)
        loss, predictions = super().inner_step(network, x, y, sample_weight)
        with network.frozen_state():
            self.update_response(network, *self._shared_out(x, y, sample_weight))
        return loss, predictions

    def update_response(self, network, x, y, sample_weight):
        """Θ ← Θ − α₁ ∇_Θ L_T(λ + ε, r_θ(λ + ε, λ))."""
        variables = network.response_variables
        optimizer = network.response_optimizer
        _, _, gradients = self.perturbed_gradients(
            network, x, y, sample_weight, variables, optimizer.scale_loss
        )
        optimizer.apply(gradients, variables)

    def _shared_out(self, *data):
        if self.response_share == 1:
            return data

        def first(tensor):
            # Static where the batch is, so that shapes below stay static.
            size = tensor.shape[0] or keras.ops.shape(tensor)[0]
            if isinstance(size, int):
                return tensor[: max(1, round(size * self.response_share))]
            count = keras.ops.cast(size, "float32") * self.response_share
            count = keras.ops.cast(keras.ops.round(count), "int32")
            return tensor[: keras.ops.maximum(count, 1)]

        return keras.tree.map_structure(
            lambda tensor: None if tensor is None else first(tensor), data
        )

    def get_config(self):
        return {
            **super().get_config(),
            "shared_pass": self.shared_pass,
            "response_share": self.response_share,
            "response_initializer": self.response_initializer,
        }
