"""What a checkpoint must have beyond what Keras saves, so that training goes on."""

import numpy as np

_PROGRESS = "progress"


def save(model, store):
    """Write progress and random seed states into a Keras weight store."""
    progress = model.progress
    counts = [progress.inner_steps, progress.outer_steps, progress.epochs]
    store[_PROGRESS] = np.asarray(counts, "int64")
    for index, seed in enumerate(_seed_states(model)):
        store[f"seed_{index}"] = np.asarray(seed.value)
    for name, variable in _network_state(model):
        store[name] = np.asarray(variable.value)


def load(model, store):
    """Read what `save` wrote; a store without it, from Keras, is accepted."""
    if _PROGRESS not in store:
        return
    counts = [int(count) for count in np.asarray(store[_PROGRESS])]
    progress = model.progress
    progress.inner_steps, progress.outer_steps, progress.epochs = counts
    for index, seed in enumerate(_seed_states(model)):
        seed.assign(np.asarray(store[f"seed_{index}"]))
    for name, variable in _network_state(model):
        variable.assign(np.asarray(store[name]))


def _network_state(model):
    return [(f"method_{name}", v) for name, v in model.network_state.items()]


def _seed_states(model):
    names = "seed_generator_state"
    return [v for v in model.non_trainable_variables if v.name == names]


def with_callback(callbacks, first):
    """Keras's `callbacks` argument with one more callback, which runs first."""
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    return [first, *(callback for callback in given if callback is not None)]
