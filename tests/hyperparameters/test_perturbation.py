"""The channel between a pass and its layers."""

import dataclasses
import threading

import pytest

from bilevel_tf.hyperparameters import perturbation


def test_no_scope_outside():
    assert perturbation.current_scope() is None
    with perturbation.scope():
        assert perturbation.current_scope() is not None
    assert perturbation.current_scope() is None


def test_defaults_are_an_ordinary_pass():
    with perturbation.scope() as entered:
        assert entered is perturbation.current_scope()
        assert entered == perturbation.Scope(
            delta=None,
            values=None,
            tangents=None,
            peeled=frozenset(),
            penalties=True,
            losses=None,
        )


def test_innermost_is_in_force():
    with perturbation.scope(tangents=object()):
        with perturbation.scope(penalties=False) as inner:
            assert perturbation.current_scope() is inner
            # An inner scope inherits nothing.
            assert not inner.linearized
        assert perturbation.current_scope().linearized
        assert perturbation.current_scope().penalties


def test_exception_leaves_the_scope():
    with perturbation.scope(tangents=object()) as outer:
        with pytest.raises(KeyError, match="boom"), perturbation.scope():
            raise KeyError("boom")
        assert perturbation.current_scope() is outer
    assert perturbation.current_scope() is None


def test_scope_is_immutable():
    with (
        perturbation.scope() as entered,
        pytest.raises(dataclasses.FrozenInstanceError, match="penalties"),
    ):
        entered.penalties = False


def test_unknown_attribute():
    with pytest.raises(TypeError, match="sigma"), perturbation.scope(sigma=1.0):
        pass
    assert perturbation.current_scope() is None


def test_threads_do_not_share_scopes():
    seen = []

    def look():
        seen.append(perturbation.current_scope())
        with perturbation.scope(tangents=object()):
            seen.append(perturbation.current_scope().linearized)

    with perturbation.scope(penalties=False) as ours:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert perturbation.current_scope() is ours
    assert seen == [None, True]
