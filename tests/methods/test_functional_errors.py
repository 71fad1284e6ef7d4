"""What `hypergradient` says of dtypes that differ, and of optimizers without values."""

import keras
import pytest
import tensorflow as tf

import bilevel_tf as bt

METHODS = [
    bt.methods.ExactImplicit(),
    bt.Neumann(3),
    bt.methods.T1T2(),
    bt.methods.Unrolled(3),
    bt.methods.ForwardMode(),
    bt.methods.Greedy(),
]
each_method = pytest.mark.parametrize(
    "method", METHODS, ids=lambda method: type(method).__name__
)


def find(method, convert, optimizer=None):
    return bt.hypergradient(
        lambda w, h: (w - 1.0) ** 2 + convert(h) * w**2,
        lambda w, h: w**2,
        tf.constant(0.5, tf.float64),
        tf.constant(1.0),
        method,
        optimizer or keras.optimizers.SGD(0.1),
    ).gradients


@each_method
def test_weights_in_double_precision_with_hyperparameters_in_single(method):
    with pytest.raises(
        ValueError, match=r"weights of float64, .* of float32"
    ) as caught:
        find(method, lambda h: h)
    assert "tf.cast(h, w.dtype)" in str(caught.value)
    gradient = find(method, lambda h: tf.cast(h, tf.float64))
    assert gradient.dtype == tf.float32
    assert float(gradient) < 0.0


def test_an_error_of_the_users_own_stays_what_it_is():
    def fail(h):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        find(bt.Neumann(3), fail)


MAKERS = {
    "optimizer": lambda: keras.optimizers.SGD(0.1),
    "tuned": lambda: bt.TunedOptimizer("sgd", learning_rate=lambda h: 0.1 * h),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_an_optimizer_made_inside_a_function(kind):
    @tf.function(autograph=False)
    def inside():
        return find(bt.methods.Unrolled(2), lambda h: h, MAKERS[kind]())

    with pytest.raises(ValueError, match=r"made outside of the `tf\.function`"):
        inside()


def test_an_optimizer_made_outside_of_a_function():
    optimizer = MAKERS["optimizer"]()

    def convert(h):
        return tf.cast(h, tf.float64)

    @tf.function(autograph=False)
    def inside():
        return find(bt.methods.Unrolled(2), convert, optimizer)

    assert float(inside()) == float(find(bt.methods.Unrolled(2), convert, optimizer))
