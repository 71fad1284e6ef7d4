"""A layer of your own whose weights respond and whose noise is tuned."""

import keras
from sklearn.datasets import load_digits

import bilevel_tf as bt


@keras.saving.register_keras_serializable("examples")
class NoisyDense(bt.layers.HyperLayer, keras.layers.Layer):
    noise = bt.Tunable(low=0.0)  # a number, or a hyperparameter that cannot be negative

    def __init__(self, units, noise, **kwargs):
        super().__init__(**kwargs)
        self.units, self.noise = units, noise

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))

    def linear_maps(self):  # how the layer applies its weights
        return [bt.layers.LinearMap("kernel", keras.ops.matmul)]

    def call(self, inputs, training=False):
        if training:
            noise = keras.random.normal(keras.ops.shape(inputs))
            inputs += bt.hyperparameters.value_for(self.noise, inputs) * noise
        return keras.ops.gelu(self.respond("kernel", inputs))


x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
hp = bt.HyperparameterSpace(noise=bt.Uniform(0.0, 2.0, initial=0.5))
inputs = keras.Input((64,))
outputs = bt.HyperDense(10, "softmax")(NoisyDense(64, hp["noise"])(inputs))
model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
model.fit(x, y, 32, epochs=10, validation_split=0.3)
print(hp.values())
