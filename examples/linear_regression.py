"""Linear regression with one tuned hyperparameter, against the exact optimum.

The first toy problem of the Δ-STN paper (section 5.1, Fig. 3): an L2 factor and an
input dropout rate, each tuned alone, by the STN and the Δ-STN. (A linear model is its
own linearisation, so that the centered STN equals the Δ-STN here; `--methods` accepts
it too.)

    python examples/linear_regression.py --data-dir <folder of npz files>

In closed form, with C = mean(xxᵀ) of the training half and no bias:

- L2: Keras minimises mean((y − xw)²) + l2·‖w‖², so w* = (C + l2·I)⁻¹ b.
- Dropout at rate p scales what it keeps by 1/(1 − p). In expectation over masks this
  adds p/(1 − p) Σ_j C_jj w_j², so w* = (C + p/(1 − p) diag(C))⁻¹ b.

The columns: `found` is the hyperparameter at the end. `loss` is the validation loss of
w* at that hyperparameter, and `excess` how far it is above the least possible one.
`model` is the same as `excess`, for the weights that the model really has.

The perturbation scale is fixed at 1, T_train is 10 and T_valid 1, as in the paper. The
other settings are not from the paper, and are the same for all data sets, methods and
hyperparameters: full batches, Adam(0.03) for weights and responses, RMSprop(0.05) for
λ. Both rates decay to zero along a cosine, which averages away the noise of masks and
perturbations. In the first quarter of the epochs λ stays fixed, because weights that
have not converged would ask for too weak a penalty. If the validation loss is least
without any penalty, λ goes to −∞ and never arrives. The table then shows where the
search ended, and the excess says how little there is left to gain.
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


# By hyperparameter: a function of its value and C that returns the matrix of the
# quadratic penalty.
PENALTIES = {
    "l2": lambda value, moment: value * np.eye(len(moment)),
    "dropout": lambda value, moment: value / (1 - value) * np.diag(np.diag(moment)),
}


def build(name, features):
    """Return a linear model whose L2 factor or input dropout rate is tuned."""
    hp = bt.HyperparameterSpace({name: SCALES[name]})
    x = inputs = keras.Input((features,))
    regularizer = bt.L2(hp[name]) if name == "l2" else None
    if name == "dropout":
        x = bt.HyperDropout(hp[name])(x)
    layer = bt.HyperDense(1, use_bias=False, kernel_regularizer=regularizer)
    return bt.BilevelModel(inputs, layer(x), hyperparameters=hp)


def compile_model(model, method, args, loss="mse"):
    """Compile a model with the settings that all runs share."""
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
    """Fit a model on full batches; return its history."""
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
    """Run all splits and methods; return the rows of the table."""
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
