"""The DenseNet with a factor per weight, in small."""

import numpy as np
import per_parameter_l2
import pytest


@pytest.mark.parametrize(
    "name", ["one factor, Neumann", "per weight, DrMAD", "adaptive"]
)
def test_runs(name, tmp_path):
    arguments = ["--data=digits", "--limit=200", "--epochs=1", "--growth=2"]
    arguments += ["--depth=1", f"--methods={name}", f"--output={tmp_path}"]
    arguments.append(f"--saved-model={tmp_path / 'saved'}")
    results = per_parameter_l2.main(arguments)
    assert all(np.isfinite(value) for value in results[name].values())
    assert (tmp_path / "saved" / "saved_model.pb").exists()
    drawn = (tmp_path / "per_parameter_l2.png").exists()
    assert drawn == (name != "one factor, Neumann")


def test_every_weight_has_a_factor_of_its_own():
    network = per_parameter_l2.densenet((8, 8, 1), growth=2, depth=1)
    model = per_parameter_l2.penalised(network, per_weight=True)
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    count = sum(np.prod(kernel.shape) for kernel in kernels)
    assert model.hyperparameters.size == count
    start = per_parameter_l2.START * sum(np.sum(np.square(k)) for k in kernels)
    np.testing.assert_allclose(sum(model.losses), start, rtol=1e-5)
