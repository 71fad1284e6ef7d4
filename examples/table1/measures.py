"""Numbers of one run, and means over several."""

import math

import numpy as np

# A final loss is the mean of so many evaluations.
LAST = 3


def final(record, key):
    """Return a final loss; a run that failed has an infinite one."""
    if "error" in record:
        return math.inf
    value = float(np.mean(record[key][-LAST:]))
    return value if math.isfinite(value) else math.inf


def best(record, key="val_loss"):
    """Return the lowest value of a run."""
    values = [value for value in record[key] if math.isfinite(value)]
    return min(values, default=math.inf)


def smooth(values):
    """Return means of each value and those before it, as many as `LAST`."""
    return [np.mean(values[max(0, i - LAST + 1) : i + 1]) for i in range(len(values))]


def reach(record, loss, key):
    """Return steps or seconds until the smoothed validation loss is as low, or `None`.

    It is smoothed over as many evaluations as a final loss, which else would have to
    compete with the luckiest of all evaluations.
    """
    for place, value in enumerate(smooth(record["val_loss"])):
        if value <= loss:
            return record[key][place]
    return None


def mean_and_error(values):
    """Return the mean and its standard error; the error is NaN for one value."""
    values = np.asarray(values, "float64")
    if not len(values) or not np.isfinite(values).all():
        return math.inf, math.nan
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
