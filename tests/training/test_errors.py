"""What goes wrong says so, early and in words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.training.models import (
    CROSSENTROPY,
    METHODS,
    classifier,
    compiled,
    data,
    everything,
    network,
    space,
)

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def bilevel(build, hp=None):
    hp = hp or space()
    inputs = keras.Input((6,))
    return bt.BilevelModel(inputs, build(inputs, hp), hyperparameters=hp)


# Assembling


@pytest.mark.parametrize("given", [None, {"rate": 0.3}, bt.Uniform(0, 1, initial=0.5)])
def test_no_space(given):
    inputs = keras.Input((6,))
    with pytest.raises(TypeError, match=r"must be a .*HyperparameterSpace"):
        bt.BilevelModel(inputs, bt.HyperDense(3)(inputs), hyperparameters=given)


@pytest.mark.parametrize("where", ["layer", "regularizer", "nested"])
def test_reference_into_another_space(where):
    other = space()

    def build(inputs, hp):
        if where == "layer":
            return bt.HyperDense(3)(bt.HyperDropout(other["rate"])(inputs))
        layer = bt.HyperDense(3, kernel_regularizer=bt.L2(other["l2"]))
        return (keras.Sequential([layer]) if where == "nested" else layer)(inputs)

    with pytest.raises(ValueError, match="belongs to another HyperparameterSpace"):
        bilevel(build)


def test_unknown_hyperparameter():
    with pytest.raises(ValueError, match=r"Unknown hyperparameter 'ratee'.*'rate'"):
        space()["ratee"]


def test_config_with_a_name_that_the_space_lacks():
    config = classifier().get_config()
    scale = bt.Uniform(0.0, 1.0, initial=0.5)
    config["hyperparameters"] = keras.saving.serialize_keras_object(
        bt.HyperparameterSpace(other=scale)
    )
    with pytest.raises(ValueError, match="Unknown hyperparameter 'rate'"):
        bt.BilevelModel.from_config(config)


# Compiling


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frozen", [False, True])
def test_no_hyper_layers(method, frozen):
    layer = bt.HyperDense(3) if frozen else keras.layers.Dense(3)
    layer.trainable = not frozen
    model = bilevel(lambda x, hp: layer(bt.HyperDropout(hp["rate"])(x)))
    with pytest.raises(ValueError, match="no layer of the model can respond"):
        compiled(model, METHODS[method]())


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_activation_under_a_loss_on_logits(activation):
    model = bilevel(lambda x, hp: bt.HyperDense(3, activation=activation)(x))
    with pytest.raises(ValueError, match=f"goes through {activation}.*from_logits"):
        compiled(model)


@pytest.mark.parametrize("keys", ["layers", "structure"])
def test_activation_under_one_of_several_losses(keys):
    inputs, hp = keras.Input((6,)), space()
    good = bt.HyperDense(3, name="good")(inputs)
    bad = bt.HyperDense(3, activation="softmax", name="bad")(inputs)
    names = ("good", "bad") if keys == "layers" else ("one", "two")
    outputs = dict(zip(names, (good, bad), strict=True))
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    with pytest.raises(ValueError, match="output of 'bad' goes through softmax"):
        compiled(model, loss=dict.fromkeys(names, CROSSENTROPY))
    probabilities = keras.losses.SparseCategoricalCrossentropy()
    compiled(model, loss={names[0]: CROSSENTROPY, names[1]: probabilities})


SEPARATE = {
    "Activation": lambda x, hp: keras.layers.Activation("softmax")(bt.HyperDense(3)(x)),
    "Softmax": lambda x, hp: keras.layers.Softmax()(bt.HyperDense(3)(x)),
    "Dense": lambda x, hp: keras.layers.Dense(3, "softmax")(bt.HyperDense(4)(x)),
    "nested": lambda x, hp: keras.Sequential(
        [bt.HyperDense(3), keras.layers.Softmax()]
    )(x),
}


@pytest.mark.parametrize("name", SEPARATE)
def test_separate_softmax_cannot_be_linearised(name):
    loss = keras.losses.SparseCategoricalCrossentropy()
    model = bilevel(SEPARATE[name])
    with pytest.raises(ValueError, match="linearised before the final softmax"):
        compiled(model, loss=loss)
    compiled(model, bt.STN(), loss=loss)
    with pytest.raises(ValueError, match="goes through softmax"):
        compiled(model, bt.STN())


@pytest.mark.parametrize(
    "method",
    [[bt.DeltaSTN(), bt.STN()], bt.DeltaSTN, "delta_stn", 3],
    ids=["list", "class", "name", "number"],
)
def test_what_is_not_one_method(method):
    with pytest.raises(TypeError, match="must be one method object such as"):
        compiled(bilevel(lambda x, hp: bt.HyperDense(3)(x)), method)


NAMED = {
    "loss": ("loss", {}),
    "string": ("accuracy", {"metrics": ["accuracy"]}),
    "object": ("close", {"metrics": [keras.metrics.MeanSquaredError(name="close")]}),
    "weighted": ("accuracy", {"weighted_metrics": ["accuracy"]}),
    "validation": ("val_loss", {}),
}


@pytest.mark.parametrize("case", NAMED)
def test_hyperparameter_named_like_a_metric(case):
    name, arguments = NAMED[case]
    hp = bt.HyperparameterSpace({name: bt.Uniform(0.0, 1.0, initial=0.5)})
    model = bilevel(lambda x, hp: bt.HyperDense(3)(x), hp)
    with pytest.raises(ValueError, match=f"'{name}' has the name of a loss or metric"):
        compiled(model, **arguments)


def test_hyperparameter_named_like_an_output_loss():
    hp = bt.HyperparameterSpace(a_loss=bt.Uniform(0.0, 1.0, initial=0.5))

    def build(x, hp):
        return [bt.HyperDense(1, name="a")(x), bt.HyperDense(1, name="b")(x)]

    with pytest.raises(ValueError, match="'a_loss' has the name of a loss or metric"):
        compiled(bilevel(build, hp), loss="mse")


def test_tuned_penalty_on_a_plain_layer():
    def build(x, hp):
        layer = keras.layers.Dense(4, kernel_regularizer=bt.L2(hp["l2"]))
        return bt.HyperDense(3)(layer(x))

    with pytest.raises(ValueError, match=r"`kernel_regularizer` of Dense .* respond"):
        compiled(bilevel(build))


def test_hypernetwork_that_is_too_large():
    # (6 + 1)·8 + (8 + 1)·3 = 83 weights for each of two hyperparameters.
    with pytest.raises(ValueError, match=r"166 weights \(83 weights × 2"):
        classifier(bt.methods.Hypernetwork(max_weights=165))
    assert (
        len(
            classifier(
                bt.methods.Hypernetwork(max_weights=166)
            ).network.response_variables
        )
        == 4
    )


BAD_OPTIONS = [
    ("DeltaSTN", "train_steps", 0),
    ("DeltaSTN", "train_steps", 2.5),
    ("STN", "train_steps", True),
    ("STN", "valid_steps", 0),
    ("DeltaSTN", "valid_steps", "1"),
    ("DeltaSTN", "warmup_epochs", -1),
    ("CenteredSTN", "entropy_weight", -1e-3),
    ("DeltaSTN", "entropy_weight", float("inf")),
    ("DeltaSTN", "entropy_weight", float("nan")),
    ("DeltaSTN", "response_share", 0),
    ("DeltaSTN", "response_share", 1.5),
    ("CenteredSTN", "response_initializer", "zeros"),
    ("Hypernetwork", "max_weights", 0),
    ("Hypernetwork", "max_weights", "many"),
]


@pytest.mark.parametrize(("method", "option", "value"), BAD_OPTIONS)
def test_options_out_of_range(method, option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be .*Received: {option}="):
        METHODS[method](**{option: value})


def test_response_share_with_shared_pass():
    with pytest.raises(ValueError, match="must be 1 with `shared_pass=True`"):
        bt.DeltaSTN(shared_pass=True, response_share=0.5)


# Calling


def test_call_at_needs_a_response():
    model = bilevel(lambda x, hp: bt.HyperDense(3)(x))
    with pytest.raises(RuntimeError, match="has no best response: compile it"):
        model.call_at(data(3)[0], {"l2": 0.1})


def test_call_at_checks_names_and_ranges():
    model, x = classifier(), data(3)[0]
    with pytest.raises(ValueError, match="Unknown hyperparameter 'decay'"):
        model.call_at(x, {"decay": 0.1})
    with pytest.raises(ValueError, match="`rate` must be"):
        model.call_at(x, {"rate": 1.5})


# Validation data


def fit(model, valid, train=None, **arguments):
    return model.fit(
        *(train or data(16)), validation_data=valid, verbose=0, **arguments
    )


def test_no_validation_data():
    with pytest.raises(ValueError, match="tunes its hyperparameters on validation"):
        fit(classifier(), None)


class Empty(keras.utils.PyDataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


def slices(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(4)


EMPTY = {
    "arrays": lambda: data(0),
    "nothing": lambda: (),
    "dataset": lambda: slices(*data(0)),
    "filtered": lambda: slices(*data(8)).filter(lambda x, y: False),
    "py_dataset": Empty,
}


@pytest.mark.parametrize("kind", EMPTY)
def test_empty_validation_data(kind):
    with pytest.raises(ValueError, match="`validation_data` is empty"):
        fit(classifier(), EMPTY[kind]())


def test_validation_data_of_another_kind():
    endless = iter(lambda: data(4), None)
    with pytest.raises(TypeError, match=r"a tuple of arrays.*Received: callable"):
        fit(classifier(), endless)
    with pytest.raises(TypeError, match="Received: ndarray"):
        fit(classifier(), data(4)[0])


@pytest.mark.parametrize("share", [1.0, -0.5, 3])
def test_validation_split_out_of_range(share):
    with pytest.raises(ValueError, match="`validation_split` must be between 0 and 1"):
        fit(classifier(), None, validation_split=share)


def test_validation_split_of_a_dataset():
    with pytest.raises(ValueError, match="works on arrays only"):
        fit(classifier(), None, (slices(*data(8)),), validation_split=0.5)
    with pytest.raises(ValueError, match="works on arrays only"):
        fit(classifier(), None, (Empty(),), validation_split=0.5)


# Numbers


class Kept(keras.callbacks.Callback):
    """The state at the beginning of the latest epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.state = everything(self.model)
        self.progress = dict(vars(self.model.progress))


