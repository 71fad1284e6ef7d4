"""The problem whose hypergradient is timed, as NumPy arrays."""

import dataclasses
import itertools

import numpy as np

KINDS = ("gradient", "cg", "neumann")
# Name of the row with only the matrix products; see `products`.
FLOOR = "products alone, TensorFlow"


@dataclasses.dataclass(frozen=True)
class Workload:
    """A ReLU network with softmax cross-entropy, and one L2 factor per weight.

        L(w, h) = cross-entropy on `train` + ½ Σ exp(h) w²;   Q(w) = that on `valid`

    Attributes:
        sizes: Number of units of the input and of every layer.
        batch: Number of examples in each of both batches.
        iterations: Number of iterations of conjugate gradients, with tolerance 0.
        terms: Number of terms of the Neumann series.
        rate: Learning rate of the Neumann series, small enough that it converges.
    """

    sizes: tuple
    batch: int
    iterations: int = 10
    terms: int = 20
    rate: float = 0.2

    @property
    def weights(self):
        """Random kernels and biases, at which the Hessian is positive definite."""
        generator = np.random.default_rng(1)
        arrays = []
        for fan_in, units in itertools.pairwise(self.sizes):
            scale = np.sqrt(2 / fan_in)
            arrays.append(scale * generator.normal(size=(fan_in, units)))
            arrays.append(0.1 * generator.normal(size=units))
        return _to_float32(arrays)

    @property
    def hyperparameters(self):
        """h, one number per weight."""
        generator = np.random.default_rng(2)
        shapes = [w.shape for w in self.weights]
        return _to_float32([0.3 * generator.normal(size=s) for s in shapes])

    @property
    def train(self):
        """Inputs and labels of the inner loss."""
        return self._draw_batch(3)

    @property
    def valid(self):
        """Inputs and labels of the outer loss."""
        return self._draw_batch(4)

    @property
    def title(self):
        """Name in tables."""
        network = "-".join(map(str, self.sizes))
        count = sum(w.size for w in self.weights)
        return f"MLP {network}, batch {self.batch}, {count:,} hyperparameters, float32"

    def _draw_batch(self, seed):
        generator = np.random.default_rng(seed)
        x = 0.3 * generator.normal(size=(self.batch, self.sizes[0]))
        return x.astype("float32"), generator.integers(self.sizes[-1], size=self.batch)


def _to_float32(arrays):
    return [a.astype("float32") for a in arrays]


FULL = Workload((784, 256, 256, 10), 512)
TINY = Workload((12, 8, 8, 4), 16)
