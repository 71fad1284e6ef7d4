"""What would let an example reach the model that must not see it is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.objectives.cross_validation.requirements import ELEMENTWISE
from tests.objectives.classifiers import (
    assert_same,
    classifier,
    data,
    dense,
    fit,
    network,
    space,
    state,
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "`folds` must be a whole number, at least 2.*folds=1"),
        ({"folds": 2.0}, r"`folds` must be a whole number.*folds=2\.0"),
        ({"folds": True}, "`folds` must be a whole number.*folds=True"),
        ({"seed": -1}, "`seed` must be a whole number, at least 0.*seed=-1"),
        ({"seed": None}, "`seed` must be a whole number.*seed=None"),
        ({"stratified": "yes"}, "`stratified` must be True, False or None.*'yes'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        bt.CrossValidation(**arguments)


# Data


def refused_by_fit(model, error, message, *arguments, **named):
    """`fit` raises before anything is trained."""
    before = state(model)
    with pytest.raises(error, match=message):
        fit(model, *arguments, **named)
    assert_same(before, state(model))


def test_more_folds_than_examples():
    model = classifier(objective=bt.CrossValidation(11))
    refused_by_fit(model, ValueError, "folds=11, and 10 examples", *data(10))


def test_more_folds_than_examples_of_a_class():
    x, _ = data(30)
    y = np.repeat([0, 1, 2], [20, 8, 2])
    message = "stratified=False.*folds=3, and a class of 2 examples"
    refused_by_fit(classifier(), ValueError, message, x, y)
    fit(classifier(objective=bt.CrossValidation(3, stratified=False)), x, y)


def test_stratification_needs_classes():
    model = classifier(objective=bt.CrossValidation(3, stratified=True), loss="mse")
    x = data(30)[0]
    message = r"`stratified=True` needs `y` to be classes.*\(30, 3\)"
    refused_by_fit(model, ValueError, message, x, x[:, :3])


class Batches(keras.utils.PyDataset):
    """One batch."""

    num_batches = 1

    def __getitem__(self, index):
        return data(30)


SOURCES = {
    "Dataset": lambda: tf.data.Dataset.from_tensor_slices(data(30)).batch(10),
    "Batches": lambda: Batches(workers=1),
    "generator": lambda: (batch for batch in [data(30)]),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_data_must_be_arrays(kind):
    message = f"`x` and `y` must be arrays.*Received: .*{kind}"
    source = SOURCES[kind]()
    refused_by_fit(classifier(), TypeError, message, source, None, batch_size=None)


def test_class_weight_is_refused():
    message, weight = "does not see `class_weight`", {0: 2.0}
    refused_by_fit(classifier(), ValueError, message, *data(), class_weight=weight)


def test_a_loss_that_sees_other_examples():
    def mean(y, predictions):
        return tf.reduce_mean((predictions - y) ** 2)

    x = data(30)[0]
    message = "`loss` must return one value per example"
    refused_by_fit(classifier(loss=mean), ValueError, message, x, x[:, :3])


def test_losses_on_activities_are_refused():
    model = classifier(dense(activity_regularizer="l2"))
    refused_by_fit(model, ValueError, "`add_loss` or activity regularizers", *data())


def test_a_batch_without_folds():
    with pytest.raises(TypeError, match=r"which fold every example is in.*`fit`"):
        classifier().train_on_batch(*data())


# Model


def refused(message, *make, **arguments):
    with pytest.raises(ValueError, match=message):
        classifier(*make, **arguments)


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_optimizers_that_are_taken_do_not_mix_folds(kind):
    rng = np.random.default_rng(0)
    values, gradients = rng.normal(size=(2, 3)), rng.normal(size=(3, 2, 3))

    def trained(part):
        optimizer, variable = kind(0.1), keras.Variable(values[part])
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient[part], "float32")], [variable])
        return np.array(variable)

    together = trained(slice(None))
    for q in range(2):
        np.testing.assert_allclose(together[q], trained(q), rtol=1e-5)


@pytest.mark.parametrize("name", ["Lamb", "Adafactor", "Muon"])
def test_optimizers_that_mix_folds(name):
    optimizer = getattr(keras.optimizers, name)()
    message = f"`optimizer` must treat every weight by itself.*Received: {name}"
    refused(message, optimizer=optimizer)


def test_a_tuned_optimizer_that_mixes_folds():
    hp = space(rate=bt.Positive(0.1))
    lamb = bt.TunedOptimizer(keras.optimizers.Lamb(), learning_rate=hp["rate"])
    message = "every weight by itself.*Received: Lamb"
    refused(message, hp=hp, optimizer=lamb, method=bt.methods.Greedy())


def test_loss_scaling_is_refused():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    refused("by itself.*Received: LossScaleOptimizer", optimizer=scaled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipnorm": 1.0}, r"clips by a norm.*`clipvalue`.*clipnorm=1\.0"),
        ({"global_clipnorm": 1.0}, r"clips by a norm.*global_clipnorm=1\.0"),
        ({"use_ema": True}, "averages weights over steps.*use_ema=True"),
        ({"loss_scale_factor": 8.0}, r"scales the loss.*loss_scale_factor=8\.0"),
    ],
)
def test_options_of_optimizers_that_mix_folds(options, message):
    refused(message, optimizer=keras.optimizers.SGD(0.1, **options))


def test_batch_statistics_are_refused():
    layer = keras.layers.BatchNormalization(name="normal")
    refused("cannot use BatchNormalization 'normal'", dense([layer]))
    layer.trainable = False
    classifier(dense([layer]))


def test_a_sum_is_no_mean():
    loss = keras.losses.MeanSquaredError("sum")
    refused("must be means over examples.*MeanSquaredError.*'sum'", loss=loss)


def test_distribution_is_refused():
    with tf.distribute.OneDeviceStrategy("cpu:0").scope():
        refused("under a tf.distribute strategy.*OneDeviceStrategy", network)


def test_real_time_forward_mode_is_refused():
    message = "`real_time` must be False.*CrossValidation.*real_time=True"
    refused(message, method=bt.methods.ForwardMode(real_time=True))


@pytest.mark.parametrize(
    "method", [bt.methods.GaussNewton(), bt.methods.EmpiricalFisher()]
)
def test_methods_that_need_parts_of_the_loss_are_refused(method):
    refused(f"{type(method).__name__} needs.*ConjugateGradient", method=method)


def test_best_responses_are_refused():
    refused("DeltaSTN fits a best response.*ConjugateGradient", method=bt.DeltaSTN())


@pytest.mark.parametrize(
    ("y", "message"), [(None, "no `y`"), (np.zeros(29), r"lengths \[29, 30\]")]
)
def test_arrays_must_have_one_length(y, message):
    model = classifier(dense(activation="relu"))
    with pytest.raises(ValueError, match=message):
        model.fit(np.ones((30, 4), "float32"), y, verbose=0)
