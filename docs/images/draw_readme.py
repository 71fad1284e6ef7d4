"""Run the README's program, and draw how its hyperparameters and loss moved.

    python docs/images/draw_readme.py

writes docs/images/readme.png, beside the same network with hyperparameters left at
their start, and prints the numbers that the README quotes.
"""

import contextlib
import io
import pathlib
import re

import matplotlib as mpl

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).parent


def program():
    """The README's first block of code."""
    text = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def run(code):
    """The program's variables and the lines that it printed, without progress bars."""
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), names)
    return names, [line for line in printed.getvalue().splitlines() if "{" in line]


def fixed(code):
    """The same with hyperparameters that stay where they start."""
    code = code.replace("model.compile(", "model.compile(method=STAY,")
    code = f"import bilevel_tf\nSTAY = bilevel_tf.DeltaSTN(warmup_epochs=1000)\n{code}"
    return run(code)


def draw(tuned, start, path):
    """Three panels over the epochs: dropout rate, weight decay, validation loss."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
    epochs = range(1, len(tuned["loss"]) + 1)
    titles = {"dropout": "dropout", "weight_decay": "weight decay"}
    titles["val_loss"] = "validation loss"
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        axis.plot(epochs, tuned[name], color="tab:blue", label="tuned")
        axis.plot(epochs, start[name], "--", color="tab:gray", label="left at start")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    axes[0].set_ylim(0, 0.95)
    axes[1].set_yscale("log")
    axes[2].set(yscale="log")
    axes[2].legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main():
    """Draw, and print what the README quotes."""
    code = program()
    tuned, printed = run(code)
    start, stayed = fixed(code)
    histories = [names["history"].history for names in (tuned, start)]
    draw(*histories, HERE / "readme.png")
    print("tuned:", *printed, "left at start:", *stayed, sep="\n")
    for name, history in zip(("tuned", "start"), histories, strict=True):
        print(f"{name}: validation loss {history['val_loss'][-1]:.4f} at the end")


if __name__ == "__main__":
    print(bt.__version__)
    main()
