"""What a traced result is computed from."""

import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.network.influence import Influence


def names(read):
    """The hyperparameters behind `read(h, values, x)`."""
    hp = bt.HyperparameterSpace(
        a=bt.Positive(1.0), b=bt.Positive([1.0, 2.0]), c=bt.Integer(0, 3, initial=1)
    )

    def function(h, values, x):
        return {"result": read(h, values, x)}

    return Influence(function, hp, [tf.TensorSpec([2])]).names("result")


def test_values_are_told_apart():
    assert names(lambda h, values, x: x) == set()
    assert names(lambda h, values, x: values["a"] * x) == {"a"}
    assert names(lambda h, values, x: [values["b"], None]) == {"b"}
    assert names(lambda h, values, x: values["b"]) == {"b"}
    assert names(lambda h, values, x: values["a"] + values["c"]) == {"a", "c"}


def test_steps_without_a_derivative_count():
    assert names(lambda h, values, x: tf.cast(values["c"], tf.int32) > 1) == {"c"}

    def loop(h, values, x):
        return tf.while_loop(lambda i: i < 3.0, lambda i: (i + values["a"],), [x[0]])

    assert names(loop) == {"a"}


def test_what_a_derivative_leaves_out_does_not_count():
    def gradient(h, values, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(values["b"] * x**2) + values["a"]
        return tape.gradient(loss, x)

    assert names(gradient) == {"b"}


def test_what_is_read_in_another_way_is_anything():
    everything = {"a", "b", "c"}
    assert names(lambda h, values, x: 2.0 * h) == everything
    assert names(lambda h, values, x: h[-1]) == everything
    assert names(lambda h, values, x: tf.gather(h, tf.cast(x, tf.int32))) == everything
    assert names(lambda h, values, x: h[3]) == {"c"}
    assert names(lambda h, values, x: h[:2]) == {"a", "b"}


def test_other_arguments_are_numbered():
    hp = bt.HyperparameterSpace(a=bt.Positive(1.0))
    specs = [tf.TensorSpec([]), tf.TensorSpec([]), tf.TensorSpec([])]

    def function(h, values, x, y, z):
        return {"one": [x + 1.0, z], "none": h}

    found = Influence(function, hp, specs)
    assert found.arguments("one") == {0, 2}
    assert found.arguments("none") == set()
