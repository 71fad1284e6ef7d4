"""L2 factors of logistic regression: HOAG against grid and random search.

In the form of Pedregosa (2016), on data sets that scikit-learn brings along, a third
each for training, validation and test:

    L(w, α) = Σ_train log(1 + exp(−y xᵀw)) + ½ Σ_j exp(α_j) w_j²,   no intercept
    Q(w)    = the mean logistic loss of the validation set

α is one number for all features, or one for each.

    python examples/hoag_logistic.py                # about two minutes

HOAG solves roughly at first, to a tolerance ε_k that falls in one of several ways:
the paper's three, those of its reference code, and as good as exactly from the start.
Grid and random search train to the end, by the same L-BFGS, each time from the last
weights. All have the same range of α and the same number of inner problems.

The picture has the form of the paper's: how far Q(w*(α)) at the α found so far is
above the least one that any method found for as many α. To draw it, w*(α) is computed
afterwards, to the end for all. Seconds are of the processor and begin at the end of
the first inner problem, to leave out what compiling takes.
"""

import argparse
import pathlib
import time

import keras
import lbfgs
import matplotlib as mpl
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer, load_digits

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt

LOW, HIGH, START = -4.0, 8.0, 2.0
LOADERS = {"breast_cancer": load_breast_cancer, "digits": load_digits}


