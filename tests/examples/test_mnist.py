"""The MNIST experiment in small, on random images where the real ones are absent."""

import keras
import mnist
import numpy as np


def test_runs_every_method(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)

    def images(count):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype="uint8")
        return pixels, rng.integers(0, 10, count)

    monkeypatch.setattr(
        keras.datasets.mnist, "load_data", lambda: (images(600), images(100))
    )
    arguments = ["--epochs=2", "--warmup-epochs=1", "--width=16", "--verbose=0"]
    arguments += [f"--output={tmp_path}", f"--saved-model={tmp_path / 'saved'}"]
    records = mnist.main(arguments)
    assert len(records) == 7
    for name, record in records.items():
        assert np.isfinite(record["val_loss"]).all()
        moved = "dropout_1" in record and record["dropout_1"][-1] != 0.05
        assert moved != name.startswith("fixed")
