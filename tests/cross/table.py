"""The rows of the table, the cells that are refused, and the page that shows both.

`python -m tests.cross.table` writes the page.
"""

import pathlib

import bilevel_tf as bt
from tests.cross.conditions import CONDITIONS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "methods" / "cross_table.md"

METHODS = {
    "DeltaSTN": lambda: bt.DeltaSTN(entropy_weight=0.0, train_steps=1),
    "DeltaSTN, shared pass": lambda: bt.DeltaSTN(
        shared_pass=True, entropy_weight=0.0, train_steps=1
    ),
    "CenteredSTN": lambda: bt.methods.CenteredSTN(entropy_weight=0.0, train_steps=1),
    "STN": lambda: bt.STN(entropy_weight=0.0, train_steps=1),
    "Hypernetwork": lambda: bt.methods.Hypernetwork(entropy_weight=0.0, train_steps=1),
    "ExactImplicit": lambda: bt.methods.ExactImplicit(0.3, train_steps=1),
    "ConjugateGradient": lambda: bt.ConjugateGradient(3, 0.0, 4.0, train_steps=1),
    "HOAG": lambda: bt.methods.HOAG(
        1e-12, 1.0, 1e-12, iterations=30, damping=4.0, train_steps=1
    ),
    "Neumann": lambda: bt.Neumann(3, 0.1, train_steps=1),
    "T1T2": lambda: bt.methods.T1T2(train_steps=1),
    "GaussNewton": lambda: bt.methods.GaussNewton(3, 0.0, 4.0, train_steps=1),
    "EmpiricalFisher": lambda: bt.methods.EmpiricalFisher(3, 0.0, 4.0, train_steps=1),
    "DARTS": lambda: bt.methods.DARTS(0.1, train_steps=1),
    "Greedy": lambda: bt.methods.Greedy(train_steps=1),
    "Unrolled": lambda: bt.Unrolled(3, train_steps=1),
    "Unrolled, restart": lambda: bt.Unrolled(3, restart=True, train_steps=1),
    "ForwardMode": lambda: bt.methods.ForwardMode(3, train_steps=1),
    "ForwardMode, real time": lambda: bt.methods.ForwardMode(
        real_time=True, train_steps=1
    ),
    "RMAD": lambda: bt.methods.RMAD(3, train_steps=1),
    "DrMAD": lambda: bt.methods.DrMAD(3, train_steps=1),
    "GravesUpdate": lambda: bt.methods.GravesUpdate(train_steps=1),
    "MacKayUpdate": lambda: bt.methods.MacKayUpdate(train_steps=1),
}

# The error that `compile` raises, by method and condition.
REFUSED = {
    **{("GravesUpdate", c.what): "must be bilevel_tf.ELBO" for c in CONDITIONS},
    **{("MacKayUpdate", c.what): "needs objective=.*Laplace" for c in CONDITIONS},
}
REASONS = {
    "GravesUpdate": "It moves priors of variational layers, and needs `bt.ELBO()`.",
    "MacKayUpdate": "It moves Gaussian priors, and needs "
    "`bt.objectives.LaplaceEvidence()`.",
}

HEAD = """\
# What works with what

Every method under every condition, with `ValidationLoss`. A ✓ means that a test holds
an inner and an outer step of a compiled model against the same steps of a network
written by hand in plain TensorFlow, with dense derivatives and in double precision, to
a relative error of 1e-9 (3 % under mixed precision, whose products have 11 bits):

- methods that fit a best response: the loss at every example's own weights, its
  gradients, and the gradient of the outer loss through the response;
- all others: the formula that defines the method, such as a solve with the dense
  Hessian, or a tape over plain training steps.

Under BatchNormalization, a training step uses the statistics of its batch, which are
differentiated. The moving statistics, which Q uses, count as constants: they depend on
the weights of earlier steps, and no method follows that.

A number means that `compile` refuses it, for the reason of that number below. This page
is made from the tests, in `tests/cross`.
"""


def render() -> str:
    """The text of the page."""
    names = [c.what for c in CONDITIONS]
    numbers = {name: i + 1 for i, name in enumerate(REASONS)}
    lines = [
        HEAD,
        f"| method | {' | '.join(names)} |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for method in METHODS:
        refused = [(method, name) in REFUSED for name in names]
        cells = [str(numbers[method]) if r else "✓" for r in refused]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines.append("")
    lines += [f"{n}. `{m}`: {REASONS[m]}" for m, n in numbers.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
