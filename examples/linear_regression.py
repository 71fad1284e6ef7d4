"""Linear regression with one tuned hyperparameter, against the exact optimum.

The first toy problem of the Δ-STN paper (section 5.1, Fig. 3): an L2 factor and an
input dropout rate, each tuned alone, by the STN and the Δ-STN. (A linear model is its
own linearisation, so the centered STN is the Δ-STN here; `--methods` takes it too.)

    python examples/linear_regression.py --data-dir <folder of npz files>

In closed form, with C = mean(xxᵀ) of the training half and no bias:

- L2: Keras minimises mean((y − xw)²) + l2·‖w‖², so w* = (C + l2·I)⁻¹ b.
- Dropout at rate p scales what it keeps by 1/(1 − p). In expectation over masks this
  adds p/(1 − p) Σ_j C_jj w_j², so w* = (C + p/(1 − p) diag(C))⁻¹ b.

The columns: `found` is the hyperparameter at the end, `loss` the validation loss of
w* at it, `excess` how much that is above the least possible one, and `model` the same
for the weights that the model really has.

The perturbation scale is fixed at 1, T_train is 10 and T_valid 1, as in the paper.
Everything else is one setting for all data sets, methods and both hyperparameters,
none of it from the paper: full batches, Adam(0.03) for weights and responses and
RMSprop(0.05) for λ, both decayed to nothing along a cosine, which averages the noise
of masks and perturbations away. In the first quarter of the epochs λ stays fixed:
weights that have not converged would ask for too weak a penalty. Where the validation
loss falls towards no penalty at all, λ goes to −∞ and never arrives; the table then
shows the end of the search, and the excess says how little there is to gain.
"""

import argparse
import pathlib

import keras
import numpy as np
import ridge
import tensorflow as tf

import bilevel_tf as bt

METHODS = {
    "STN": bt.STN,
    "CenteredSTN": bt.methods.CenteredSTN,
    "DeltaSTN": bt.DeltaSTN,
}
SCALES = {
    "l2": bt.Positive(initial=0.1, learn_perturbation_scale=False),
    "dropout": bt.Uniform(0.0, 0.95, initial=0.1, learn_perturbation_scale=False),
}


# The matrices of the quadratic penalties that a hyperparameter's value makes.
PENALTIES = {
    "l2": lambda value, moment: value * np.eye(len(moment)),
    "dropout": lambda value, moment: value / (1 - value) * np.diag(np.diag(moment)),
}


def build(name, features):
    """A linear model, with the L2 factor or the input dropout rate tuned."""
    hp = bt.HyperparameterSpace({name: SCALES[name]})
    x = inputs = keras.Input((features,))
    regularizer = bt.L2(hp[name]) if name == "l2" else None
    if name == "dropout":
        x = bt.HyperDropout(hp[name])(x)
    layer = bt.HyperDense(1, use_bias=False, kernel_regularizer=regularizer)
    return bt.BilevelModel(inputs, layer(x), hyperparameters=hp)


def compile_model(model, method, args, loss="mse"):
    """The common setting."""
    warmup = args.epochs // 4
    steps = args.epochs * args.steps_per_epoch
    outer_steps = (args.epochs - warmup) * args.steps_per_epoch // 10
    decay = keras.optimizers.schedules.CosineDecay
    model.compile(
        optimizer=keras.optimizers.Adam(decay(args.learning_rate, steps)),
        hyper_optimizer=keras.optimizers.RMSprop(decay(0.05, outer_steps)),
        method=METHODS[method](train_steps=10, valid_steps=1, warmup_epochs=warmup),
        loss=loss,
        steps_per_execution=10,
    )


def train(model, train_data, valid_data, args):
    """Fit on full batches."""
    full = tf.data.Dataset.from_tensors
    return model.fit(
        full(train_data).repeat(),
        validation_data=full(valid_data),
        epochs=args.epochs,
        steps_per_epoch=args.steps_per_epoch,
        shuffle=False,
        verbose=0,
    )


def run(data, name, seed, method, args):
    """Tune once.

    Returns:
        A row of the table and the model.
    """
    problem = ridge.split(*ridge.load(data, args.data_dir), seed)
    keras.utils.set_random_seed(seed)
    model = build(name, problem.x.shape[1])
    compile_model(model, method, args)
    train_data, valid_data = (problem.x, problem.y), (problem.x_valid, problem.y_valid)
    history = train(model, train_data, valid_data, args)
    row = {"data": data, "seed": seed, "method": method, "name": name}
    row |= ridge.compare(problem, SCALES[name], PENALTIES[name], history, name)
    return row, model


def main(argv=None):
    """Run all splits and methods; returns the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ridge.add_arguments(parser, epochs=40, learning_rate=0.03)
    parser.add_argument("--tune", nargs="*", choices=[*SCALES], default=[*SCALES])
    args = parser.parse_args(argv)
    rows = []
    ridge.print_header()
    for name in args.tune:
        for data in args.data or ridge.available(args.data_dir):
            for seed in range(args.seeds):
                for method in args.methods or ("STN", "DeltaSTN"):
                    row, model = run(data, name, seed, method, args)
                    rows.append(row)
                    ridge.print_row(row)
        of_name = [row for row in rows if row["name"] == name]
        output = pathlib.Path(args.output)
        ridge.draw(of_name, output / f"linear_regression_{name}.png")
        folder = pathlib.Path(args.saved_models) / f"linear_regression_{name}"
        model.export(folder, verbose=False)
    ridge.print_summary(rows)
    return rows


if __name__ == "__main__":
    main()
