"""The channel between a pass and its layers."""

import dataclasses
import threading

import pytest

from bilevel_tf.hyperparameters.pass_in_force import Pass, begin_pass, current_pass


def test_no_scope_outside():
    assert not current_pass().begun
    with begin_pass():
        assert current_pass().begun
    assert not current_pass().begun


def test_defaults_are_an_ordinary_pass():
    with begin_pass() as entered:
        assert entered is current_pass()
        assert entered == Pass(
            delta=None,
            values=None,
            tangents=None,
            peeled=frozenset(),
            penalties=True,
            losses=None,
        )


def test_innermost_is_in_force():
    with begin_pass(tangents=object()):
        with begin_pass(penalties=False) as inner:
            assert current_pass() is inner
            # An inner scope inherits nothing.
            assert not inner.linearized
        assert current_pass().linearized
        assert current_pass().penalties


def test_exception_leaves_the_scope():
    with begin_pass(tangents=object()) as outer:
        with pytest.raises(KeyError, match="boom"), begin_pass():
            raise KeyError("boom")
        assert current_pass() is outer
    assert not current_pass().begun


def test_scope_is_immutable():
    with (
        begin_pass() as entered,
        pytest.raises(dataclasses.FrozenInstanceError, match="penalties"),
    ):
        entered.penalties = False


def test_unknown_attribute():
    with pytest.raises(TypeError, match="sigma"), begin_pass(sigma=1.0):
        pass
    assert not current_pass().begun


def test_threads_do_not_share_scopes():
    seen = []

    def look():
        seen.append(current_pass().begun)
        with begin_pass(tangents=object()):
            seen.append(current_pass().linearized)

    with begin_pass(penalties=False) as ours:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert current_pass() is ours
    assert seen == [False, True]