class PolynomialHOAG(bt.methods.HOAG):
    """HOAG with ε_k = tolerance / (k + 1)ᵖ."""

    def __init__(self, power, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def tolerance_at(self, step, dtype="float32"):
        """ε_k."""
        falling = self.tolerance / (tf.cast(step, dtype) + 1) ** self.power
        return tf.maximum(falling, tf.cast(self.least_tolerance, dtype))


LEAST = 1e-10
METHODS = {
    "HOAG, 0.1 · 0.9ᵏ": bt.methods.HOAG(0.1, 0.9, LEAST),
    "HOAG, 0.1 / k²": PolynomialHOAG(2, tolerance=0.1, least_tolerance=LEAST),
    "HOAG, 0.1 / k³": PolynomialHOAG(3, tolerance=0.1, least_tolerance=LEAST),
    "HOAG, 0.001 · 0.9ᵏ": bt.methods.HOAG(1e-3, 0.9, LEAST),
    "HOAG, exact": bt.methods.HOAG(1e-8, 1.0, LEAST),
}


class Logistic:
    """The data and both losses; α is a scalar or a vector.

    Args:
        name: One of `LOADERS`. Digits are told apart as even and odd.
        seed: Of the split.
    """

    def __init__(self, name, seed=0):
        x, y = LOADERS[name](return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(x))
        thirds = np.array_split(order, 3)
        self.mean, deviation = x[thirds[0]].mean(0), x[thirds[0]].std(0)
        # A pixel that is always off is left as it is.
        self.deviation = np.where(deviation > 0, deviation, 1.0)
        x, signs = (x - self.mean) / self.deviation, 2.0 * (y % 2) - 1
        self._parts = [(tf.constant(x[i]), tf.constant(signs[i])) for i in thirds]
        self.features = x.shape[1]
        self.weights = tf.zeros(self.features, tf.float64)
        self._minimise = lbfgs.minimiser(
            lambda w, h: self.inner(w[0], h), tolerance=1e-7
        )

    def losses(self, w, part):
        """One for every example of training, validation or test set."""
        x, signs = self._parts[part]
        return tf.nn.softplus(-signs * tf.linalg.matvec(x, w))

    def inner(self, w, alpha):
        """L."""
        penalty = 0.5 * tf.reduce_sum(tf.exp(alpha) * w**2)
        return tf.reduce_sum(self.losses(w, 0)) + penalty

    def outer(self, w, alpha=None):
        """Q."""
        return tf.reduce_mean(self.losses(w, 1))

    def test(self, w):
        """Mean logistic loss of the test set."""
        return float(tf.reduce_mean(self.losses(w, 2)))

    def train(self, w, alpha):
        """w*(α), from w."""
        return self._minimise([w], tf.constant(alpha, tf.float64))[0][0]

    def to_keras(self, w):
        """A model of the features as they are in the data set, to a probability."""
        scale = keras.layers.Normalization(mean=self.mean, variance=self.deviation**2)
        layer = keras.layers.Dense(1, activation="sigmoid", use_bias=False)
        model = keras.Sequential([keras.Input((self.features,)), scale, layer])
        layer.set_weights([w.numpy()[:, None]])
        return model


class Recorder:
    """Seconds since the first entry, and α at each."""

    def __init__(self):
        self.seconds, self.tried = [], []
        self._begin = None

    def __call__(self, alpha):
        now = time.process_time()
        self._begin = now if self._begin is None else self._begin
        self.seconds.append(now - self._begin)
        self.tried.append(np.asarray(alpha))


def run_hoag(problem, method, shape, solves):
    """HOAG, to what a `Recorder` has of the α that it went on from."""
    record = Recorder()

    def callback(entry, alpha):
        record(alpha if entry["accepted"] else record.tried[-1])

    start = tf.fill(shape, np.float64(START))
    losses = problem.inner, problem.outer
    method.minimize(
        *losses,
        problem.weights,
        start,
        outer_iterations=solves,
        low=LOW,
        high=HIGH,
        callback=callback,
    )
    return record


def run_search(problem, candidates):
    """Train at every candidate; keeps the best α so far."""
    record, weights, least = Recorder(), problem.weights, np.inf
    for alpha in candidates:
        weights = problem.train(weights, alpha)
        loss = float(problem.outer(weights))
        record(alpha if loss < least else record.tried[-1])
        least = min(least, loss)
    return record


def candidates(shape, solves, seed):
    """What the searches try, by name; a grid for one α alone."""
    random = np.random.default_rng(seed).uniform(LOW, HIGH, (solves, *shape))
    if shape:
        return {"random search": random}
    # From strong to weak penalties, so that the next weights are near the last ones.
    return {"grid search": np.linspace(HIGH, LOW, solves), "random search": random}


def compare(name, per_feature, args):
    """Rows of the table for one data set and one form of α."""
    problem = Logistic(name, args.seed)
    shape = (problem.features,) if per_feature else ()
    records = {
        label: run_hoag(problem, method, shape, args.solves)
        for label, method in METHODS.items()
    }
    for label, tried in candidates(shape, args.solves, args.seed).items():
        records[label] = run_search(problem, tried)
    rows = []
    for label, record in records.items():
        losses, weights = retrained(problem, record.tried)
        rows.append(
            {
                "data": name,
                "alpha": f"{problem.features} α" if per_feature else "one α",
                "method": label,
                "problem": problem,
                "weights": weights,
                "seconds": record.seconds,
                "losses": losses,
                "test_loss": problem.test(weights),
            }
        )
    least = min(min(row["losses"]) for row in rows)
    for row in rows:
        row["excess"] = np.array(row["losses"]) - least
    return rows


def retrained(problem, tried):
    """Q(w*(α)) at every α, and the last w*."""
    weights, losses, last = problem.weights, [], None
    for alpha in tried:
        if alpha is not last:
            weights = problem.train(weights, alpha)
        last = alpha
        losses.append(float(problem.outer(weights)))
    return losses, weights


def seconds_to(row, excess):
    """When the curve has come within `excess` for good; `None` if never."""
    above = np.flatnonzero(row["excess"] > excess)
    at = above[-1] + 1 if len(above) else 0
    return row["seconds"][at] if at < len(row["seconds"]) else None


def print_rows(rows, solves):
    """The table of one data set and one form of α."""
    title = f"{rows[0]['data']}, {rows[0]['alpha']}, {solves} inner problems"
    print(
        f"\n{title:<45}\n{'method':<21}{'outer loss':>11}{'above best':>12}"
        f"{'test loss':>11}{'seconds':>9}{'to 1e-3':>9}{'to 1e-5':>9}"
    )
    for row in rows:
        times = [seconds_to(row, excess) for excess in (1e-3, 1e-5)]
        times = ["–" if t is None else f"{t:.2f}" for t in times]
        print(
            f"{row['method']:<21}{row['losses'][-1]:>11.5f}{row['excess'][-1]:>12.1e}"
            f"{row['test_loss']:>11.5f}{row['seconds'][-1]:>9.2f}"
            f"{times[0]:>9}{times[1]:>9}",
            flush=True,
        )


def draw(tables, path):
    """Suboptimality against time: a row per data set, a column per form of α."""
    figure, axes = plt.subplots(len(tables) // 2, 2, figsize=(12, 2.2 * len(tables)))
    for axis, rows in zip(np.ravel(axes), tables, strict=True):
        for row in rows:
            dashed = "-" if row["method"].startswith("HOAG") else "--"
            excess = np.maximum(row["excess"], 1e-9)
            axis.plot(row["seconds"], excess, dashed, label=row["method"])
        axis.set(title=f"{rows[0]['data']}, {rows[0]['alpha']}", xlabel="seconds")
        axis.set(yscale="log", ylabel="outer loss above the best")
        axis.legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def export(row, folder):
    """Write the model as a SavedModel; returns how far the reloaded one is off."""
    problem = row["problem"]
    model = problem.to_keras(row["weights"])
    model.export(str(folder), verbose=False)
    served = tf.saved_model.load(str(folder))
    x = (problem.mean + problem.deviation)[None].astype("float32")
    return float(np.abs(served.serve(x) - model.predict(x, verbose=0)).max())


def main(argv=None):
    """Run everything; returns a list of rows for each table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", choices=list(LOADERS), default=[*LOADERS])
    parser.add_argument("--solves", type=int, default=40, help="inner problems each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"))
    parser.add_argument("--saved-model", default="saved_models/hoag_logistic")
    args = parser.parse_args(argv)
    tables = []
    for name in args.data:
        for per_feature in (False, True):
            tables.append(compare(name, per_feature, args))
            print_rows(tables[-1], args.solves)
    draw(tables, args.output / "hoag_logistic.png")
    best = min(tables[-1], key=lambda row: row["losses"][-1])
    difference = export(best, args.saved_model)
    print(f"\nThe SavedModel in {args.saved_model} differs by {difference:.1g}.")
    return tables


if __name__ == "__main__":
    main()
