"""What belongs to each output: its loss, its targets, its weights."""

from typing import Any

import keras


def split_by_output(structure: Any, outputs: Any, names: list[str]) -> list:
    """Find the part of a structure that belongs to each output, as Keras does.

    Args:
        structure: Lists and dicts structured as the outputs, or flat, or a dict by the
            names of the outputs. A part that is no list or dict stands for all outputs
            below it.
        outputs: Outputs of a network, or its symbolic ones.
        names: The names of the flat outputs.

    Returns:
        A list with one part per flat output; `None` if an output has none.
    """
    if isinstance(structure, dict) and not isinstance(outputs, dict):
        return [structure.get(name) for name in names]
    if isinstance(structure, (list, tuple)):
        flat = keras.tree.flatten(structure)
        if len(flat) == len(names):
            return flat
    paths = [path for path, _ in keras.tree.flatten_with_path(outputs)]
    return [_follow(structure, p, name) for p, name in zip(paths, names, strict=True)]


def split_targets(y: Any, outputs: Any, names: list[str], losses: list) -> list:
    """Find the targets of each output; those without a loss may be left out of `y`."""
    flat, used = keras.tree.flatten(y), [loss is not None for loss in losses]
    if isinstance(y, (list, tuple)) and len(flat) == sum(used) < len(losses):
        left = iter(flat)
        return [next(left) if has_loss else None for has_loss in used]
    return split_by_output(y, outputs, names)


def _follow(part, path, name):
    """Go down a structure along the path of one output."""
    for key in path:
        if isinstance(part, dict):
            # Keras takes the name of the output for the key, too.
            part = part.get(key, part.get(name))
        elif isinstance(part, (list, tuple)):
            part = part[key] if isinstance(key, int) and key < len(part) else None
    while isinstance(part, (list, tuple)) and len(part) == 1:
        [part] = part
    return part
