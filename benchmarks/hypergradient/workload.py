"""The problem whose hypergradient is timed, as NumPy arrays."""

import dataclasses
import itertools

import numpy as np

KINDS = ("gradient", "cg", "neumann")
# The row of times that are not those of a hypergradient; see `products`.
FLOOR = "products alone, TensorFlow"


@dataclasses.dataclass(frozen=True)
class Workload:
    """A ReLU network with softmax cross-entropy, and one L2 factor per weight.

        L(w, h) = cross-entropy on `train` + ½ Σ exp(h) w²;   Q(w) = that on `valid`

    Attributes:
        sizes: Units of the input and of every layer.
        batch: Examples in either batch.
        iterations: Of conjugate gradients, with tolerance 0.
        terms: Of the Neumann series.
        rate: Of the Neumann series, small enough for it to converge.
    """

    sizes: tuple
    batch: int
    iterations: int = 10
    terms: int = 20
    rate: float = 0.2

    @property
    def weights(self):
        """Kernels and biases, at a random start: its Hessian is positive definite."""
        generator = np.random.default_rng(1)
        arrays = []
        for fan_in, units in itertools.pairwise(self.sizes):
            scale = np.sqrt(2 / fan_in)
            arrays.append(scale * generator.normal(size=(fan_in, units)))
            arrays.append(0.1 * generator.normal(size=units))
        return _singles(arrays)

    @property
    def hyperparameters(self):
        """h, one number per weight."""
        generator = np.random.default_rng(2)
        shapes = [w.shape for w in self.weights]
        return _singles([0.3 * generator.normal(size=s) for s in shapes])

    @property
    def train(self):
        """Inputs and labels of the inner loss."""
        return self._noise(3)

    @property
    def valid(self):
        """Inputs and labels of the outer loss."""
        return self._noise(4)

    @property
    def title(self):
        """What tables call it."""
        network = "-".join(map(str, self.sizes))
        count = sum(w.size for w in self.weights)
        return f"MLP {network}, batch {self.batch}, {count:,} hyperparameters, float32"

    def _noise(self, seed):
        generator = np.random.default_rng(seed)
        x = 0.3 * generator.normal(size=(self.batch, self.sizes[0]))
        return x.astype("float32"), generator.integers(self.sizes[-1], size=self.batch)


def _singles(arrays):
    return [a.astype("float32") for a in arrays]


FULL = Workload((784, 256, 256, 10), 512)
TINY = Workload((12, 8, 8, 4), 16)
