"""A method of your own: the implicit function theorem with the Hessian's diagonal.

Run: python examples/own_method.py
"""

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import bilevel_tf as bt


@keras.saving.register_keras_serializable("examples")
class DiagonalImplicit(bt.methods.Implicit):
    """H⁻¹ ≈ diag(|H|)⁻¹, the diagonal estimated by v ⊙ Hv for random signs v."""

    def solve(self, problem, hessian, b):
        signs = [tf.sign(tf.random.normal(tf.shape(x), dtype=x.dtype)) for x in b]
        rows = zip(signs, hessian.product(signs), b, strict=True)
        x = [g / (tf.abs(v * hv) + 0.01) for v, hv, g in rows]
        nan, done = tf.constant(float("nan")), bt.methods.Status.CONVERGED
        return bt.methods.Solution(x, tf.constant(1), nan, tf.constant(int(done)))


x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-6, 1.0, initial=1e-2))
inputs = keras.Input((64,))
outputs = keras.layers.Dense(10, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
model.compile(
    keras.optimizers.Adam(0.01),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    method=DiagonalImplicit(train_steps=2),
)
validation = x[1200:], y[1200:]
model.fit(x[:1200], y[:1200], 64, 10, verbose=2, validation_data=validation)
print(hp.values())