def assert_restored(model, kept):
    now = everything(model)
    assert len(now) == len(kept.state) > 0
    for name, value in now.items():
        np.testing.assert_array_equal(value, kept.state[name], err_msg=name)
        assert np.all(np.isfinite(value)), name
    assert vars(model.progress) == kept.progress


@pytest.mark.parametrize("method", ["DeltaSTN", "STN"])
def test_nan_in_training_data(method):
    model, kept = classifier(METHODS[method](train_steps=1)), Kept()
    fit(model, data(8), data(40), batch_size=8)
    x, y = data(40)
    x[17] = np.nan
    with pytest.raises(
        FloatingPointError, match=r"'loss'.* became NaN .* at step 3 of"
    ):
        fit(model, data(8), (x, y), batch_size=8, shuffle=False, callbacks=kept)
    assert_restored(model, kept)
    assert kept.progress["inner_steps"] == 5
    fit(model, data(8), data(40), batch_size=8)


def test_nan_in_validation_data():
    model, kept = classifier(bt.DeltaSTN(train_steps=2)), Kept()
    x, y = data(8)
    x[3] = np.nan
    with pytest.raises(ValueError, match=r"`validation_data` has NaN .* `x`.*ple 3"):
        fit(model, (x, y), data(40))
    message = (
        r"'(l2', 'rate|rate', 'l2)' became .* step 2 of.*NaN in the validation data"
    )
    with pytest.raises(FloatingPointError, match=message):
        fit(model, slices(x, y), data(40), batch_size=8, callbacks=[kept])
    assert_restored(model, kept)


