"""What a layer is given as a regularizer."""

from collections.abc import Mapping
from typing import Any

from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter


def check_regularizers(arguments: Mapping[str, Any], holder: str) -> None:
    """Raise a `ValueError` if an argument for a regularizer cannot be one.

    Args:
        arguments: Arguments of a layer by name, of which those are looked at that are
            named "…regularizer".
        holder: The layer, for the error.
    """
    for name, value in arguments.items():
        usable = value is None or isinstance(value, (str, dict)) or callable(value)
        if not name.endswith("regularizer") or usable:
            continue
        example = "0.01"
        if isinstance(value, Hyperparameter):
            example = f"hp['{value.name}']"
        raise ValueError(
            f"`{name}` of {holder} must be a regularizer, such as "
            f"bilevel_tf.L2({example}), and not its factor alone. "
            f"Received: {name}={show(value)}"
        )
