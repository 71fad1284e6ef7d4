"""Choose the degree of a polynomial by evidence and by cross-validation.

Noisy samples of a function on [−1, 1] are fitted by polynomials of degree 0 to 9. For
every degree a criterion tunes the precision A of the weights' prior N(0, A⁻¹I) and the
precision λ of the noise, and returns a score. The degree of the highest score is
chosen.

    python examples/polynomials.py                     # about a minute
    python examples/polynomials.py --function sine

The criteria are in nats, summed over all examples:

- `evidence`: log p(y), with A and λ at MacKay's fixed point.
- `evidence, gradient`: the same by BFGS on log A and log λ, as a check.
- `Laplace`: log p(y) of a Keras model of one Dense layer, by the library's
  `LaplaceEvidence` and `ExactImplicit`. It is exact here, since the model is linear.
- `ELBO`: the largest lower bound of log p(y) with independent weights, which has a
  closed form here.
- `leave-one-out`: Σ_i log p(y_i | all other y), by BFGS.
- `5-fold`: Σ_i log p(y_i | y of the other folds), by BFGS.

The evidence is Σ_i log p(y_i | y_1 … y_{i−1}). Leave-one-out has only terms like the
last of these. In the earlier ones a degree that is too high must predict from few data.

The basis is √(2k + 1) P_k, the Legendre polynomials of mean square 1 on [−1, 1]. In
this basis one more degree adds a variance of 1 / A to the function and does not change
the rest. One A for all weights therefore makes sense, and XᵀX is near a multiple of
the identity. Powers of x would be nearly collinear, and functions with independent
weights on powers would be wild at the ends.

`error` is the root mean square, over [−1, 1], of the difference between the mean
prediction at the chosen degree and the true function. The table shows its mean and its
median over data sets.
"""

import argparse
import pathlib
import typing

import laplace_criterion as laplace
import matplotlib as mpl
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt

FUNCTIONS = {
    "cubic": lambda x: 2 * x**3 + 0.3 * x**2 - 1.2 * x,
    "sine": lambda x: np.sin(1.5 * np.pi * x),
}
FOLDS = 5
# Pairs of log A and log λ.
STARTS = np.array(
    [(a, n) for a in np.arange(-4.0, 9, 2) for n in np.arange(-2.0, 7, 2)]
)
GRID = np.linspace(-1, 1, 201)


class Judgement(typing.NamedTuple):
    """What a criterion finds for a basis; higher scores are better."""

    score: tf.Tensor
    weight_precision: tf.Tensor
    noise_precision: tf.Tensor


def design(x, degree):
    """Return Legendre polynomials of mean square 1 at x, `[N, degree + 1]`."""
    scale = np.sqrt(2 * np.arange(degree + 1) + 1)
    return scale * np.polynomial.legendre.legvander(x, degree)


# Criteria: functions of features `[N, n]` and targets `[N]` that return a `Judgement`


def compiled(criterion):
    """Return a criterion that is traced once for all degrees."""
    specs = [tf.TensorSpec([None, None], tf.float64), tf.TensorSpec([None], tf.float64)]
    return tf.function(criterion, input_signature=specs, autograph=False)


def by_fixed_point(features, targets):
    """Judge by the evidence, tuned by MacKay's updates."""
    tuned, _ = bt.objectives.BayesianLinearRegression(features, targets).fit_evidence()
    return Judgement(
        tuned.log_evidence(), tuned.weight_precision, tuned.noise_precision
    )


def by_gradient(score):
    """Return the criterion that maximises a score over A and λ.

    There may be several maxima. BFGS begins at the best of `STARTS`.

    Args:
        score: Function of features, targets, A and λ.
    """
    # BFGS uses the score in several places of its graph. This traces it only once, and
    # does not copy its graph there, which would take long to optimise.
    score = tf.function(
        score, autograph=False, experimental_attributes={"_noinline": True}
    )

    def criterion(features, targets):
        def at(logs):
            return score(features, targets, *tf.unstack(tf.exp(logs)))

        starts = tf.constant(STARTS)
        found = tfp.optimizer.bfgs_minimize(
            lambda logs: tfp.math.value_and_gradient(lambda logs: -at(logs), logs),
            initial_position=starts[tf.argmax(tf.map_fn(at, starts))],
            tolerance=1e-6,
            max_iterations=500,
        )
        precisions = tf.unstack(tf.exp(found.position))
        return Judgement(-found.objective_value, *precisions)

    return compiled(criterion)


