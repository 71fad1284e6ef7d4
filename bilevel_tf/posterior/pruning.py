"""Leaving out the weights that their posterior does not tell from zero."""

import contextlib
import dataclasses

import numpy as np

from bilevel_tf.layers.variational.variational_layer import variational_layers


@dataclasses.dataclass(frozen=True)
class PruningResult:
    """What `prune` did.

    Attributes:
        share: Share of the weights of variational layers whose mean is now zero.
        threshold: Relative density at zero, from 0 to 1, above which they were pruned.
        shares: The share in every weight, by its path.
    """

    share: float
    threshold: float
    shares: dict[str, float]


def prune(model, sparsity=None, *, threshold=None):
    """Set the means of weights to zero whose posterior has the most density there.

    The relative density at zero, q(0)/q(μ) = exp(−μ²/2σ²), is 1 for a mean of zero and
    falls with |μ|/σ. Kernels and biases of all variational layers are ranked together.
    Scales σ stay: the divergence stays finite, training may bring a weight back, and
    draws of it, in `predictive`, spread as before. What predicts with means, `predict`
    and `BilevelModel.to_keras`, has the weight no more.

    Args:
        model: A `BilevelModel` or plain `keras.Model`.
        sparsity: Share to prune, from 0 to 1. Give this or `threshold`.
        threshold: Prune the weights whose relative density is above this, from 0 to 1.

    Returns:
        A `PruningResult`.

    Raises:
        ValueError: If both or neither is given, it is out of range, or the model has no
            variational layer.

    Example:

    >>> bt.posterior.prune(model, sparsity=0.9).share
    0.9
    >>> model.to_keras().save("sparse.keras")

    Reference:
        Graves, "Practical variational inference for neural networks", 2011.
    """
    posteriors = _posteriors(model, "prune")
    if (sparsity is None) == (threshold is None):
        raise ValueError(
            "Give `prune` one of `sparsity` and `threshold`. Received: "
            f"sparsity={sparsity}, threshold={threshold}"
        )
    # Ratios rank like densities, which are zero in floating point for many weights.
    ratios = [_ratio(posterior) for posterior in posteriors]
    if threshold is not None:
        _check_share(threshold, "threshold")
        cut = [_density(ratio) > threshold for ratio in ratios]
    else:
        cut = _smallest(ratios, _check_share(sparsity, "sparsity"))
        pruned = [_density(r[c]) for r, c in zip(ratios, cut, strict=True)]
        threshold = min(np.concatenate(pruned), default=1.0)
    for posterior, where in zip(posteriors, cut, strict=True):
        posterior.mean.assign(np.where(where, 0.0, np.asarray(posterior.mean)))
    total = sum(where.size for where in cut)
    shares = {
        p.mean.path: float(c.mean()) for p, c in zip(posteriors, cut, strict=True)
    }
    share = sum(int(where.sum()) for where in cut) / total
    return PruningResult(share, float(threshold), shares)


def pruning_curve(model, x, y, shares=(0.0, 0.5, 0.75, 0.9, 0.95, 0.99), **kwargs):
    """Loss and metrics against the share of weights that `prune` takes away.

    Args:
        model: A compiled model with variational layers; afterwards what it was before.
        x, y: As for `evaluate`.
        shares: Values of `sparsity`.
        **kwargs: Other arguments of `evaluate`, such as `batch_size`.

    Returns:
        A list of a dict per share: "share", "loss" and the compiled metrics, floats.

    Raises:
        ValueError: If a share is out of range, or the model has no variational layer.

    Example:

    >>> for row in bt.posterior.pruning_curve(model, x_test, y_test):
    ...     print(f"{row['share']:.0%} pruned: accuracy {row['accuracy']:.3f}")
    """
    shares = [_check_share(share, "shares") for share in shares]
    rows = []
    for share in shares:
        with _kept(model):
            found = prune(model, share)
            results = model.evaluate(x, y, return_dict=True, verbose=0, **kwargs)
        rows.append({"share": found.share, **results})
    return rows


@contextlib.contextmanager
def _kept(model):
    """Put the means back where they were."""
    means = [posterior.mean for posterior in _posteriors(model, "pruning_curve")]
    before = [np.array(mean) for mean in means]
    try:
        yield
    finally:
        for mean, value in zip(means, before, strict=True):
            mean.assign(value)


def _posteriors(model, purpose):
    layers = variational_layers(model._flatten_layers(include_self=False), purpose)
    return [posterior for layer in layers for posterior in layer.posteriors()]


def _ratio(posterior):
    """|μ|/σ of every weight, in double precision."""
    mean = np.asarray(posterior.mean, "float64")
    return np.abs(mean) / np.asarray(posterior.scale(), "float64")


def _density(ratio):
    return np.exp(-0.5 * np.square(ratio))


def _smallest(ratios, share):
    """Where the smallest of all ratios are, as many as the share says."""
    flat = np.concatenate([ratio.ravel() for ratio in ratios])
    cut = np.zeros(flat.size, bool)
    cut[np.argsort(flat, kind="stable")[: round(share * flat.size)]] = True
    ends = np.cumsum([ratio.size for ratio in ratios])[:-1]
    parts = zip(np.split(cut, ends), ratios, strict=True)
    return [part.reshape(ratio.shape) for part, ratio in parts]


def _check_share(value, name):
    if isinstance(value, (int, float, np.number)) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value!r}")
