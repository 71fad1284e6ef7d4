"""Every method under every condition: the steps are those of a network by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.cross import best_responses
from tests.cross.condition import HYPER_RATE
from tests.cross.conditions import CONDITIONS
from tests.cross.hypergradients import REFERENCES, History, take_step
from tests.cross.point import Point, to_double
from tests.cross.table import METHODS, PAGE, REFUSED, render


class Watched:
    """A compiled model whose steps are held against those by hand.

    Args:
        condition: The `Condition`.
        name: The row in `METHODS`.
    """

    def __init__(self, condition, name, patch):
        self.condition, self.name = condition, name
        self.model = condition.model(METHODS[name]())
        self.network, self.method = self.model.network, self.model.method
        space = self.model.hyperparameters
        patch.setattr(space, "sample", self._sample)
        self.start = [to_double(w) for w in self.network.weights]
        self.steps, self.outer_steps = [], 0
        self._steps = self.method.inner_step, self.method.outer_step
        patch.setattr(self.method, "inner_step", self.inner_step)
        patch.setattr(self.method, "outer_step", self.outer_step)

    def _sample(self, count):
        space = self.model.hyperparameters
        noise = tf.cast(best_responses.NOISE[: int(count)], space.dtype)
        return noise * space.perturbation_scale()

    def velocity(self):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return [to_double(v) for v in optimizer.momentums]

    def assert_close(self, found, expected):
        found, expected = (
            np.concatenate([*map(np.ravel, x)]) for x in (found, expected)
        )
        size = np.linalg.norm(expected)
        assert size > 1e-4
        error = np.linalg.norm(found - expected) / size
        assert error <= self.condition.rtol, (found, expected)

    def inner_step(self, network, x, y, sample_weight):
        """An inner step, with its result checked."""
        point, batch = Point(self.condition, self.model), (x, y, sample_weight)
        self.steps.append((point.h, batch))
        if self.name in REFERENCES:
            expected = take_step(point, point.weights, self.velocity(), point.h, batch)[
                0
            ]
            variables = network.weights
        else:
            parts = best_responses.inner_step(self.model, point, batch, self.velocity())
            expected = [*parts[0], *parts[1]]
            variables = [*network.weights, *network.response_variables]
        before = [np.array(v) for v in variables]
        results = self._steps[0](network, x, y, sample_weight)
        # The change, which is small beside the weights.
        moved = [np.array(v) - b for v, b in zip(variables, before, strict=True)]
        wanted = [np.array(e) - b for e, b in zip(expected, before, strict=True)]
        self.assert_close(moved, wanted)
        return results

    def outer_step(self, network, validation, training):
        """An outer step, with its result checked."""
        point = Point(self.condition, self.model)
        space = self.model.hyperparameters
        variables = self.method.tuned_variables(space)
        if self.name in REFERENCES:
            history = History(self.start, self.steps, self.velocity())
            expected = [
                REFERENCES[self.name](
                    point, self.unstack(training), validation, history
                )
            ]
        else:
            expected = best_responses.outer_gradient(self.model, point, validation)
        before = [np.array(v) for v in variables]
        logs = self._steps[1](network, validation, training)
        pairs = zip(variables, before, strict=True)
        found = [(b - np.array(v)) / HYPER_RATE for v, b in pairs]
        self.assert_close(found, expected)
        self.outer_steps += 1
        return logs

    def unstack(self, training):
        def take(t):
            return lambda array: None if array is None else array[t]

        count = self.method.inner_batches
        return [keras.tree.map_structure(take(t), training) for t in range(count)]

    def run(self):
        """Two inner steps and an outer one."""
        for seed in (1, 2):
            self.method.inner_step(self.network, *self.condition.batch(seed))
        fresh = [self.condition.batch(3 + t) for t in range(self.method.inner_batches)]
        training = fresh and keras.tree.map_structure(
            lambda *parts: None if parts[0] is None else tf.stack(parts), *fresh
        )
        self.method.outer_step(self.network, self.condition.batch(9), training or None)

    def fit(self):
        """An epoch of batches of 4 and 2 examples; validation batches likewise."""
        x, y, _ = self.condition.batch(1)
        x, y = (np.concatenate([a, a[:2] + 0.5]) for a in (x, y))
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        self.model.fit(data, validation_data=data, shuffle=False, verbose=0)
        assert [len(batch[0]) for _, batch in self.steps] == [4, 2]


CELLS = [(c, n) for c in CONDITIONS for n in METHODS]


@pytest.mark.parametrize(
    ("condition", "name"), CELLS, ids=[f"{c.what}-{n}" for c, n in CELLS]
)
def test_cell(condition, name, monkeypatch):
    if (name, condition.what) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, condition.what]):
            condition.model(METHODS[name]())
        return
    watched = Watched(condition, name, monkeypatch)
    watched.fit() if condition.ragged else watched.run()
    assert watched.outer_steps


def test_every_method_has_a_row():
    families = "Method", "Differentiating", "BestResponse", "Implicit"
    values = {getattr(bt.methods, n) for n in bt.methods.__all__ if n not in families}
    base = bt.methods.Method
    kinds = {v for v in values if isinstance(v, type) and issubclass(v, base)}
    assert {type(make()) for make in METHODS.values()} == kinds


def test_the_page_shows_the_table():
    """`python -m tests.cross.table` writes it."""
    assert PAGE.read_text(encoding="utf-8") == render()
