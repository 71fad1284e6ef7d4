"""Methods and optimizers from the text of a constructor call."""

import ast
import inspect

import keras

import bilevel_tf as bt

PLACES = {
    "method": (bt.methods,),
    "optimizer": (keras.optimizers, bt.optimizers, keras.optimizers.schedules),
}


def make(text, kind, **defaults):
    """Make the object that a constructor call describes.

    Args:
        text: Text such as "DeltaSTN(shared_pass=True)". Arguments are Python literals
            or such calls themselves.
        kind: "method" or "optimizer".
        **defaults: Arguments that the text may leave out. Those that the class does not
            have are left out.

    Raises:
        ValueError: If the text is something else, or the name is unknown.
    """
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        node = None
    return _call(node, text, kind, defaults)


def spell_out(text, kind, **defaults):
    """Return a constructor call with all arguments; as `make` takes it.

    A run with a default that has changed since is then another run.
    """
    made = make(text, kind, **defaults)
    config = made.get_config().items()
    if not all(isinstance(v, (int, float, str, type(None))) for _, v in config):
        return text
    arguments = ", ".join(f"{name}={value!r}" for name, value in sorted(config))
    return f"{type(made).__name__}({arguments})"


def _call(node, text, kind, defaults):
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(
            f"A {kind} must be given as a call of its class, with literal arguments, "
            f"such as 'Name(argument=1.0)'. Received: {text!r}"
        )
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(f"`**` has no place in a {kind}. Received: {text!r}")
    make_object = _find(node.func.id, kind)
    positional = [_value(each, text, kind) for each in node.args]
    named = {k.arg: _value(k.value, text, kind) for k in node.keywords}
    if defaults:
        known = make_object(*positional, **named).get_config()
        bound = inspect.signature(make_object).bind_partial(*positional, **named)
        given = {*named, *bound.arguments}
        left = {n: v for n, v in defaults.items() if n in known and n not in given}
        named.update(left)
    return make_object(*positional, **named)


def _value(node, text, kind):
    if isinstance(node, ast.Call):
        return _call(node, text, kind, {})
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(
            f"Arguments of a {kind} must be literals or calls. Received: {text!r}"
        ) from None


def _find(name, kind):
    for place in PLACES[kind]:
        found = getattr(place, name, None)
        if isinstance(found, type):
            return found
    raise ValueError(f"There is no {kind} of this name. Received: {name!r}")
