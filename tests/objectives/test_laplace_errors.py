"""Models and data that have no evidence are refused, and in words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.objectives.evidence import compiled, penalized, space

PRIOR = {"precision": 2.0, "data_size": 8}


def refuse(message, build=None, objective=None, **arguments):
    """Compile a model of `build(inputs, prior)` and expect a `ValueError`."""
    hp = space()
    inputs = keras.Input((6, 6, 1) if arguments.pop("image", False) else (3,))
    outputs = (build or dense)(inputs, bt.NormalPrior(**PRIOR))
    with pytest.raises(ValueError, match=message):
        compiled(hp, inputs, outputs, objective, **arguments)


def dense(inputs, prior, units=1, **arguments):
    return keras.layers.Dense(units, **penalized(prior), **arguments)(inputs)


def data(count=8):
    return np.ones((count, 3), "float32"), np.ones((count, 1), "float32")


def test_unknown_hessian():
    with pytest.raises(ValueError, match=r"`hessian` must be one of.*'full'"):
        bt.objectives.LaplaceEvidence("full")


@pytest.mark.parametrize("count", [0, 2.5, True, None])
def test_max_weights_is_a_count(count):
    with pytest.raises(ValueError, match="`max_weights` must be a whole number"):
        bt.objectives.LaplaceEvidence(max_weights=count)


def test_weights_without_prior_are_named():
    def build(inputs, prior):
        return keras.layers.Dense(1, kernel_regularizer=prior, name="last")(inputs)

    refuse("last/bias have no prior.*improper", build)


def test_frozen_weights_need_none():
    hp = space()
    inputs = keras.Input((3,))
    frozen = keras.layers.Dense(4, "tanh", trainable=False)(inputs)
    outputs = dense(frozen, bt.NormalPrior(hp["precision"], data_size=8))
    model = compiled(hp, inputs, outputs, method=bt.methods.T1T2())
    history = model.fit(*data(), batch_size=8, epochs=5, verbose=0).history
    assert np.isfinite(history["log_evidence"][-1])


@pytest.mark.parametrize(
    ("regularizer", "message"),
    [
        (bt.L2(0.25), r"Received: L2, which is NormalPrior\(2 \* data_size \* 0.25"),
        (keras.regularizers.L2(0.25), r"NormalPrior\(2 \* data_size \* 0.25"),
        (keras.regularizers.L1(0.25), "L1, which is not the logarithm of a normal"),
        (
            bt.regularizers.ScaleMixturePrior(data_size=8),
            "ScaleMixturePrior, which is not",
        ),
    ],
)
def test_other_penalties_are_no_priors(regularizer, message):
    refuse(message, lambda x, _: dense(x, regularizer))


def test_priors_agree_on_the_data():
    other = bt.NormalPrior(data_size=9)
    refuse(
        r"same `data_size`.*\[8, 9\]",
        lambda x, prior: keras.layers.Dense(1, **penalized(prior, other))(x),
    )


def test_loss_is_a_likelihood():
    refuse("LaplaceEvidence needs `loss` to be a mean neg", loss="mse")


def test_one_output():
    refuse("one output.*2 of them", lambda x, p: [dense(x, p), dense(x, p)])


def test_one_prediction_per_example():
    refuse(
        r"output of shape \(None, 6, 6, 1\)",
        lambda x, p: keras.layers.Conv2D(1, 3, padding="same", **penalized(p))(x),
        image=True,
    )


def test_randomness():
    refuse(
        "GaussianNoise 'gaussian_noise.*random in training",
        lambda x, p: dense(keras.layers.GaussianNoise(0.1)(x), p),
    )


def test_randomness_inside_a_nested_model():
    refuse(
        "Dropout 'dropout.*random in training",
        lambda x, p: dense(keras.Sequential([keras.layers.Dropout(0.1)])(x), p),
    )


def test_activity_regularizer():
    refuse(
        "`activity_regularizer` of Dense",
        lambda x, p: dense(x, p, activity_regularizer="l2"),
    )


def test_weight_decay():
    refuse("`weight_decay` of the optimizer", optimizer=keras.optimizers.AdamW(1e-3))


@pytest.mark.parametrize("hessian", ["exact", "ggn"])
def test_too_large_a_model(hessian):
    refuse(
        rf"{hessian}.*2,501² entries, 50 MB; max_weights=2,000\. .*'kronecker'",
        lambda x, p: dense(dense(x, p, 500), p),
        bt.objectives.LaplaceEvidence(hessian),
    )


def called_twice(x, p):
    layer = keras.layers.Dense(3, **penalized(p), name="shared")
    return dense(layer(layer(x)), p)


def embedded(x, p):
    words = keras.layers.Embedding(5, 2, embeddings_regularizer=p)(x)
    return dense(keras.layers.Flatten()(words), p)


def normalized(x, p):
    layer = keras.layers.BatchNormalization(center=False, scale=False)
    return dense(layer(dense(x, p, 4)), p)


class Doubled(keras.layers.Dense):
    """A layer that is not what its class is."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (called_twice, "'shared' is called 2 times"),
        (embedded, "Embedding 'embedding"),
        (normalized, "BatchNormalization 'batch_norm"),
        (lambda x, p: Doubled(1, **penalized(p))(x), "Doubled 'doubled"),
    ],
)
@pytest.mark.parametrize("hessian", ["kronecker", "diagonal"])
def test_layers_that_are_not_taken_apart(hessian, build, message):
    message = f"hessian='{hessian}'.*{message}.*'ggn' or hessian='exact'"
    refuse(message, build, bt.objectives.LaplaceEvidence(hessian))