def evidence(*arguments):
    """Return log p(y)."""
    return bt.objectives.BayesianLinearRegression(*arguments).log_evidence()


def leave_one_out(*arguments):
    """Return Σ_i log p(y_i | all other y)."""
    regression = bt.objectives.BayesianLinearRegression(*arguments)
    return tf.reduce_sum(regression.leave_one_out_log_predictive())


def folds(features, targets, *precisions):
    """Return Σ_i log p(y_i | y of the other folds); example i is in fold i mod 5."""
    fold = tf.range(tf.shape(targets)[0]) % FOLDS

    def held_out(i):
        x, y = features[fold != i], targets[fold != i]
        regression = bt.objectives.BayesianLinearRegression(x, y, *precisions)
        predicted = regression.predict(features[fold == i])
        return tf.reduce_sum(predicted.log_prob(targets[fold == i]))

    each = tf.map_fn(held_out, tf.range(FOLDS), fn_output_signature=targets.dtype)
    return tf.reduce_sum(each)


def lower_bound(*arguments):
    """Return the evidence lower bound with the best independent weights.

    These are q(w) = Π_j N(w_j; μ_j, 1 / P_jj), where P is the posterior's precision
    and μ its mean. The bound is below the evidence by KL(q ‖ posterior).
    """
    regression = bt.objectives.BayesianLinearRegression(*arguments)
    precision = regression.posterior_precision()
    independent = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(precision)))
    gap = 0.5 * (independent - tf.linalg.logdet(precision))
    return regression.log_evidence() - gap


CRITERIA = {
    "evidence": compiled(by_fixed_point),
    "evidence, gradient": by_gradient(evidence),
    "Laplace": laplace.criterion(Judgement, STARTS),
    "ELBO": by_gradient(lower_bound),
    "leave-one-out": by_gradient(leave_one_out),
    f"{FOLDS}-fold": by_gradient(folds),
}
CROSS_VALIDATION = "leave-one-out", f"{FOLDS}-fold"


# Choosing


