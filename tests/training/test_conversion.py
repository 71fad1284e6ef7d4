"""To hyper-layers and back, with the same predictions."""

import json

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from tests.training.models import METHODS, classifier, compiled, data, space

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def sequential():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Reshape((3, 2, 1)),
            layers.Conv2D(4, 2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.4, name="drop"),
            layers.Dense(5, activation="tanh", name="hidden"),
            layers.GaussianNoise(0.1),
            layers.Dense(3),
        ]
    )


def functional():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(6, activation="tanh", name="hidden")(inputs)
    x = keras.layers.Add()([x, inputs])
    x = keras.layers.Dropout(0.4, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x), name="residual")


def shared_layer():
    inputs = keras.Input((6,))
    dense = keras.layers.Dense(6, activation="tanh", name="hidden")
    x = keras.layers.Dropout(0.4, name="drop")(dense(dense(inputs)))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def nested():
    inputs = keras.Input((6,))
    body = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(6, activation="tanh", name="hidden")]
    )
    inner = keras.Input((6,))
    block = keras.Model(
        inner, keras.layers.Dropout(0.4, name="drop")(keras.layers.Dense(4)(inner))
    )
    return keras.Model(inputs, keras.layers.Dense(3)(block(body(inputs))))


def outputs_by_name():
    inputs = {"a": keras.Input((6,), name="a")}
    x = keras.layers.Dense(5, activation="tanh", name="hidden")(inputs["a"])
    x = keras.layers.Dropout(0.4, name="drop")(x)
    outputs = {"u": keras.layers.Dense(3)(x), "v": keras.layers.Dense(1)(x)}
    return keras.Model(inputs, outputs)


def adapted():
    normalization = keras.layers.Normalization()
    normalization.adapt(5.0 + 3.0 * data(30)[0])
    return keras.Sequential(
        [
            keras.Input((6,)),
            normalization,
            keras.layers.Dense(6, activation="tanh", name="hidden"),
            keras.layers.Dropout(0.4, name="drop"),
            keras.layers.Dense(3),
        ]
    )


def attention():
    inputs = keras.Input((6,))
    x = keras.layers.Reshape((3, 2))(inputs)
    x = keras.layers.MultiHeadAttention(2, 3)(x, x)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.Dense(4, activation="tanh", name="hidden")(x)
    x = keras.layers.Dropout(0.4, name="drop")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


NETWORKS = {
    build.__name__: build
    for build in (
        sequential, functional, shared_layer, nested, outputs_by_name, adapted,
        attention,
    )
}  # fmt: skip


def converted(plain, hp=None):
    hp = hp or space()
    tune = {
        keras.layers.Dropout: {"rate": hp["rate"]},
        "hidden": {"kernel_regularizer": bt.L2(hp["l2"])},
    }
    return bt.BilevelModel.from_keras(plain, hp, tune)