def regression(rate, **arguments):
    model = bilevel(lambda x, hp: bt.HyperDense(1)(x))
    optimizers = {
        "optimizer": keras.optimizers.SGD(rate),
        "response_optimizer": keras.optimizers.SGD(1e-3),
    }
    method = bt.DeltaSTN(warmup_epochs=9)
    return compiled(model, method, loss="mse", **{**optimizers, **arguments})


def test_blow_up_in_a_later_epoch():
    optimizer = keras.optimizers.SGD(1e-12)
    model, kept = regression(30.0, response_optimizer=optimizer), Kept()
    with pytest.raises(
        FloatingPointError, match=r"'loss' became .* at step .* epoch 2"
    ):
        fit(model, data(8), data(64), batch_size=8, epochs=9, callbacks=[kept])
    assert_restored(model, kept)
    assert model.progress.epochs == 1


def test_blow_up_that_no_loss_shows():
    """The last step of an epoch, and the response while hyperparameters are fixed."""
    x, y = data(8)
    model, kept = regression(1e38), Kept()
    x = x * 1e3
    with pytest.raises(FloatingPointError, match=r"kernel.* at the end of epoch 1"):
        fit(model, data(8), (x, y), batch_size=8, callbacks=[kept])
    assert_restored(model, kept)
    optimizer = keras.optimizers.SGD(1e38, momentum=0.9)
    model, kept = regression(1e-3, response_optimizer=optimizer), Kept()
    with pytest.raises(FloatingPointError, match=r"response.* at the end of epoch 1"):
        fit(model, data(8), (x, y), batch_size=8, callbacks=[kept])
    assert_restored(model, kept)


