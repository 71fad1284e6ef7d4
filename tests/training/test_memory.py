"""Nothing holds a model, nor its graphs, after the model has been deleted."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from benchmarks import memory_growth

KINDS = [*memory_growth.METHODS, memory_growth.POSTERIOR]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_die_with_the_model(kind, monkeypatch):
    """TensorFlow keeps custom gradients and forward derivatives by itself."""
    graphs, make = [], memory_growth.bilevel

    def noting(*arguments):
        model = make(*arguments)
        compute = model.compute_loss

        def compute_loss(*arguments, **named):
            graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return compute(*arguments, **named)

        model.compute_loss = compute_loss
        graphs.append(weakref.ref(model))
        return model

    monkeypatch.setattr(memory_growth, "bilevel", noting)
    memory_growth.fit_once(kind, 8)
    gc.collect()
    assert len(graphs) > 2
    assert [ref for ref in graphs if ref() is not None] == []


def test_graphs_of_prediction_die():
    """A hyperparameter is read through a bijector, which would remember it."""
    graphs = []

    class Noting(keras.layers.Layer):
        def call(self, inputs):
            graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return inputs

    def predict():
        hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.9, initial=0.5))
        inputs = keras.Input((3,))
        x = bt.layers.HyperGaussianNoise(hp["rate"])(Noting()(inputs))
        model = bt.BilevelModel(inputs, bt.HyperDense(1)(x), hyperparameters=hp)
        model.predict(np.ones((4, 3)), verbose=0)
        tf.function(lambda x: model(x, training=True))(tf.ones((4, 3)))

    predict()
    assert len(graphs) > 2
    keras.backend.clear_session()
    gc.collect()
    assert [ref for ref in graphs if ref() is not None] == []


def test_feeds_leave_no_function_in_the_default_graph():
    memory_growth.fit_once("Neumann(3)", 8)
    before = tf.compat.v1.get_default_graph().as_graph_def().library
    memory_growth.fit_once("Neumann(3)", 8)
    after = tf.compat.v1.get_default_graph().as_graph_def().library
    assert len(after.function) == len(before.function)
