"""What a checkpoint has beyond Keras's, so that a loaded model goes on as before.

These are the counts of steps and epochs, the states of random seeds, and the variables
that methods and objectives made.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.training.saving import signature

_PROGRESS = "progress"


def save(model: keras.Model, store: Any) -> None:
    """Write the additional state of a `BilevelModel` into a Keras weight store."""
    signature.write(model, store)
    progress = model.progress
    counts = [progress.inner_steps, progress.outer_steps, progress.epochs]
    store[_PROGRESS] = np.asarray(counts, "int64")
    for index, seed in enumerate(_list_seed_states(model)):
        store[f"seed_{index}"] = to_array(seed)
    for name, variable in _list_network_state(model):
        store[name] = to_array(variable)


def load(model: keras.Model, store: Any) -> None:
    """Read what `save` wrote.

    A store that lacks it changes nothing: it comes from a plain Keras model.

    Raises:
        ValueError: If the store belongs to another model.
    """
    if _PROGRESS not in store:
        return
    same_method = signature.check(model, store)
    counts = [int(count) for count in np.asarray(store[_PROGRESS])]
    progress = model.progress
    progress.inner_steps, progress.outer_steps, progress.epochs = counts
    for index, seed in enumerate(_list_seed_states(model)):
        seed.assign(np.asarray(store[f"seed_{index}"]))
    for name, variable in _list_network_state(model) if same_method else ():
        variable.assign(np.asarray(store[name]))


def to_array(variable: keras.Variable | tf.Tensor) -> np.ndarray:
    """Return the value of a variable, which may have copies on several devices.

    In the scope of a strategy, NumPy cannot read such a variable by itself.
    """
    return np.asarray(tf.convert_to_tensor(variable))


def _list_network_state(model):
    return [(f"method_{name}", v) for name, v in model.network_state.items()]


def _list_seed_states(model):
    names = "seed_generator_state"
    return [v for v in model.non_trainable_variables if v.name == names]
