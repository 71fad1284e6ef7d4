"""Compare hypergradients with the slope of the loss of retrained networks.

The network is a small MLP on scikit-learn's digits with one dropout rate. First it is
trained at several fixed rates, with several seeds each. A cubic through the mean
held-out losses gives the true slope. Then each method trains for as many epochs, with
its rate held fixed, and computes the hypergradient.

    python examples/hypergradient_check.py

Slope and hypergradient are derivatives of the held-out loss in the unconstrained rate.
"""

import argparse

import digits
import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters.pass_in_force import begin_pass

METHODS = {
    "Δ-STN": lambda: bt.DeltaSTN(entropy_weight=0.0),
    "Δ-STN, random start": lambda: bt.DeltaSTN(
        entropy_weight=0.0, response_initializer="random"
    ),
    "Δ-STN, shared pass": lambda: bt.DeltaSTN(entropy_weight=0.0, shared_pass=True),
    "centered STN": lambda: bt.methods.CenteredSTN(entropy_weight=0.0),
    "STN": lambda: bt.STN(entropy_weight=0.0),
}
GRID = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)


def make_model(rate, sigma, width):
    """Return an MLP with one hidden layer and one dropout rate with fixed σ."""
    hp = bt.HyperparameterSpace(
        dropout=bt.Uniform(
            0.0,
            0.95,
            initial=rate,
            perturbation_scale=sigma,
            learn_perturbation_scale=False,
        )
    )
    inputs = keras.Input((64,))
    x = bt.HyperDense(width, activation="relu")(inputs)
    x = bt.HyperDropout(hp["dropout"])(x)
    return bt.BilevelModel(inputs, bt.HyperDense(10)(x), hyperparameters=hp)


def retrained_loss(rate, train, held_out, args):
    """Return the mean held-out loss, over seeds, of networks trained at one rate."""
    losses = []
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        network = make_model(rate, args.sigma, args.width).to_keras()
        network.compile(**digits.training_arguments())
        network.fit(*train, batch_size=50, epochs=args.epochs, verbose=0)
        losses.append(digits.cross_entropy(network, held_out)[0])
    return float(np.mean(losses))


def unconstrained(rate):
    """Return λ of a rate between 0 and 0.95."""
    return np.log(rate / (0.95 - rate))


def slopes(rates, train, held_out, args):
    """Return the slope of the retrained loss at the given rates."""
    losses = [retrained_loss(rate, train, held_out, args) for rate in GRID]
    for rate, loss in zip(GRID, losses, strict=True):
        print(f"retrained at {rate:.2f}: held-out loss {loss:.4f}", flush=True)
    cubic = np.polyfit([unconstrained(rate) for rate in GRID], losses, 3)
    derivative = np.polyder(cubic)
    return [float(np.polyval(derivative, unconstrained(rate))) for rate in rates]


def hypergradient(model, held_out):
    """Return the held-out loss's gradient in λ by the response, at one draw of ε."""
    space = model.hyperparameters
    delta = space.sample(len(held_out[0]))
    if not model.method.centered:
        delta += space.unconstrained
    with tf.GradientTape() as tape:
        tape.watch(delta)
        with begin_pass(delta=delta, penalties=False):
            predictions = model(held_out[0], training=False)
            loss = model.compute_loss(held_out[0], held_out[1], predictions)
    return float(tf.reduce_sum(tape.gradient(loss, delta)))


def fitted_hypergradients(rate, method, train, held_out, args):
    """Return hypergradients after training at fixed λ, over seeds and draws of ε."""
    gradients = []
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        model = make_model(rate, args.sigma, args.width)
        held = keras.optimizers.SGD(0.0)
        model.compile(
            **digits.training_arguments(), method=method(), hyper_optimizer=held
        )
        fit = {"batch_size": 50, "epochs": args.epochs, "verbose": 0}
        model.fit(*train, validation_data=held_out, **fit)
        gradients += [hypergradient(model, held_out) for _ in range(20)]
    return gradients


def main(argv=None):
    """Print the table; return its rows: rate, slope, method, mean hypergradient."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.05, 0.2, 0.5])
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    args = parser.parse_args(argv)

    train, valid, test = digits.load()
    held_out = tuple(np.concatenate(pair) for pair in zip(valid, test, strict=True))
    rows = []
    truth = slopes(args.rates, train, held_out, args)
    print("| rate | retrained slope | method | hypergradient |\n" + "| --- " * 4 + "|")
    for rate, slope in zip(args.rates, truth, strict=True):
        for name, method in METHODS.items():
            found = fitted_hypergradients(rate, method, train, held_out, args)
            mean, spread = np.mean(found), np.std(found)
            print(f"| {rate} | {slope:.4f} | {name} | {mean:.4f} ± {spread:.4f} |")
            rows.append((rate, slope, name, float(mean)))
    return rows


if __name__ == "__main__":
    main()
