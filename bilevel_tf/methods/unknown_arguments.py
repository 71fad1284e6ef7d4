"""The error for an argument that a method does not have."""

import difflib
import inspect


def refuse_unknown(kind: type, unknown: dict) -> None:
    """Raise a `TypeError` that names the arguments that the class has.

    Args:
        kind: The class of a method, whose constructors pass `**kwargs` on.
        unknown: Keyword arguments that none of them knows, by name.
    """
    if not unknown:
        return
    known = _list_arguments(kind)
    name, value = next(iter(unknown.items()))
    near = difflib.get_close_matches(name, known)
    hint = f"Did you mean {' or '.join(f'`{n}`' for n in near)}? " if near else ""
    raise TypeError(
        f"{kind.__name__} has no argument `{name}`. {hint}Its arguments are "
        f"{', '.join(known)}. Received: {name}={value!r}"
    )


def _list_arguments(kind):
    names = []
    # Without `object`.
    for base in kind.__mro__[:-1]:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())
            named = [p.name for p in parameters[1:] if p.kind != p.VAR_KEYWORD]
            names += [name for name in named if name not in names]
            if parameters[-1].name == "unknown":
                # This constructor passes nothing on.
                break
    return names
