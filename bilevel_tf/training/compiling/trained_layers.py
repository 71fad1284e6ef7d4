"""Which layers are trained: the same when training starts as at `compile`."""

import keras


def note_trained(model: keras.Model) -> None:
    """Note, at `compile`, which weights of a `BilevelModel` are trained."""
    model.trained_at_compile = frozenset(id(v) for v in model.trainable_variables)


def check_trained(model: keras.Model) -> None:
    """Check that no layer has been frozen or unfrozen since `compile`.

    Optimizers and responses are made in `compile`, for the weights that are trained
    then.

    Raises:
        ValueError: If other weights are trained now.
    """
    noted = model.trained_at_compile
    trained = {id(v) for v in model.trainable_variables}
    unfrozen = _name_layers(model, trained - noted)
    frozen = _name_layers(model, noted - trained)
    if not unfrozen and not frozen:
        return
    changes = [
        f"{names} {state} now"
        for names, state in ((frozen, "frozen"), (unfrozen, "trained"))
        if names
    ]
    raise ValueError(
        "Layers have been frozen or unfrozen since `compile`, which makes the "
        "optimizers and responses for the layers that are trained. Call `compile` "
        f"again. Received: {'; '.join(changes)}"
    )


def _name_layers(model, ids):
    """Name the layers of variables: `'a', 'b'`, at most five of them."""
    # The end of a path is the name of the variable.
    paths = [v.path.rpartition("/")[0] or v.path for v in model.variables]
    own = zip(paths, model.variables, strict=True)
    names = list(dict.fromkeys(f"'{path}'" for path, v in own if id(v) in ids))
    return ", ".join([*names[:5], *(["and more"] if len(names) > 5 else [])])
