"""A responding layer of a user's own."""

import keras
import numpy as np
import pytest

import bilevel_tf as bt


@keras.saving.register_keras_serializable("bilevel_tf_tests")
class Bottleneck(bt.layers.HyperLayer, keras.layers.Layer):
    """x + tanh(x·down)·up, two weights with something between them."""

    def __init__(self, width, penalty=None, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.weight_regularizer = keras.regularizers.get(penalty)

    def build(self, input_shape):
        arguments = {"regularizer": self.weight_regularizer}
        self.down = self.add_weight((input_shape[-1], self.width), **arguments)
        self.up = self.add_weight((self.width, input_shape[-1]), **arguments)

    def linear_maps(self):
        return [bt.layers.LinearMap(name, keras.ops.matmul) for name in ("down", "up")]

    def call(self, inputs):
        hidden = keras.ops.tanh(self.respond("down", inputs))
        return inputs + self.respond("up", hidden)

    def get_config(self):
        penalty = keras.saving.serialize_keras_object(self.weight_regularizer)
        return {**super().get_config(), "width": self.width, "penalty": penalty}


def test_trains_under_delta_stn(tmp_path):
    hp = bt.HyperparameterSpace(decay=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((4,))
    x = Bottleneck(2, bt.L2(hp["decay"]), name="own")(inputs)
    model = bt.BilevelModel(inputs, bt.HyperDense(1)(x), hyperparameters=hp)
    model.compile("adam", hyper_optimizer="adam", method=bt.DeltaSTN(), loss="mse")
    x, y = np.random.normal(size=(2, 40, 4)).astype("float32")
    model.fit(x, y[:, :1], validation_data=(x, y[:, :1]), batch_size=8, verbose=0)
    responses = model.get_layer("own").responses
    assert list(responses) == ["down", "up"]
    assert all(np.any(response.factor) for response in responses.values())
    assert hp.values()["decay"] != pytest.approx(1e-2, rel=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    at = {"decay": 0.1}
    np.testing.assert_allclose(loaded.call_at(x, at), model.call_at(x, at), rtol=1e-6)
    assert np.max(np.abs(model.call_at(x, at) - model(x))) > 1e-6


def test_respond_names_the_weights_that_there_are():
    layer = bt.HyperDense(2, name="known")
    layer.build((None, 3))
    with pytest.raises(ValueError, match=r"'known' lists: kernel, bias.*'kernl'"):
        layer.respond("kernl", np.ones((1, 3), "float32"))


@keras.saving.register_keras_serializable("bilevel_tf_tests")
class OwnHead(bt.layers.HyperLayer, keras.layers.Layer):
    """softmax(x·kernel); `by_itself` says who applies the softmax."""

    activation = staticmethod(keras.activations.softmax)

    def __init__(self, by_itself, **kwargs):
        super().__init__(**kwargs)
        self.by_itself = by_itself

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], 3))

    def linear_maps(self):
        return [bt.layers.LinearMap("kernel", keras.ops.matmul)]

    def call(self, inputs):
        outputs = self.respond("kernel", inputs)
        return self.activation(outputs) if self.by_itself else self.activate(outputs)


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_final_softmax_is_left_out_by_the_layer(by_itself):
    """If not, it would be applied twice."""
    hp = bt.HyperparameterSpace(noise=bt.Uniform(0.0, 1.0, initial=0.1))
    inputs = keras.Input((4,))
    x = bt.HyperDense(5)(bt.HyperGaussianNoise(hp["noise"])(inputs))
    outputs = OwnHead(by_itself, name="own")(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("adam", "sparse_categorical_crossentropy", method=bt.DeltaSTN())
    x, y = np.ones((8, 4), "float32"), np.arange(8) % 3

    def fit():
        model.fit(x, y, validation_data=(x, y), verbose=0)

    if by_itself:
        with pytest.raises(ValueError, match=r"self.activate.*OwnHead 'own'.*softmax"):
            fit()
    else:
        fit()


def test_a_layer_must_say_how_it_applies_its_weights():
    class Silent(bt.layers.HyperLayer, keras.layers.Layer):
        pass

    with pytest.raises(TypeError, match="Silent needs a method `linear_maps`"):
        Silent()(np.ones((2, 3), "float32"))