class Logs(keras.callbacks.Callback):
    """The names of what is called, in order."""

    def __init__(self):
        super().__init__()
        self.called = []

    def on_epoch_end(self, epoch, logs=None):
        self.called.append(f"epoch {epoch}")

    def on_train_end(self, logs=None):
        self.called.append("train")


@pytest.mark.parametrize("as_list", [True, False])
def test_terminate_on_nan_ends_the_fit(as_list):
    """Keras's callback asks for a history in place of an error."""
    model, kept = classifier(bt.DeltaSTN(train_steps=2)), Kept()
    x, y = data(8)
    called = Logs()
    callbacks = [keras.callbacks.TerminateOnNaN(), kept, called]
    if not as_list:
        callbacks = keras.callbacks.CallbackList(callbacks)
    x[3] = np.nan
    with pytest.warns(
        RuntimeWarning, match=r"'(l2', 'rate|rate', 'l2)' became .* step 2 of epoch 1"
    ):
        history = fit(
            model, slices(x, y), data(40), batch_size=8, epochs=3, callbacks=callbacks
        )
    assert_restored(model, kept)
    assert history.epoch == [0]
    assert np.isnan(history.history["l2"][0])
    assert called.called == ["epoch 0", "train"]
    assert np.isfinite(fit(model, data(8), data(40), batch_size=8).history["l2"][0])


def test_terminate_on_nan_at_the_end_of_an_epoch():
    x, y = data(8)
    model, kept = regression(1e38), Kept()
    callbacks = [kept, keras.callbacks.TerminateOnNaN()]
    with pytest.warns(RuntimeWarning, match="kernel.* at the end of epoch 1"):
        history = fit(
            model, data(8), (x * 1e3, y), batch_size=8, epochs=3, callbacks=callbacks
        )
    assert history.epoch == [0]
    assert_restored(model, kept)


def test_uncompiled_model_does_not_fit():
    hp = space()
    model = bt.BilevelModel(*network(hp), hyperparameters=hp)
    with pytest.raises(ValueError, match="must call `compile\\(\\)`"):
        fit(model, data(8))
