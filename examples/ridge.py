"""Data and exact answers for the linear examples.

Both examples minimise, for some positive f(λ) and matrix P,

    L_T(λ, w) = mean((y − xw)²) + f(λ) wᵀPw,

so that w*(λ) = (C + f(λ) P)⁻¹ b, with C = mean(xxᵀ) and b = mean(yx). The best λ has
the least validation loss of w*(λ). It is one number, found by a line search.
"""

import dataclasses
import pathlib

import keras
import matplotlib
import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_diabetes

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DATA_SETS = ("diabetes", "boston_housing", "yacht")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A regression problem, standardised by its training half."""

    x: np.ndarray
    y: np.ndarray
    x_valid: np.ndarray
    y_valid: np.ndarray

    @property
    def second_moment(self):
        """C = mean(xxᵀ), `[d, d]`."""
        return self.x.T @ self.x / len(self.x)

    def weights(self, penalty):
        """Return w* under the penalty wᵀ·penalty·w, `[d]`."""
        moment = self.x.T @ self.y[:, 0] / len(self.x)
        return np.linalg.solve(self.second_moment + penalty, moment)

    def validation_loss(self, weights):
        """Return the mean squared error on the validation half."""
        return float(np.mean((self.y_valid[:, 0] - self.x_valid @ weights) ** 2))


def load(name, data_dir=None):
    """Return x and y of one of `DATA_SETS`, or of `<name>.npz` in `data_dir`."""
    if name == "diabetes":
        return load_diabetes(return_X_y=True)
    path = pathlib.Path(data_dir or ".") / f"{name}.npz"
    if data_dir is not None and path.exists():
        with np.load(path) as arrays:
            return arrays["x"], arrays["y"]
    if name == "boston_housing":
        return keras.datasets.boston_housing.load_data(test_split=0.0)[0]
    raise FileNotFoundError(
        f"--data-dir must have a file '{name}.npz' with arrays x and y. "
        f"Received: --data-dir={data_dir}"
    )


def available(data_dir=None):
    """Return the names of the data sets that need no network connection."""
    folder = pathlib.Path(data_dir or ".")
    found = [n for n in DATA_SETS if data_dir and (folder / f"{n}.npz").exists()]
    return ["diabetes", *(name for name in found if name != "diabetes")]


def split(x, y, seed):
    """Split into halves at random; standardise both by the first."""
    order = np.random.default_rng(seed).permutation(len(x))
    train, valid = order[: len(x) // 2], order[len(x) // 2 :]
    y = y.reshape(-1, 1)

    def scale(array):
        deviation = array[train].std(0)
        # A column that is constant in the training half is only centred.
        return (array - array[train].mean(0)) / np.where(deviation > 0, deviation, 1)

    x, y = scale(x).astype("float32"), scale(y).astype("float32")
    return Problem(x[train], y[train], x[valid], y[valid])


def minimum(function, low, high, points=400):
    """Return where a function of one number is least on an interval."""
    grid = np.linspace(low, high, points)
    best = int(np.argmin([function(at) for at in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, points - 1)])
    options = {"xatol": 1e-10}
    return float(
        minimize_scalar(function, bounds=bounds, method="bounded", options=options).x
    )


def compare(problem, scale, penalty, history, name):
    """Compare what a fit found with the exact optimum for λ from −12 to 12.

    Args:
        problem: The `Problem`.
        scale: The hyperparameter's scale.
        penalty: Function of a value and C that returns the matrix of the quadratic
            penalty.
        history: The `History` that `fit` returned.
        name: The hyperparameter's name.

    Returns:
        A dict with the columns of the table and the paths to draw.
    """

    def loss(value):
        weights = problem.weights(penalty(float(value), problem.second_moment))
        return problem.validation_loss(weights)

    def constrain(unconstrained):
        return float(scale.constrain(np.float64(unconstrained)))

    def excess(losses):
        return 100 * (np.asarray(losses) / loss(exact) - 1)

    exact = constrain(minimum(lambda free: loss(constrain(free)), -12.0, 12.0))
    path = history.history[name]
    losses = [loss(value) for value in path]
    return {
        "found": path[-1],
        "exact": exact,
        "loss": losses[-1],
        "excess": excess(losses)[-1],
        "model_excess": excess(history.history["val_loss"])[-1],
        "path": path,
        "excess_path": excess(losses),
        "steps": history.params["steps"] * np.arange(1, len(path) + 1),
    }


def add_arguments(parser, epochs, learning_rate):
    """Add the arguments of the command line that both examples share."""
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument(
        "--data", nargs="*", help="names; default: those that need no network"
    )
    parser.add_argument(
        "--data-dir", help="folder with files <name>.npz that hold x and y"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of splits")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--steps-per-epoch", type=int, default=100)
    parser.add_argument("--methods", nargs="*", help="names of the methods to compare")
    parser.add_argument("--output", default="results", help="folder for the picture")
    parser.add_argument("--saved-models", default="saved_models")


def print_header():
    """Print the first line of the table."""
    print(
        f"{'data set':<15}{'seed':>4}  {'method':<12}{'hyperparameter':<15}"
        f"{'found':>10}{'exact':>10}{'loss':>9}{'excess %':>10}{'model %':>10}"
    )


def print_row(row):
    """Print one line of the table."""
    print(
        f"{row['data']:<15}{row['seed']:>4}  {row['method']:<12}{row['name']:<15}"
        f"{row['found']:>10.3g}{row['exact']:>10.3g}{row['loss']:>9.4f}"
        f"{row['excess']:>10.3f}{row['model_excess']:>10.3f}",
        flush=True,
    )


def print_summary(rows):
    """Print how far each method ends from the exact optimum, over all runs."""
    print(f"\n{'hyperparameter':<15}{'method':<12}{'excess %: median':>18}{'worst':>9}")
    for name, method in sorted({(row["name"], row["method"]) for row in rows}):
        of_both = [r for r in rows if (r["name"], r["method"]) == (name, method)]
        excess = [r["excess"] for r in of_both]
        print(f"{name:<15}{method:<12}{np.median(excess):>18.4f}{max(excess):>9.3f}")


def draw(rows, path):
    """Draw the first split's hyperparameter and the median excess, per data set."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = plt.subplots(
        2, len(names), figsize=(4 * len(names), 6), squeeze=False, sharex=True
    )
    for (top, bottom), data in zip(axes.T, names, strict=True):
        of_data = [row for row in rows if row["data"] == data]
        top.set_title(data)
        top.axhline(of_data[0]["exact"], color="black", linestyle="--", label="exact")
        for color, method in enumerate(dict.fromkeys(r["method"] for r in of_data)):
            of_method = [row for row in of_data if row["method"] == method]
            first = of_method[0]
            top.plot(first["steps"], first["path"], f"C{color}", label=method)
            median = np.median([row["excess_path"] for row in of_method], axis=0)
            bottom.plot(first["steps"], np.maximum(median, 1e-4), f"C{color}")
        top.set(yscale="log", ylabel=f"{of_data[0]['name']}, first split")
        bottom.set(yscale="log", ylabel="median excess %", xlabel="inner steps")
        top.legend()
    figure.tight_layout()
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