@pytest.mark.parametrize("build", [called_twice, embedded, normalized])
def test_dense_hessians_take_all_layers(build):
    hp = space()
    inputs = keras.Input((3,))
    outputs = build(inputs, bt.NormalPrior(hp["precision"], data_size=8))
    model = compiled(hp, inputs, outputs, method=bt.methods.T1T2(train_steps=1))
    history = model.fit(*data(), batch_size=8, verbose=0).history
    assert np.isfinite(history["log_evidence"][-1])


def test_kronecker_takes_one_precision_per_kernel():
    hp = bt.HyperparameterSpace(
        a=bt.Positive(np.ones((3, 1))), noise=bt.Positive(initial=1.0)
    )
    inputs = keras.Input((3,))
    ones = bt.NormalPrior(data_size=8)
    prior = bt.NormalPrior(hp["a"], data_size=8)
    outputs = keras.layers.Dense(1, **penalized(prior, ones))(inputs)
    with pytest.raises(ValueError, match=r"'a' of shape \(3, 1\) on .*'diagonal'"):
        compiled(hp, inputs, outputs, bt.objectives.LaplaceEvidence("kronecker"))


def test_too_large_a_factor():
    refuse(
        r"2,100² entries for 'wide', 35.3 MB.*'diagonal' \(50.4 kB\)",
        lambda x, p: dense(dense(x, p, 2100, name="wide"), p),
        bt.objectives.LaplaceEvidence("kronecker"),
    )


def test_best_responses_are_refused():
    refuse("DeltaSTN fits a best response", method=bt.DeltaSTN())


def simple_model():
    hp = space()
    inputs = keras.Input((3,))
    outputs = dense(inputs, bt.NormalPrior(hp["precision"], data_size=8))
    return compiled(hp, inputs, outputs)


def test_sample_weights():
    with pytest.raises(ValueError, match="`sample_weight` must be left out"):
        simple_model().fit(*data(), sample_weight=np.ones(8), verbose=0)


def test_data_size_is_that_of_the_data():
    with pytest.raises(ValueError, match="data_size=8 and 9 examples"):
        simple_model().fit(*data(9), verbose=0)


def test_data_size_is_that_of_what_is_left_to_train_on():
    with pytest.raises(ValueError, match="data_size=8 and 6 examples"):
        simple_model().fit(*data(8), validation_split=0.25, verbose=0)


def test_it_survives_saving(tmp_path):
    model = simple_model()
    model.compile(
        "sgd",
        loss=model.loss,
        method=bt.methods.T1T2(),
        objective=bt.objectives.LaplaceEvidence("exact", max_weights=77),
    )
    model.fit(*data(), batch_size=8, epochs=5, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = {"hessian": "exact", "max_weights": 77}
    assert loaded.objective.get_config() == expected
    loaded.fit(*data(), batch_size=8, epochs=5, verbose=0)


@pytest.mark.parametrize("given", ["dataset", "class_weight"])
def test_weights_that_come_otherwise_are_refused(given):
    x, y = data()
    weighted = tf.data.Dataset.from_tensors((x, y, np.ones(8)))
    arguments = {
        "dataset": {"x": weighted},
        "class_weight": {"x": x, "y": y[:, 0], "class_weight": {1: 2.0}},
    }[given]
    hp = space()
    inputs = keras.Input((3,))
    outputs = dense(inputs, bt.NormalPrior(hp["precision"], data_size=8))
    model = compiled(hp, inputs, outputs, method=bt.methods.MacKayUpdate())
    with pytest.raises(ValueError, match="`sample_weight` must be left out"):
        model.fit(**arguments, verbose=0)


def test_a_tuned_optimizer_hides_no_weight_decay():
    hp = space()
    inputs = keras.Input((3,))
    outputs = dense(inputs, bt.NormalPrior(hp["precision"], data_size=8))
    optimizer = bt.TunedOptimizer("adamw", learning_rate=hp["noise"])
    with pytest.raises(ValueError, match="`weight_decay` of the optimizer must be"):
        compiled(hp, inputs, outputs, optimizer=optimizer, method=bt.Unrolled(2))


@pytest.mark.parametrize("hessian", ["kronecker", "diagonal"])
@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_half_frozen_layers_have_no_hessian_by_layers(hessian, name):
    def build(inputs, prior):
        outputs = dense(inputs, prior, name="last")
        layer = outputs._keras_history.operation
        getattr(layer, name).trainable = False
        return outputs

    refuse(
        f"of 'last' the {name} is frozen alone",
        build,
        bt.objectives.LaplaceEvidence(hessian),
    )
