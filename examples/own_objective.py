"""An objective of your own: the mean of the worst tenth of the validation losses.

Run: python examples/own_objective.py
"""

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import bilevel_tf as bt


@keras.saving.register_keras_serializable("examples")
class WorstTenth(bt.objectives.Objective):
    """Q = the mean of the largest tenth of the losses on a validation batch."""

    judged_on = "validation"
    log_names = ("worst_tenth",)

    def outer_loss(self, network, weights, hyperparameters, batch):
        losses = network.example_losses(weights, hyperparameters, batch, training=False)
        return tf.reduce_mean(tf.math.top_k(losses, tf.size(losses) // 10).values)


x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-6, 1.0, initial=1e-2))
inputs = keras.Input((64,))
outputs = keras.layers.Dense(10, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
model.compile(
    keras.optimizers.Adam(0.01),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    method=bt.Neumann(),
    objective=WorstTenth(),
)
validation = x[1200:], y[1200:]
fit = model.fit(x[:1200], y[:1200], 64, 10, verbose=2, validation_data=validation)
print("worst tenth:", fit.history["worst_tenth"][-1], "with", hp.values())
