"""What KerasTuner's oracles propose, given all trials so far.

Only the decisions are KerasTuner's, and an oracle is made anew for every question. Its
tuners would keep trials in files of their own, lose the state of the Gaussian process's
random numbers and of optimizers when they go on, take the seed 0 for none, leave out
trials that diverge, and keep every oracle alive.
"""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

_INSTALL = "pip install bilevel-tf[search]"


def import_keras_tuner(gaussian_process: bool = False) -> Any:
    """Return the module `keras_tuner`.

    Args:
        gaussian_process: Whether what its Gaussian process needs must be there too.
            Defaults to `False`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        if gaussian_process:
            importlib.import_module("sklearn.gaussian_process")
        return importlib.import_module("keras_tuner")
    except ImportError as error:
        raise ImportError(
            "BayesianSearch and Hyperband ask KerasTuner, and BayesianSearch "
            f"scikit-learn, which are not all installed: {_INSTALL}. RandomSearch and "
            f"GridSearch need nothing else. Received: {error}"
        ) from error


def suggest_point(
    points: Sequence[Sequence[float]],
    scores: Sequence[float],
    seed: int,
    noise: float,
    exploration: float,
) -> tuple[float, ...]:
    """Return the point that KerasTuner's Gaussian process suggests.

    Args:
        points: Points that have been tried, numbers in [0, 1].
        scores: Their scores, finite, the smaller the better.
        seed: Seed of the restarts, not 0.
        noise: Variance added to the kernel's diagonal.
        exploration: How many standard deviations are subtracted from the mean.
    """
    tuner = import_keras_tuner(gaussian_process=True)
    names = _name_entries(len(points[0]))
    oracle = tuner.oracles.BayesianOptimizationOracle(
        objective=tuner.Objective("score", "min"),
        num_initial_points=1,
        alpha=noise,
        beta=exploration,
        seed=seed,
        hyperparameters=_make_space(tuner, names),
    )
    for number, (point, score) in enumerate(zip(points, scores, strict=True)):
        values = dict(zip(names, point, strict=True))
        oracle.trials[str(number)] = _make_trial(tuner, oracle, number, values, score)
    with warnings.catch_warnings():
        # scikit-learn warns of every restart that ends at a bound.
        warnings.simplefilter("ignore")
        proposed = oracle.populate_space(str(len(points)))
    return tuple(float(proposed["values"][name]) for name in names)


def follow_hyperband(
    scores: Sequence[float], entries: int, epochs: int, arguments: dict[str, int]
) -> dict[str, Any] | None:
    """Return what KerasTuner's Hyperband proposes after some trials.

    Args:
        scores: The scores of all trials before; infinite ones are the worst.
        entries: Number of entries of a point.
        epochs: Number of epochs of a whole training.
        arguments: "factor", "hyperband_iterations" and "seed" of the oracle.

    Returns:
        A dict with "point", "epochs", "initial_epoch", "bracket", "round" and "parent",
        or `None` if there is nothing more to try.
    """
    tuner = import_keras_tuner()
    names = _name_entries(entries)
    oracle = tuner.oracles.HyperbandOracle(
        objective=tuner.Objective("score", "min"),
        max_epochs=epochs,
        hyperparameters=_make_space(tuner, names),
        **arguments,
    )
    for number, score in enumerate(scores):
        values = oracle.populate_space(str(number))["values"]
        oracle.trials[str(number)] = _make_trial(tuner, oracle, number, values, score)
    proposed = oracle.populate_space(str(len(scores)))
    if proposed["status"] != "RUNNING":
        return None
    values = proposed["values"]
    parent = values.get("tuner/trial_id")
    return {
        "point": tuple(float(values[name]) for name in names),
        "parent": None if parent is None else int(parent),
        **{
            name: int(values[f"tuner/{name}"])
            for name in ("epochs", "initial_epoch", "bracket", "round")
        },
    }


def make_seed(*parts: int) -> int:
    """Return a seed made of others. It is never 0, which KerasTuner takes for none."""
    sequence = np.random.SeedSequence(parts)
    return int(sequence.generate_state(1)[0]) % (2**31 - 1) + 1


def _name_entries(count):
    return [str(index) for index in range(count)]


def _make_space(tuner, names):
    space = tuner.HyperParameters()
    for name in names:
        space.Float(name, 0.0, 1.0)
    return space


def _make_trial(tuner, oracle, number, values, score):
    trials = importlib.import_module("keras_tuner.engine.trial")
    space = oracle.get_space()
    space.values = dict(values)
    trial = trials.Trial(
        hyperparameters=space,
        trial_id=str(number),
        status=trials.TrialStatus.COMPLETED,
    )
    trial.score = score
    return trial
