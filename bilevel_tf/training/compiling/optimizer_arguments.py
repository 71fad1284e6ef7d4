"""The optimizers given to `compile`."""

from typing import Any

import keras

from bilevel_tf import _keras


def check_optimizers_differ(optimizer: Any, response: Any, hyper: Any) -> None:
    """Check that no optimizer object has two tasks.

    Its slots and its count of steps are for one list of variables.

    Args:
        optimizer, response, hyper: What `compile` was given.

    Raises:
        ValueError: If two of them are the same object.
    """
    given = {
        "optimizer": optimizer,
        "response_optimizer": response,
        "hyper_optimizer": hyper,
    }
    seen: dict[int, str] = {}
    for name, each in given.items():
        if not isinstance(each, keras.optimizers.Optimizer):
            continue
        if id(each) in seen:
            raise ValueError(
                f"`{seen[id(each)]}` and `{name}` must be two optimizer objects: the "
                "state of an optimizer is for one set of variables. Make one for each. "
                f"Received: the same {type(each).__name__} for both"
            )
        seen[id(each)] = name


def build_optimizers(
    model: keras.Model, response: Any, hyper: Any, config: dict | None
) -> None:
    """Make and build the optimizers of a `BilevelModel` that has its method.

    Args:
        model: The model; its optimizer of the weights is there already.
        response: `response_optimizer`, as given to `compile`.
        hyper: `hyper_optimizer`, as given to `compile`.
        config: Config of a default `response_optimizer`, or `None` for that of the
            optimizer of the weights.

    Raises:
        ValueError: If nothing can be made of what was given, or if an optimizer has
            been built for other variables.
    """
    _build("optimizer", model.optimizer, model.trainable_variables)
    model.response_follows = response is None
    made = _make("response_optimizer", response, model.optimizer, config)
    model.response_optimizer = scale_loss_like(made, model.optimizer)
    variables = model.network.response_variables
    _build("response_optimizer", model.response_optimizer, variables)
    model.hyper_optimizer = _make("hyper_optimizer", hyper, default_hyper_optimizer())
    variables = model.method.tuned_variables(model.hyperparameters)
    _build("hyper_optimizer", model.hyper_optimizer, variables)


def default_hyper_optimizer() -> keras.optimizers.Optimizer:
    """Return the optimizer of λ and σ if `compile` is given none.

    It divides a hypergradient by its root mean square, so that λ moves at one
    speed however small hypergradients are: near an end of its range, where the value
    hardly depends on λ, they are tiny. Keras adds `epsilon` to the mean *square*, and
    its 1e-7 would slow down all below 3e-4. The epsilon here is just large enough to
    be a number of single precision, for 0 / 0.
    """
    return keras.optimizers.RMSprop(1e-2, epsilon=1e-36)


def scale_loss_like(
    optimizer: keras.optimizers.Optimizer, other: keras.optimizers.Optimizer
) -> keras.optimizers.Optimizer:
    """Return an optimizer that scales the loss if another one does.

    Keras wraps the optimizer of the weights under a policy in float16. Gradients that
    overflow must not reach other variables of the same pass either.
    """
    kind = keras.optimizers.LossScaleOptimizer
    if isinstance(other, kind) and not isinstance(optimizer, kind):
        return kind(optimizer, name=optimizer.name)
    return optimizer


def _make(name, given, default, config=None):
    """Return the optimizer that was given, or a copy of the default."""
    if given is None:
        return type(default).from_config(config or default.get_config())
    try:
        return keras.optimizers.get(given)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a Keras optimizer, the name of one or its config, such "
            f"as keras.optimizers.Adam(1e-3). Received: {name}={given!r}"
        ) from error


def _build(name, optimizer, variables):
    """Build an optimizer for variables, or check that it was built for them."""
    if not optimizer.built:
        optimizer.build(variables)
        return
    # In mixed precision Keras wraps the optimizer.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in variables:
        if not _keras.knows_variable(inner, variable):
            raise ValueError(
                f"`{name}` has been built for other variables: those of another model, "
                "or of the layers that were trained then. Make a new one, such as "
                f"{type(inner).__name__}.from_config(optimizer.get_config()). "
                f"Received: {name} without '{variable.path}'"
            )
