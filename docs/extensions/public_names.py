"""What is public: every name of every `__all__`, in the namespace it is at home in."""

import importlib
import types

import bilevel_tf

NAMESPACES = sorted(
    name
    for name in bilevel_tf.__all__
    if isinstance(getattr(bilevel_tf, name), types.ModuleType)
)


def names_at_home():
    """Dict from namespaces, such as "bilevel_tf.layers", to their public names.

    A name that is at the top and in a namespace is at home in the namespace.
    """
    homes, seen = {}, set()
    for namespace in NAMESPACES:
        module = importlib.import_module(f"bilevel_tf.{namespace}")
        homes[module.__name__] = list(module.__all__)
        seen.update(module.__all__)
    rest = set(bilevel_tf.__all__) - set(NAMESPACES) - seen
    return {"bilevel_tf": sorted(rest), **homes}


def targets():
    """Dict from how a name may be written to its full name, such as
    "bt.DeltaSTN" and "DeltaSTN" to "bilevel_tf.methods.DeltaSTN"."""
    found = {}
    for home, names in names_at_home().items():
        for name in names:
            full = f"{home}.{name}"
            short = full.replace("bilevel_tf", "bt", 1)
            for written in (name, full, short, f"bt.{name}", f"bilevel_tf.{name}"):
                found[written] = full
    return found
