"""The ranges in which a search varies hyperparameters, entry by entry."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.scales.log_uniform import LogUniform
from bilevel_tf.scales.positive import Positive
from bilevel_tf.scales.scale import Scale

# The share of a range that is left out next to an end which a value cannot take.
MARGIN = 1e-3
_SAMPLINGS = ("linear", "log")


@dataclasses.dataclass(frozen=True)
class Range:
    """Where a search varies one hyperparameter.

    A search sees every entry of the hyperparameter as a number u in [0, 1]. Equal steps
    of u are equal steps of the value, or of its logarithm.

    Args:
        name: Name of the hyperparameter.
        shape: Shape of its value.
        low: Least value.
        high: Greatest value.
        logarithmic: Whether equal steps are steps of the logarithm.
        whole: Whether values are whole numbers, each of the same probability.
    """

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    logarithmic: bool = False
    whole: bool = False

    @property
    def entries(self) -> list[str]:
        """The names of the entries: the hyperparameter's own if it is a scalar."""
        if self.shape == ():
            return [self.name]
        return [f"{self.name}{list(index)}" for index in np.ndindex(self.shape)]

    def value(self, position: Sequence[float]) -> np.ndarray:
        """Return the value at a position.

        Args:
            position: A number u in [0, 1] for every entry.
        """
        u = np.asarray(position, "float64").reshape(self.shape)
        if self.whole:
            count = self.high + 1 - self.low
            return np.minimum(np.floor(self.low + count * u), self.high)
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            return np.exp(low + (high - low) * u)
        return self.low + (self.high - self.low) * u


def find_ranges(
    space: HyperparameterSpace, given: Any, listed: Collection[str] = ()
) -> list[Range]:
    """Return the range of every hyperparameter of a space.

    Args:
        space: The space.
        given: `ranges` of a search: a dict from names to pairs (low, high), or triples
            with "linear" or "log"; or `None`.
        listed: Names of those whose values are listed, so that they need no range.
            Defaults to none.

    Raises:
        TypeError: If `given` is not such a dict.
        ValueError: If a name is unknown, numbers are not in order or outside the range
            of the scale; if a scale has no end and no range is given for it; or if the
            entries of a hyperparameter cannot be varied one by one.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise TypeError(
            "`ranges` must be a dict from names to (low, high), such as "
            f"{{'{space.names[0]}': (0.1, 0.5)}}. Received: ranges={show(given)}"
        )
    space.check_names(given)
    return [
        Range(name, scale.shape, math.nan, math.nan)
        if name in listed
        else _find_range(name, scale, given.get(name), space.dtype)
        for name, scale in space.scales.items()
    ]


def _find_range(name: str, scale: Scale, given: Any, dtype: str) -> Range:
    if scale.unconstrained_shape != scale.shape:
        raise ValueError(
            f"A search varies every entry on its own, and the entries of "
            f"hyperparameter '{name}' depend on each other. Leave it out of the space, "
            f"or tune it by a method. Received: scale {type(scale).__name__} of shape "
            f"{scale.shape}"
        )
    logarithmic = isinstance(scale, (LogUniform, Positive))
    whole = scale.python_type is int
    if given is None:
        low, high = (float(end) for end in scale.ends)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"Hyperparameter '{name}' has no end that a search could keep to. "
                f"Say where to search: ranges={{'{name}': (low, high)}}. Received: "
                f"scale {type(scale).__name__}, from {low} to {high}, and no range"
            )
    else:
        low, high, logarithmic = _read_given(name, given, logarithmic and not whole)
    found = Range(name, scale.shape, low, high, logarithmic, whole)
    found = _keep_off_ends(found, scale)
    for end in (found.low, found.high):
        scale.check_value(np.full(scale.shape, end), f"ranges['{name}']", dtype)
    return found


def _read_given(name, given, logarithmic):
    """Read (low, high) or (low, high, sampling)."""
    received = f"Received: ranges['{name}']={show(given)}"
    parts = list(given) if isinstance(given, (list, tuple)) else []
    numbers = len(parts) in (2, 3) and all(
        isinstance(end, (int, float, np.number)) and not isinstance(end, bool)
        for end in parts[:2]
    )
    if not numbers or (len(parts) == 3 and parts[2] not in _SAMPLINGS):
        raise ValueError(
            f"The range of '{name}' must be (low, high), or (low, high, 'log') or "
            f"(low, high, 'linear'). {received}"
        )
    low, high = float(parts[0]), float(parts[1])
    if len(parts) == 3:
        logarithmic = parts[2] == "log"
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"The range of '{name}' must be two finite numbers in order. {received}"
        )
    if logarithmic and low <= 0:
        raise ValueError(
            f"The range of '{name}' must be above 0, because its logarithm is what is "
            f"varied; or give (low, high, 'linear'). {received}"
        )
    return low, high, logarithmic


def _keep_off_ends(found: Range, scale: Scale) -> Range:
    """Leave out a margin next to the ends that the scale itself never reaches."""
    if found.whole:
        return found
    one = dataclasses.replace(found, shape=())
    inside = [float(one.value([share])) for share in (MARGIN, 1.0 - MARGIN)]
    low, high = (
        moved if end == edge and not _takes(scale, end) else end
        for end, edge, moved in zip(
            (found.low, found.high), scale.ends, inside, strict=True
        )
    )
    return dataclasses.replace(found, low=low, high=high)


def _takes(scale, end):
    """Whether a value of the scale can be that end."""
    return bool(np.all(scale.allows(np.full(scale.shape, float(end)))))


def list_entries(ranges: Sequence[Range]) -> list[str]:
    """List the names of all entries of all hyperparameters."""
    return [entry for each in ranges for entry in each.entries]


def values_at(ranges: Sequence[Range], point: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the values of all hyperparameters at a point.

    Args:
        ranges: The ranges.
        point: A number in [0, 1] for every entry of `list_entries`.
    """
    values, start = {}, 0
    for each in ranges:
        count = len(each.entries)
        values[each.name] = each.value(point[start : start + count])
        start += count
    return values
