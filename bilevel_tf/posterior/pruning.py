"""Pruning: setting weights to zero that their posterior does not tell from zero."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bilevel_tf import _keras
from bilevel_tf.layers.variational.variational_layer import variational_layers


@dataclasses.dataclass(frozen=True)
class PruningResult:
    """What `prune` did.

    Attributes:
        share: The share of the weights of variational layers that are pruned, from 0
            to 1.
        threshold: The weights whose relative density at zero is above this are pruned,
            from 0 to 1.
        shares: The share of every weight tensor that is pruned, by its path.

    Example:

    >>> found = bt.posterior.PruningResult(0.5, 0.9, {"dense/kernel": 0.5})
    >>> found.share
    0.5
    """

    share: float
    threshold: float
    shares: dict[str, float]


def prune(
    model: keras.Model,
    sparsity: float | None = None,
    *,
    threshold: float | None = None,
) -> PruningResult:
    """Set the means of those weights to zero whose posterior has most density there.

    The relative density at zero is q(0)/q(μ) = exp(−μ²/2σ²). It is 1 if the mean is
    zero, and falls with |μ|/σ. Kernels and biases of all variational layers are ranked
    together.

    The scales σ stay as they are. Hence the divergence from the prior stays finite,
    further training may bring a weight back, and draws of a pruned weight, as in
    `predictive`, spread as before. Predictions with means, by `predict` and by the
    model of `BilevelModel.to_keras`, use zero.

    Args:
        model: A `BilevelModel` or `keras.Model` with variational layers. It is changed
            in place.
        sparsity: The share of weights to prune, from 0 to 1. Give either this or
            `threshold`; both default to `None`.
        threshold: Prune the weights whose relative density is above this, from 0 to 1.

    Returns:
        A `PruningResult`.

    Raises:
        ValueError: If both or neither of `sparsity` and `threshold` are given, one is
            out of range, or the model has no variational layer.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e4, initial=1.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=100)
    >>> inputs = keras.Input((10,))
    >>> outputs = bt.VariationalDense(4, use_bias=False, prior=prior)(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> bt.posterior.prune(model, sparsity=0.9).share
    0.9
    >>> kernel = model.to_keras().layers[-1].kernel
    >>> int(np.count_nonzero(kernel))
    4

    Reference:
        Graves, "Practical variational inference for neural networks", 2011.
    """
    posteriors = _find_posteriors(model, "prune")
    if (sparsity is None) == (threshold is None):
        raise ValueError(
            "`prune` needs exactly one of `sparsity` and `threshold`. "
            f"Received: sparsity={sparsity}, threshold={threshold}"
        )
    # Densities would rank alike, but many are zero in floating point.
    ratios = [_compute_ratio(posterior) for posterior in posteriors]
    if threshold is not None:
        _check_share(threshold, "threshold")
        cut = [_compute_density(ratio) > threshold for ratio in ratios]
    else:
        cut = _select_smallest(ratios, _check_share(sparsity, "sparsity"))
        pruned = [_compute_density(r[c]) for r, c in zip(ratios, cut, strict=True)]
        threshold = min(np.concatenate(pruned), default=1.0)
    for posterior, where in zip(posteriors, cut, strict=True):
        posterior.mean.assign(np.where(where, 0.0, np.asarray(posterior.mean)))
    total = sum(where.size for where in cut)
    shares = {
        p.mean.path: float(c.mean()) for p, c in zip(posteriors, cut, strict=True)
    }
    share = sum(int(where.sum()) for where in cut) / total
    return PruningResult(share, float(threshold), shares)


def pruning_curve(
    model: keras.Model,
    x: Any,
    y: Any = None,
    shares: Sequence[float] = (0.0, 0.5, 0.75, 0.9, 0.95, 0.99),
    **kwargs: Any,
) -> list[dict[str, float]]:
    """Return loss and metrics for several shares of weights that `prune` takes away.

    Args:
        model: A compiled model with variational layers. Its weights are changed
            during the call, and are as before after it.
        x: Inputs, as for `keras.Model.evaluate`.
        y: Targets, as for `keras.Model.evaluate`. Defaults to `None`, for data sets
            that have them.
        shares: Values of `sparsity`, each from 0 to 1. Defaults to six values from 0
            to 0.99.
        **kwargs: `batch_size`, `sample_weight`, `steps` and `callbacks` of
            `keras.Model.evaluate`. Defaults are those of Keras.

    Returns:
        A list with one dict per share. It has the keys "share", "loss" and the
        compiled metrics; all values are floats.

    Raises:
        ValueError: If a share is out of range, or the model has no variational layer.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e4, initial=1.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=100)
    >>> inputs = keras.Input((10,))
    >>> outputs = bt.VariationalDense(1, use_bias=False, prior=prior)(inputs)
    >>> model = keras.Model(inputs, outputs)
    >>> model.compile(loss="mse", metrics=["mae"])
    >>> x, y = np.ones((4, 10), "float32"), np.ones((4, 1), "float32")
    >>> rows = bt.posterior.pruning_curve(model, x, y, shares=(0.0, 0.5, 1.0))
    >>> [row["share"] for row in rows]
    [0.0, 0.5, 1.0]
    >>> rows[-1]["mae"]
    1.0
    """
    shares = [_check_share(share, "shares") for share in shares]
    rows = []
    for share in shares:
        with _keep_means(model):
            found = prune(model, share)
            results = model.evaluate(x, y, return_dict=True, verbose=0, **kwargs)
        rows.append({"share": found.share, **results})
    return rows


@contextlib.contextmanager
def _keep_means(model):
    """Put all means back to their values when the block ends."""
    means = [posterior.mean for posterior in _find_posteriors(model, "pruning_curve")]
    before = [np.array(mean) for mean in means]
    try:
        yield
    finally:
        for mean, value in zip(means, before, strict=True):
            mean.assign(value)


def _find_posteriors(model, purpose):
    layers = variational_layers(_keras.flatten_layers(model), purpose)
    return [posterior for layer in layers for posterior in layer.posteriors()]


def _compute_ratio(posterior):
    """Return |μ|/σ of every weight, in double precision."""
    mean = np.asarray(posterior.mean, "float64")
    return np.abs(mean) / np.asarray(posterior.scale(), "float64")


def _compute_density(ratio):
    return np.exp(-0.5 * np.square(ratio))


def _select_smallest(ratios, share):
    """Return masks that select this share of all ratios, the smallest."""
    flat = np.concatenate([ratio.ravel() for ratio in ratios])
    cut = np.zeros(flat.size, bool)
    cut[np.argsort(flat, kind="stable")[: round(share * flat.size)]] = True
    ends = np.cumsum([ratio.size for ratio in ratios])[:-1]
    parts = zip(np.split(cut, ends), ratios, strict=True)
    return [part.reshape(ratio.shape) for part, ratio in parts]


def _check_share(value, name):
    """Return `value` as a float, or raise a `ValueError`."""
    if isinstance(value, (int, float, np.number)) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value!r}")
