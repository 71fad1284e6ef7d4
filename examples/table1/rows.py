"""The rows of the table, and the settings of one run."""

import dataclasses
import hashlib
import json

import bilevel_tf as bt

# As the Δ-STN paper on images. The learning rate is in the coordinates of λ.
PUBLISHED_OPTIMIZER = "RMSprop(0.01, rho=0.99, epsilon=1e-8)"
# The library's default before it had a decaying one.
FORMER_OPTIMIZER = "RMSprop(0.01, epsilon=1e-36)"


@dataclasses.dataclass(frozen=True)
class Row:
    """How a row tunes.

    Attributes:
        method: Constructor call of the method, or `None`: hyperparameters are fixed.
        hyper_optimizer: Constructor call of the hyper-optimizer, or `None` for the
            library's default.
        same_batch: Whether outer steps have batches as large as training steps, as in
            the Δ-STN paper, or the library's default.
        learn_sigma: Whether σ is learned, or `None` for the library's default.
    """

    method: str | None = None
    hyper_optimizer: str | None = None
    same_batch: bool = False
    learn_sigma: bool | None = None


def published(method, hyper_optimizer=PUBLISHED_OPTIMIZER):
    """Return a row that tunes as the papers do."""
    return Row(method, hyper_optimizer, same_batch=True, learn_sigma=True)


def call(name, **arguments):
    """Return the constructor call of a method with those arguments that it has."""
    known = getattr(bt.methods, name)().get_config()
    if "response" not in known:
        arguments["response_initializer"] = arguments.pop("response", None)
    texts = [f"{n}={value!r}" for n, value in arguments.items() if n in known]
    return f"{name}({', '.join(texts)})"


# Alg. 1 of the paper, whatever the library's defaults are.
ALGORITHM_1 = {
    "response_share": 1.0,
    "response_interval": 1,
    "normalize_response": False,
    "control_variate": False,
    "shared_pass": False,
    "perturb_outer": True,
}

ROWS = {
    "fixed": Row(),
    "STN": published(call("STN", perturb_outer=True)),
    "centered": published(call("CenteredSTN", response="kernel", perturb_outer=True)),
    "Δ-STN": Row("DeltaSTN()"),
    "Δ-STN (published)": published(call("DeltaSTN", response="random", **ALGORITHM_1)),
    "Δ-STN (old default)": published(
        call("DeltaSTN", response="kernel", **ALGORITHM_1), FORMER_OPTIMIZER
    ),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """What identifies a run: a run with equal settings is not trained again.

    Attributes:
        problem: Name of the problem.
        row: Name of the row.
        seed: Seed of weights, order, noise and perturbations.
        epochs: Number of epochs.
        scale: Factor of the sizes of the problem.
        split: Which split of the data.
        method, hyper_optimizer, learn_sigma: As in `Row`.
        hyper_learning_rate: Learning rate in place of the hyper-optimizer's, or `None`.
        outer_batch_size: Number of examples in outer batches; `None` for the default.
        initial: Initial values by name in place of the problem's, as pairs.
        sigma: Initial perturbation scale in place of the problem's, or `None`.
        of: For a point, the row that it retrains, or "given" by the command line.
            Points of searches have none, so that searches share them.
        tag: A word that tells runs apart that nothing else does, such as the library's
            version.
        points, point_seeds: For a search, the number of its points and of the seeds
            that each is trained with.
    """

    problem: str
    row: str
    seed: int
    epochs: int
    scale: float = 1.0
    split: int = 0
    method: str | None = None
    hyper_optimizer: str | None = None
    learn_sigma: bool | None = None
    hyper_learning_rate: float | None = None
    outer_batch_size: int | None = None
    initial: tuple[tuple[str, float], ...] = ()
    sigma: float | None = None
    of: str | None = None
    tag: str | None = None
    points: int | None = None
    point_seeds: int | None = None

    @property
    def key(self):
        """The settings as one text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False)

    @property
    def digest(self):
        """The settings as a short name."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]

    @property
    def label(self):
        """The row, with what differs from its settings."""
        row = ROWS.get(self.row, Row())
        parts = [self.row]
        if self.hyper_optimizer != row.hyper_optimizer:
            parts.append(self.hyper_optimizer)
        if self.learn_sigma != row.learn_sigma:
            parts.append("σ learned" if self.learn_sigma else "σ held")
        if self.hyper_learning_rate is not None:
            parts.append(f"rate {self.hyper_learning_rate:g}")
        if self.outer_batch_size is not None and not row.same_batch:
            parts.append(f"outer batch {self.outer_batch_size}")
        if self.sigma is not None:
            parts.append(f"σ₀ {self.sigma:g}")
        if self.tag is not None:
            parts.append(self.tag)
        if self.initial and self.row != "point":
            parts += sorted({f"λ₀ {value:g}" for _, value in self.initial})
        return ", ".join(parts)


def read_run(config):
    """Return the `Run` of a dict as in results."""
    initial = tuple((name, value) for name, value in config["initial"])
    return Run(**{**config, "initial": initial})
