"""A fit that tunes nothing says so."""

import warnings

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from tests.training.models import classifier, data

TRAIN, VALID = data(32), data(16, seed=1)


def fit(model, steps=4, **arguments):
    """Fit for epochs of so many steps."""
    x, y = TRAIN
    part = slice(None, 8 * steps)
    given = {"batch_size": 8, "verbose": 0, "validation_data": VALID, **arguments}
    return model.fit(x[part], y[part], **given)


def silent_fit(*arguments, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(*arguments, **named)


@pytest.mark.parametrize("steps_per_execution", [1, 8])
@pytest.mark.parametrize("method", [bt.DeltaSTN, bt.methods.T1T2])
def test_too_few_steps(method, steps_per_execution):
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((6,))
    layer = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        method=method(train_steps=5),
        steps_per_execution=steps_per_execution,
    )
    with pytest.warns(UserWarning, match=r"no hyperparameter was tuned.*5.*4 train"):
        fit(model)
    assert model.hyperparameters.values()["l2"] == pytest.approx(1e-2)
    # The steps are counted on: the fifth is in the next fit.
    silent_fit(model)
    assert model.progress.outer_steps == 1


def test_fits_of_one_epoch_that_take_outer_steps_together():
    model = classifier(bt.DeltaSTN(train_steps=5))
    with pytest.warns(UserWarning, match="No outer step"):
        fit(model, 3)
    for outer_steps in (1, 1, 2, 3):
        silent_fit(model, 3)
        assert model.progress.outer_steps == outer_steps


def test_compile_counts_anew():
    model = classifier(bt.DeltaSTN(train_steps=2))
    silent_fit(model)
    model.compile(loss=model.loss, method=bt.DeltaSTN(train_steps=50))
    with pytest.warns(UserWarning, match="train_steps=50"):
        fit(model)


def test_a_loaded_model_has_taken_its_outer_steps(tmp_path):
    model = classifier(bt.DeltaSTN(train_steps=4))
    silent_fit(model)
    model.save(tmp_path / "model.keras")
    silent_fit(keras.models.load_model(tmp_path / "model.keras"), 2)


def test_warm_up_longer_than_the_fit():
    model = classifier(bt.DeltaSTN(train_steps=2, warmup_epochs=2))
    with pytest.warns(UserWarning, match=r"warm-up.*warmup_epochs=2.* and 1 in"):
        fit(model)
    with pytest.warns(UserWarning, match="1 epochs taken before"):
        fit(model)
    silent_fit(model)
    silent_fit(classifier(bt.DeltaSTN(train_steps=2, warmup_epochs=2)), epochs=3)


def test_epochs_done_before_do_not_count():
    model = classifier(bt.DeltaSTN(train_steps=2, warmup_epochs=2))
    with pytest.warns(UserWarning, match="warm-up"):
        fit(model, epochs=4, initial_epoch=2)


@pytest.mark.parametrize("method", [bt.DeltaSTN(train_steps=2), bt.STN(train_steps=2)])
def test_a_learning_rate_of_zero(method):
    model = classifier(method, hyper_optimizer=keras.optimizers.SGD(0.0))
    with pytest.warns(UserWarning, match=r"2 outer steps moved.*`hyper_opt") as caught:
        fit(model)
    # The warning is shown at the line that calls `fit`.
    ours = [each.filename for each in caught if "outer steps" in str(each.message)]
    assert ours == [__file__]


def test_hypergradients_of_zero():
    method = bt.DeltaSTN(train_steps=2, entropy_weight=0.0)
    model = classifier(method, hyper_optimizer=keras.optimizers.SGD(0.1))
    nothing = (*VALID, np.zeros(16, "float32"))
    with pytest.warns(UserWarning, match="gradients are zero"):
        fit(model, validation_data=nothing)


def test_no_epoch_at_all():
    silent_fit(classifier(), epochs=0)
    silent_fit(classifier(), epochs=2, initial_epoch=2)