def sample(args, seed):
    """Return x and y of one data set, `[N]` each."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, args.examples)
    return x, FUNCTIONS[args.function](x) + args.noise * random.normal(size=len(x))


def predict(x, y, judged, degree):
    """Return the predictive distribution on `GRID`."""
    regression = bt.objectives.BayesianLinearRegression(
        design(x, degree), y, *judged[1:]
    )
    return regression.predict(design(GRID, degree))


def choose(name, seed, args):
    """Choose a degree for one data set; return a row of the second table."""
    x, y = sample(args, seed)
    judged = [
        Judgement(*(float(part) for part in CRITERIA[name](design(x, degree), y)))
        for degree in range(args.degrees + 1)
    ]
    degree = int(np.argmax([j.score for j in judged]))
    prediction = predict(x, y, judged[degree], degree)
    error = prediction.mean() - FUNCTIONS[args.function](GRID)
    return {
        "criterion": name,
        "seed": seed,
        "judged": judged,
        "degree": degree,
        "prediction": prediction,
        "error": float(tf.sqrt(tf.reduce_mean(error**2))),
    }


def print_judgements(rows):
    """Print the first table: every degree on one data set."""
    print(f"{'':>6}" + "".join(f"{row['criterion']:^30}" for row in rows))
    print(f"{'degree':>6}" + f"{'score':>11}{'A':>10}{'λ':>9}" * len(rows))
    for degree in range(len(rows[0]["judged"])):
        line = f"{degree:>6}"
        for row in rows:
            score, weight_precision, noise_precision = row["judged"][degree]
            chosen = "*" if degree == row["degree"] else " "
            line += f"{score:>10.3f}{chosen}{weight_precision:>10.3g}"
            line += f"{noise_precision:>9.3g}"
        print(line)


def print_choices(rows, args):
    """Print the second table: how often each degree was chosen, and the errors."""
    degrees = "".join(f"{d:>4}" for d in range(args.degrees + 1))
    print(f"\nHow many of {args.data_sets} data sets led to each degree:")
    print(f"{'':<20}{degrees}{'error':>9}{'median':>9}")
    for name in args.criteria:
        chosen = [row for row in rows if row["criterion"] == name]
        errors = [row["error"] for row in chosen]
        counts = "".join(f"{c or '–':>4}" for c in count_degrees(chosen, args))
        print(f"{name:<20}{counts}{np.mean(errors):>9.4f}{np.median(errors):>9.4f}")


def count_degrees(rows, args):
    """Return how often each degree was chosen."""
    return np.bincount([row["degree"] for row in rows], minlength=args.degrees + 1)


# Picture

# Line widths that keep curves visible below others that agree with them.
WIDTHS = 6, 4, 2.5, 1


def draw(rows, args):
    """Draw fits and scores of the first data set, and the choices for all."""
    figure, ((fits, bars), (left, right)) = plt.subplots(2, 2, figsize=(12, 7))
    first = [row for row in rows if row["seed"] == 0]
    draw_fits(fits, first, args)
    draw_choices(bars, rows, args)
    for i, row in enumerate(first):
        axis = right if row["criterion"] in CROSS_VALIDATION else left
        scores = [judgement.score for judgement in row["judged"]]
        style = {"color": f"C{i}", "linewidth": WIDTHS[i % 4]}
        axis.plot(scores, label=row["criterion"], **style)
        axis.plot(row["degree"], max(scores), "*", color=f"C{i}", markersize=16)
    for axis, title in ((left, "evidence"), (right, "cross-validation")):
        axis.set(title=f"{title}, first data set", xlabel="degree", ylabel="nats")
        axis.set_xticks(range(args.degrees + 1))
        if axis.lines:
            axis.legend(fontsize=8)
    figure.tight_layout()
    path = args.output / f"polynomials_{args.function}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_fits(axis, rows, args):
    """Draw data, function, every criterion's choice, and ± 2 deviations of one."""
    x, y = sample(args, 0)
    features = design(x, args.degrees)
    weights = np.linalg.lstsq(features, y, rcond=None)[0]
    label = f"least squares: degree {args.degrees}"
    axis.plot(GRID, design(GRID, args.degrees) @ weights, "0.7", label=label)
    axis.plot(GRID, FUNCTIONS[args.function](GRID), "k--", label="function")
    for i, row in enumerate(rows):
        label = f"{row['criterion']}: degree {row['degree']}"
        mean = row["prediction"].mean()
        axis.plot(GRID, mean, f"C{i}", linewidth=WIDTHS[i % 4], label=label)
    mean, deviation = rows[0]["prediction"].mean(), rows[0]["prediction"].stddev()
    axis.fill_between(GRID, mean - 2 * deviation, mean + 2 * deviation, alpha=0.15)
    axis.plot(x, y, "k.", markersize=9)
    axis.set_ylim(y.min() - 0.5, y.max() + 1.2)
    axis.set(title="first data set", xlabel="x", ylabel="y")
    axis.legend(fontsize=8, ncols=2, loc="upper center")


def draw_choices(axis, rows, args):
    """Draw how often each criterion chose each degree."""
    width = 0.8 / len(args.criteria)
    for i, name in enumerate(args.criteria):
        counts = count_degrees([row for row in rows if row["criterion"] == name], args)
        axis.bar(np.arange(len(counts)) + i * width, counts, width, label=name)
    axis.set_xticks(np.arange(args.degrees + 1) + 0.4 - width / 2)
    axis.set_xticklabels(range(args.degrees + 1))
    axis.set(title=f"chosen in {args.data_sets} data sets", xlabel="degree")
    axis.legend(fontsize=8)


def main(argv=None):
    """Judge and choose; return a row for each criterion and data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--function", choices=list(FUNCTIONS), default="cubic")
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument(
        "--noise", type=float, default=0.3, help="standard deviation of the noise"
    )
    parser.add_argument("--degrees", type=int, default=9, help="highest degree")
    parser.add_argument("--data-sets", type=int, default=20)
    parser.add_argument(
        "--criteria", nargs="*", choices=[*CRITERIA], default=[*CRITERIA]
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"))
    args = parser.parse_args(argv)
    rows = []
    for seed in range(args.data_sets):
        rows += [choose(name, seed, args) for name in args.criteria]
        if seed == 0:
            print_judgements(rows)
    print_choices(rows, args)
    draw(rows, args)
    return rows


if __name__ == "__main__":
    main()
