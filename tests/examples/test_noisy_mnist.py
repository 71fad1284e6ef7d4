"""The comparison of objectives under noise, in small."""

import noisy_mnist
import numpy as np
import pytest

SMALL = ["--data=digits", "--limit=200", "--epochs=6", "--width=8", "--noise", "0", "1"]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("objective", "method"),
    [
        ("validation loss", "DrMAD"),
        ("ELBO", "greedy"),
        ("Laplace", "DrMAD"),
        pytest.param("validation loss", "greedy", marks=SLOW),
        pytest.param("ELBO", "DrMAD", marks=SLOW),
        pytest.param("Laplace", "greedy", marks=SLOW),
    ],
)
def test_runs(objective, method, tmp_path, capsys):
    arguments = [f"--objectives={objective}", f"--methods={method}"]
    results = noisy_mnist.main([*SMALL, *arguments, f"--output={tmp_path}"])
    [(precisions, levels)] = results[objective, method]
    assert np.all(np.not_equal(precisions, noisy_mnist.START))
    assert levels.shape == (2, 2)
    assert np.all(np.isfinite(levels))
    # More noise than signal cannot help.
    assert levels[1, 0] < levels[0, 0]
    assert (tmp_path / "noise_1.0.png").exists()
    assert f"| {objective} | {method} |" in capsys.readouterr().out


def test_random_search_takes_the_best_trial(tmp_path):
    arguments = ["--objectives=ELBO", "--methods=random search", "--trials=2"]
    arguments.append("--epochs=2")
    args = noisy_mnist.parse([*SMALL, *arguments])
    run = noisy_mnist.Run("ELBO", noisy_mnist.load("digits", 200), args, seed=0)
    best = run.random_search()
    ends = np.log([noisy_mnist.LOWEST, noisy_mnist.HIGHEST])
    trials = np.exp(np.random.default_rng(0).uniform(*ends, (2, 2)))
    scores = [run.fitted(None, t).evaluate_objective(*run.train_set) for t in trials]
    np.testing.assert_allclose(best, trials[np.argmin(scores)])
