"""The names and scales that a space is given."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bilevel_tf._arguments import show
from bilevel_tf.scales.scale import Scale

_EXAMPLE = "HyperparameterSpace(dropout=bilevel_tf.Uniform(0.0, 0.95, initial=0.1))"


def collect_scales(
    hyperparameters: Any, named: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Scale]:
    """Return the scales by name that a space was given.

    Args:
        hyperparameters: A dict, or a list of pairs, from names to scales; or `None`.
        named: Those that were given as keyword arguments.
        options: The other keyword arguments of the space.

    Raises:
        ValueError: If there is none, or two have the same name.
        TypeError: If a name is not a non-empty string, or a value is not a scale.
    """
    for option, value in options.items():
        if isinstance(value, Scale):
            raise TypeError(
                f"`{option}` is an argument of HyperparameterSpace itself. A "
                "hyperparameter of this name is given in a dict: "
                f"HyperparameterSpace({{'{option}': …}}). "
                f"Received: {option}={type(value).__name__}(…)"
            )
    scales: dict[str, Scale] = {}
    for name, scale in [*_list_pairs(hyperparameters), *named.items()]:
        if not isinstance(name, str) or not name:
            raise TypeError(
                f"A name must be a non-empty string. Received: {show(name)}"
            )
        if name in scales:
            raise ValueError(f"Hyperparameter '{name}' is given twice.")
        if not isinstance(scale, Scale):
            raise TypeError(
                f"Hyperparameter '{name}' must be a scale such as "
                "bilevel_tf.Uniform(0.0, 1.0, initial=0.5). Received: "
                f"{show(scale)}"
            )
        scales[name] = scale
    if not scales:
        raise ValueError(
            "A HyperparameterSpace needs at least one hyperparameter, for example "
            f"{_EXAMPLE}"
        )
    _check_logged_names(scales)
    return scales


def log_name(name: str, scale: Scale) -> str:
    """Return the name under which the logs of `fit` show a hyperparameter."""
    return name if scale.shape == () else f"{name}_mean"


def check_known(names: Iterable[str], known: Collection[str]) -> None:
    """Raise a `ValueError` that names what is not among the known names."""
    for name in names:
        if not isinstance(name, str) or name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ValueError(
                f"Unknown hyperparameter '{name}'.{hint} "
                f"The space has: {list_names(known)}"
            )


def list_names(names: Iterable[str], most: int = 20) -> str:
    """Return names in a list for an error, cut if there are many."""
    names = list(names)
    rest = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *rest])


def check_scale(name: str, scale: Scale, dtype: str) -> None:
    """Raise a `ValueError` that names the hyperparameter if it does not fit a dtype."""
    try:
        scale.check_dtype(dtype)
    except ValueError as error:
        raise ValueError(f"Hyperparameter '{name}': {error}") from None


def _list_pairs(hyperparameters):
    if hyperparameters is None:
        return []
    if isinstance(hyperparameters, Mapping):
        return list(hyperparameters.items())
    message = (
        "`hyperparameters` must be a dict, or a list of pairs, from names to scales: "
        f"each hyperparameter needs a name, as in {_EXAMPLE}. "
    )
    if isinstance(hyperparameters, str) or not isinstance(hyperparameters, Iterable):
        raise TypeError(f"{message}Received: {show(hyperparameters)}")
    pairs = list(hyperparameters)
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise TypeError(f"{message}Received: a list with {show(pair)}")
    return pairs


def _check_logged_names(scales):
    seen: dict[str, str] = {}
    for name, scale in scales.items():
        logged = log_name(name, scale)
        if logged in seen:
            raise ValueError(
                f"Hyperparameters '{seen[logged]}' and '{name}' would both be "
                f"'{logged}' in the logs of `fit`, where a vector-valued one is shown "
                f"as its mean. Rename one. Received: '{seen[logged]}', '{name}'"
            )
        seen[logged] = name
