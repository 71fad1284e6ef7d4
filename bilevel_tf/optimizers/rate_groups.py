"""Which weights share a learnt learning rate, and what that rate is called."""

import collections

import keras

GRANULARITIES = ("global", "layer", "parameter")


def name_rates(variables: list[keras.Variable], granularity: str) -> list[str]:
    """Return the name of the rate of every variable; equal names share one rate.

    Args:
        variables: The variables that are trained.
        granularity: "global": all share the rate "global". "layer": variables whose
            paths agree up to the last "/" share one, named for that part.
            "parameter": every variable has its own, named for its path.

    Two layers may have the same name, and hence their variables the same paths. The
    second occurrence of a path gets the ending "_1", the third "_2", and so on, so
    that such layers share no rate.
    """
    if granularity == "global":
        return ["global"] * len(variables)
    names: list[str] = []
    seen: collections.Counter[str] = collections.Counter()
    for variable in variables:
        path = getattr(variable, "path", variable.name)
        name = path
        if granularity == "layer":
            name = path.rpartition("/")[0] or path
        names.append(f"{name}_{seen[path]}" if seen[path] else name)
        seen[path] += 1
    return names