def scrambled(model):
    """Other values for all weights than those of new layers."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype == "float32" and "normalization" not in weight.path:
            weight.assign(generator.normal(size=weight.shape) * 0.5)
    return model


def batch(plain):
    x = data(7, seed=2)[0]
    return {"a": x} if isinstance(getattr(plain, "_inputs_struct", x), dict) else x


def assert_same_predictions(one, other, atol=1e-6):
    x = batch(one)
    ours, theirs = one.predict(x, verbose=0), other.predict(x, verbose=0)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol),
        ours,
        theirs,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_stay_both_ways(name):
    plain = scrambled(NETWORKS[name]())
    model = converted(plain)
    assert type(model) is bt.BilevelModel
    assert_same_predictions(plain, model)
    back = model.to_keras()
    assert_same_predictions(plain, back)
    assert model.name == back.name == plain.name
    assert len(back.weights) == len(plain.weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_of_this_library_is_left(name, tmp_path):
    model = converted(NETWORKS[name]())
    back = model.to_keras()
    config = json.dumps(keras.saving.serialize_keras_object(back))
    assert "bilevel_tf" not in config
    assert "Hyper" not in config
    back.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    assert_same_predictions(back, loaded)


def test_counterparts():
    model = converted(sequential())
    layers = {type(la) for la in model.layers}
    assert {bt.HyperDense, bt.HyperConv2D} <= layers
    assert {bt.HyperDropout, bt.HyperGaussianNoise} <= layers
    assert not {keras.layers.Dense, keras.layers.Conv2D} & layers
    assert len(model.network.responding_layers) == 3


def test_model_is_not_changed():
    plain = scrambled(functional())
    before = plain.get_weights()
    model = converted(plain)
    for weight in model.trainable_weights:
        weight.assign(weight * 0.0)
    for a, b in zip(before, plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_tune_by_name_comes_before_class():
    hp = space()
    first, second = "first", "second"
    plain = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dropout(0.1, name=first),
            keras.layers.Dense(3),
            keras.layers.Dropout(0.2, name=second),
        ]
    )
    tune = {keras.layers.Dropout: {"rate": hp["rate"]}, second: {"rate": 0.7}}
    model = bt.BilevelModel.from_keras(plain, hp, tune)
    assert model.get_layer(first).rate.name == "rate"
    assert model.get_layer(second).rate == 0.7
    untuned = bt.BilevelModel.from_keras(plain, hp)
    assert untuned.get_layer(first).rate == 0.1


def train(model):
    x, y = data(32)
    model.fit(x, y, validation_data=data(16, seed=1), batch_size=8, epochs=2, verbose=0)
    return model


@pytest.mark.parametrize("method", METHODS)
def test_trained_model_predicts_equally(method):
    model = train(compiled(converted(functional()), METHODS[method](train_steps=2)))
    back = model.to_keras()
    assert_same_predictions(model, back)
    values = model.hyperparameters.values()
    assert values["rate"] != pytest.approx(0.3, rel=1e-4)
    assert back.get_layer("drop").rate == pytest.approx(values["rate"], rel=1e-6)
    factor = float(back.get_layer("hidden").kernel_regularizer.l2)
    assert factor == pytest.approx(values["l2"], rel=1e-6)


@pytest.mark.parametrize("name", ["sequential", "nested"])
def test_converted_models_train(name):
    model = train(compiled(converted(NETWORKS[name]())))
    assert model.hyperparameters.values()["rate"] != pytest.approx(0.3, rel=1e-4)
    assert_same_predictions(model, model.to_keras())


def test_plain_model_trains_on():
    back = train(classifier()).to_keras()
    back.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    before = back.get_weights()
    back.fit(*data(16), verbose=0)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(before, back.get_weights(), strict=True)
    )


def test_frozen_layers_stay_frozen():
    plain = functional()
    plain.get_layer("hidden").trainable = False
    model = converted(plain)
    assert [la.name for la in model.network.responding_layers] == [
        plain.layers[-1].name
    ]
    assert not model.to_keras().get_layer("hidden").trainable


@pytest.mark.parametrize(
    ("tune", "match"),
    [
        ({"hiden": {}}, "`tune` has 'hiden', which no layer"),
        ({keras.layers.Conv1D: {}}, "`tune` has 'Conv1D', which no layer"),
        ({"drop": {"stddev": 0.1}}, "unknown arguments: stddev"),
        (["drop"], r"`tune` must be a dict.*\['drop'\]"),
        ({"drop": 0.1}, "`tune` must be a dict.*0.1"),
    ],
)
def test_bad_tune(tune, match):
    with pytest.raises(ValueError, match=match):
        bt.BilevelModel.from_keras(functional(), space(), tune)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_models_that_cannot_be_converted():
    with pytest.raises(ValueError, match="Only Sequential and functional"):
        bt.BilevelModel.from_keras(Subclassed(), space())
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="must be built before"):
        bt.BilevelModel.from_keras(unbuilt, space())
    unbuilt(data(4)[0])
    assert (
        len(bt.BilevelModel.from_keras(unbuilt, space()).network.responding_layers) == 1
    )


class OwnStep(keras.Model):
    def train_step(self, data):
        return {"loss": 0.0}


def test_training_steps_that_are_left_behind():
    inputs = keras.Input((6,))
    model = OwnStep(inputs, keras.layers.Dense(3)(inputs))
    with pytest.warns(UserWarning, match="OwnStep '.*has its own train_step"):
        bt.BilevelModel.from_keras(model, space())


def test_a_bilevel_model_is_not_converted_again():
    model = classifier()
    with pytest.raises(ValueError, match=r"BilevelModel already.*to_keras\(\)"):
        bt.BilevelModel.from_keras(model, space())
    inputs = keras.Input((6,))
    around = keras.Model(inputs, keras.layers.Dense(3)(model(inputs)))
    assert_same_predictions(around, bt.BilevelModel.from_keras(around, space()))


# Variational layers


def tuned_prior():
    hp = bt.HyperparameterSpace(a=bt.LogUniform(1e-2, 1e4, initial=10.0))
    return hp, bt.NormalPrior(hp["a"], data_size=44)


def test_prior_makes_a_layer_variational_at_its_weights():
    model, (hp, prior) = sequential(), tuned_prior()
    new = bt.BilevelModel.from_keras(
        model,
        hp,
        tune={
            keras.layers.Dense: {"prior": prior, "initial_scale": 0.01},
            keras.layers.Conv2D: {"prior": prior, "estimator": "shared"},
        },
    )
    kinds = {type(layer) for layer in new.layers}
    assert {bt.VariationalDense, bt.layers.VariationalConv2D, bt.HyperDropout} < kinds
    assert not kinds & {bt.HyperDense, bt.HyperConv2D}
    x, _ = data()
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(new.predict(x, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(
        new.get_layer("hidden").posteriors()[0].scale(), 0.01, rtol=1e-5
    )


def test_posterior_means_go_back_to_plain_keras():
    hp, prior = tuned_prior()
    new = bt.BilevelModel.from_keras(
        sequential(), hp, tune={keras.layers.Dense: {"prior": prior}}
    )
    new.compile(
        "adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        objective=bt.ELBO(),
        method=bt.methods.DARTS(second_order=None),
    )
    x, y = data()
    new.fit(x, y, verbose=0)
    plain = new.to_keras()
    assert "bilevel_tf" not in json.dumps(plain.get_config())
    assert all(type(la).__module__.startswith("keras") for la in plain.layers)
    expected = new.predict(x, verbose=0)
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected, rtol=1e-5)


def test_posterior_arguments_without_a_prior():
    hp, _ = tuned_prior()
    with pytest.raises(ValueError, match=r"'hidden' initial_scale without a `prior`"):
        bt.BilevelModel.from_keras(
            functional(), hp, tune={"hidden": {"initial_scale": 0.1}}
        )


def test_prior_of_a_layer_that_has_no_variational_counterpart():
    hp, prior = tuned_prior()
    with pytest.raises(ValueError, match=r"Dropout 'drop' unknown arguments: prior"):
        bt.BilevelModel.from_keras(functional(), hp, tune={"drop": {"prior": prior}})


@pytest.mark.parametrize("kind", ["scalar", "mean", "per unit", "mixture"])
def test_a_prior_becomes_a_plain_penalty_or_none(kind):
    hp = bt.HyperparameterSpace(
        a=bt.LogUniform(0.1, 10.0, initial=2.0), units=bt.Positive(initial=np.ones(2))
    )
    prior = {
        "scalar": bt.NormalPrior(hp["a"], data_size=4),
        "mean": bt.NormalPrior(hp["a"], 0.5, data_size=4),
        "per unit": bt.NormalPrior(hp["units"], data_size=4),
        "mixture": bt.regularizers.ScaleMixturePrior((hp["a"], 1.0), data_size=4),
    }[kind]
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, kernel_regularizer=prior)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    plain = model.to_keras()
    if kind == "scalar":
        assert type(plain.layers[-1].kernel_regularizer) is keras.regularizers.L2
        np.testing.assert_allclose(plain.losses[0], model.losses[0], rtol=1e-6)
    else:
        assert plain.layers[-1].kernel_regularizer is None


# Fine-tuning


def pretrained():
    """A new head on a frozen backbone, which is called in inference mode."""
    base = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5), keras.layers.BatchNormalization()],
        name="base",
    )
    base.trainable = False
    inputs = keras.Input((6,))
    x = keras.layers.Dropout(0.3, name="drop")(base(inputs, training=False))
    return keras.Model(inputs, keras.layers.Dense(3, name="hidden")(x))


def check_backbone(model, compile_model):
    """Training moves nothing of the backbone until it is set free, and then all."""
    base, x, y = model.get_layer("base"), *data(16)
    dense, normalization = base.layers
    parts = [dense.kernel, dense.bias, normalization.gamma, normalization.beta]
    for free in (False, True):
        assert not base.trainable
        assert not dense.trainable
        if free:
            base.trainable = True
        compile_model(model)
        before = [np.array(part.value) for part in parts]
        model.fit(x, y, validation_data=data(16, seed=1), verbose=0)
        moved = [
            np.any(a != np.array(b.value)) for a, b in zip(before, parts, strict=True)
        ]
        assert all(moved) if free else not any(moved)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_frozen_backbone_can_be_set_free(loaded, tmp_path):
    model = converted(pretrained())
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    check_backbone(model, compiled)


def test_the_backbone_of_a_plain_model_can_be_set_free():
    def compile_plain(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)

    check_backbone(converted(pretrained()).to_keras(), compile_plain)
