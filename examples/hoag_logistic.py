"""L2 factors of logistic regression: HOAG against grid and random search.

The problem is that of Pedregosa (2016), on data sets that come with scikit-learn. A
third of each is for training, validation and test:

    L(w, α) = Σ_train log(1 + exp(−y xᵀw)) + ½ Σ_j exp(α_j) w_j²,   no intercept
    Q(w)    = the mean logistic loss of the validation set

α is one number for all features, or a vector with one number for each.

    python examples/hoag_logistic.py                # about two minutes

HOAG solves inner problems to a tolerance ε_k, which is coarse at first and falls. It
runs here with the three sequences of the paper, with those of its reference code, and
with a tolerance that is tiny from the start. Grid and random search train until they
converge, by the same L-BFGS, and always start at the last weights. All methods have
the same range of α and solve the same number of inner problems.

The picture has the form of the paper's. It shows by how much Q(w*(α)), at the best α
so far, exceeds the least value that any method found. For this, w*(α) is computed to
convergence afterwards. Seconds are processor time. They start when the first inner
problem is solved, so that they do not include compilation.
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
        """Return ε_k."""
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
        name: One of `LOADERS`. The classes of digits are even and odd.
        seed: Seed of the split.
    """

    def __init__(self, name, seed=0):
        x, y = LOADERS[name](return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(x))
        thirds = np.array_split(order, 3)
        self.mean, deviation = x[thirds[0]].mean(0), x[thirds[0]].std(0)
        # A pixel that is always off has no deviation, and is not scaled.
        self.deviation = np.where(deviation > 0, deviation, 1.0)
        x, signs = (x - self.mean) / self.deviation, 2.0 * (y % 2) - 1
        self._parts = [(tf.constant(x[i]), tf.constant(signs[i])) for i in thirds]
        self.features = x.shape[1]
        self.weights = tf.zeros(self.features, tf.float64)
        self._minimise = lbfgs.minimiser(
            lambda w, h: self.inner(w[0], h), tolerance=1e-7
        )

    def losses(self, w, part):
        """Return one loss per example; part 0 is training, 1 validation, 2 test."""
        x, signs = self._parts[part]
        return tf.nn.softplus(-signs * tf.linalg.matvec(x, w))

    def inner(self, w, alpha):
        """Return L."""
        penalty = 0.5 * tf.reduce_sum(tf.exp(alpha) * w**2)
        return tf.reduce_sum(self.losses(w, 0)) + penalty

    def outer(self, w, alpha=None):
        """Return Q."""
        return tf.reduce_mean(self.losses(w, 1))

    def test(self, w):
        """Return the mean logistic loss of the test set."""
        return float(tf.reduce_mean(self.losses(w, 2)))

    def train(self, w, alpha):
        """Return w*(α), found from w."""
        return self._minimise([w], tf.constant(alpha, tf.float64))[0][0]

    def to_keras(self, w):
        """Return a model from the data set's features to a probability."""
        scale = keras.layers.Normalization(mean=self.mean, variance=self.deviation**2)
        layer = keras.layers.Dense(1, activation="sigmoid", use_bias=False)
        model = keras.Sequential([keras.Input((self.features,)), scale, layer])
        layer.set_weights([w.numpy()[:, None]])
        return model


class Recorder:
    """A list of α, each with the seconds since the first one."""

    def __init__(self):
        self.seconds, self.tried = [], []
        self._begin = None

    def __call__(self, alpha):
        now = time.process_time()
        self._begin = now if self._begin is None else self._begin
        self.seconds.append(now - self._begin)
        self.tried.append(np.asarray(alpha))


def run_hoag(problem, method, shape, solves):
    """Run HOAG; return a `Recorder` with the α of each accepted step."""
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
    """Train at every candidate; return a `Recorder` with the best α so far."""
    record, weights, least = Recorder(), problem.weights, np.inf
    for alpha in candidates:
        weights = problem.train(weights, alpha)
        loss = float(problem.outer(weights))
        record(alpha if loss < least else record.tried[-1])
        least = min(least, loss)
    return record


def candidates(shape, solves, seed):
    """Return what each search tries, by name; there is a grid only for one α."""
    random = np.random.default_rng(seed).uniform(LOW, HIGH, (solves, *shape))
    if shape:
        return {"random search": random}
    # Go from strong to weak penalties: the next weights are then near the last ones.
    return {"grid search": np.linspace(HIGH, LOW, solves), "random search": random}


def compare(name, per_feature, args):
    """Return the rows of the table for one data set and one form of α."""
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
    """Return Q(w*(α)) at every α, and the last w*."""
    weights, losses, last = problem.weights, [], None
    for alpha in tried:
        if alpha is not last:
            weights = problem.train(weights, alpha)
        last = alpha
        losses.append(float(problem.outer(weights)))
    return losses, weights


def seconds_to(row, excess):
    """Return when the curve falls below `excess` and stays there; `None` if never."""
    above = np.flatnonzero(row["excess"] > excess)
    at = above[-1] + 1 if len(above) else 0
    return row["seconds"][at] if at < len(row["seconds"]) else None


def print_rows(rows, solves):
    """Print the table of one data set and one form of α."""
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
    """Draw suboptimality over time: one row per data set, one column per form of α."""
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
    """Write a SavedModel; return the largest difference of its outputs."""
    problem = row["problem"]
    model = problem.to_keras(row["weights"])
    model.export(str(folder), verbose=False)
    served = tf.saved_model.load(str(folder))
    x = (problem.mean + problem.deviation)[None].astype("float32")
    return float(np.abs(served.serve(x) - model.predict(x, verbose=0)).max())


def main(argv=None):
    """Run everything; return a list of rows for each table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", choices=list(LOADERS), default=[*LOADERS])
    parser.add_argument(
        "--solves", type=int, default=40, help="number of inner problems of each method"
    )
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
    print(f"\nLargest difference of the SavedModel's outputs: {difference:.1g}")
    return tables


if __name__ == "__main__":
    main()
