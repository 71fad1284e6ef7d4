"""Loss scales of the optimizers that take steps in one pass."""

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from bilevel_tf.methods.best_response.best_response import rescale_gradients
from bilevel_tf.training.compiling.optimizer_arguments import scale_loss_like

Scaled = keras.optimizers.LossScaleOptimizer


def test_gradients_go_from_one_scale_to_another():
    gradients = [np.float32(6.0), None]
    plain, four = keras.optimizers.SGD(), Scaled(keras.optimizers.SGD(), 4.0)
    eight = Scaled(keras.optimizers.SGD(), 8.0)
    for optimizer in (four, eight):
        optimizer.build([keras.Variable(np.zeros(1))])
    assert rescale_gradients(gradients, plain, plain) is gradients
    assert float(rescale_gradients(gradients, four, eight)[0]) == 12.0
    assert float(rescale_gradients(gradients, eight, plain)[0]) == 0.75
    assert rescale_gradients(gradients, eight, plain)[1] is None


@pytest.mark.parametrize("given", [None, keras.optimizers.Adam])
def test_the_response_optimizer_scales_if_that_of_the_weights_does(given):
    keras.config.set_dtype_policy("mixed_float16")
    hp = bt.HyperparameterSpace(l2=bt.Positive(0.1))
    inputs = keras.Input((2,))
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("sgd", "mse", response_optimizer=given and given(0.01))
    assert type(model.response_optimizer) is Scaled
    kind = given or keras.optimizers.SGD
    assert type(model.response_optimizer.inner_optimizer) is kind


def test_without_a_scale_an_optimizer_stays_as_it_is():
    plain, scaled = keras.optimizers.SGD(), Scaled(keras.optimizers.SGD())
    assert scale_loss_like(plain, plain) is plain
    assert scale_loss_like(scaled, plain) is scaled
    assert scale_loss_like(scaled, scaled) is scaled


@pytest.mark.parametrize("method", [bt.STN, bt.DeltaSTN])
def test_an_overflow_leaves_weights_and_responses_finite(method):
    """The first loss scale is too large for these data: the step is skipped."""
    keras.config.set_dtype_policy("mixed_float16")
    hp = bt.HyperparameterSpace(l2=bt.Positive(0.1))
    inputs = keras.Input((2,))
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    sgd = keras.optimizers.SGD(1e-3)
    model.compile("sgd", "mse", method=method(train_steps=8), response_optimizer=sgd)
    x, y = np.full((32, 2), 3.0), np.full((32, 1), 9.0)
    model.fit(x, y, 4, validation_data=(x, y), verbose=0)
    for variable in model.variables:
        assert np.isfinite(np.array(variable)).all()
