"""Polynomials judged by evidence and by cross-validation, in small."""

import numpy as np
import polynomials
import pytest
import scipy.stats


def run(tmp_path, *arguments):
    small = ["--data-sets=2", "--degrees=4", f"--output={tmp_path}"]
    rows = polynomials.main([*small, *arguments])
    return {(row["criterion"], row["seed"]): row for row in rows}


def test_in_small(tmp_path, capsys):
    rows = run(tmp_path, "--criteria", "evidence", "evidence, gradient")
    assert len(rows) == 4
    for row in rows.values():
        scores = [judgement.score for judgement in row["judged"]]
        assert len(scores) == 5
        assert row["degree"] == np.argmax(scores)
    exact, descended = rows["evidence", 0], rows["evidence, gradient", 0]
    for one, other in zip(exact["judged"], descended["judged"], strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5)
    np.testing.assert_allclose(exact["judged"][3], descended["judged"][3], rtol=1e-3)
    assert exact["degree"] == 3
    assert exact["error"] < 0.2
    printed = capsys.readouterr().out
    assert f"{exact['judged'][3].score:.3f}*" in printed
    assert "of 2 data sets" in printed
    assert (tmp_path / "polynomials_cubic.png").stat().st_size > 1000


def test_another_criterion_is_one_function(tmp_path, monkeypatch, capsys):
    def lower_is_better(features, targets):
        return polynomials.Judgement(-features.shape[1], 10.0, 10.0)

    monkeypatch.setattr(polynomials, "CRITERIA", {"flat": lower_is_better})
    rows = run(tmp_path, "--criteria", "flat", "--function", "sine")
    assert [row["degree"] for row in rows.values()] == [0, 0]
    assert "flat" in capsys.readouterr().out
    assert (tmp_path / "polynomials_sine.png").stat().st_size > 1000


def test_basis_has_mean_square_one():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    features = polynomials.design(nodes, 9)
    gram = features.T * weights / 2 @ features
    np.testing.assert_allclose(gram, np.eye(10), atol=1e-12)


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 12)
    return polynomials.design(x, 2), x + 0.3 * random.normal(size=12)


def held_out(features, targets, apart, weight_precision, noise_precision):
    """Σ_i log p(y_i | y of the rest) from p(y); `apart` says what is not the rest."""
    covariance = features @ features.T / weight_precision
    covariance += np.eye(len(targets)) / noise_precision
    total = 0.0
    for i in range(len(targets)):
        rest = ~apart(i)
        gain = covariance[i, rest] @ np.linalg.inv(covariance[np.ix_(rest, rest)])
        variance = covariance[i, i] - gain @ covariance[rest, i]
        total += scipy.stats.norm(gain @ targets[rest], variance**0.5).logpdf(
            targets[i]
        )
    return total


@pytest.mark.parametrize("name", ["leave-one-out", "5-fold"])
def test_scores_of_cross_validation(data, name):
    """What the criterion says is the score at its precisions, and the highest there."""
    indices = np.arange(12)
    modulus = {"leave-one-out": 12, "5-fold": 5}[name]

    def score(*precisions):
        return held_out(*data, lambda i: indices % modulus == i % modulus, *precisions)

    judged, *at = (float(part) for part in polynomials.CRITERIA[name](*data))
    assert judged == pytest.approx(score(*at), rel=1e-9)
    for factors in ((1.2, 1), (0.8, 1), (1, 1.2), (1, 0.8)):
        assert score(*np.multiply(at, factors)) < judged


def test_laplace_and_the_bound_beside_the_evidence(tmp_path):
    rows = run(tmp_path, "--criteria", "evidence", "Laplace", "ELBO", "--data-sets=1")
    evidence, laplace, bound = (
        rows[name, 0]["judged"] for name in ("evidence", "Laplace", "ELBO")
    )
    # Degrees whose weights are best zero have no finite best precision.
    for exact, found in zip(evidence, laplace, strict=True):
        assert found.score == pytest.approx(exact.score, abs=1e-5)
    np.testing.assert_allclose(laplace[3], evidence[3], rtol=1e-4)
    assert rows["Laplace", 0]["degree"] == rows["evidence", 0]["degree"]
    # Precisions without end leave rounding in determinants.
    assert all(b.score <= e.score + 1e-3 for b, e in zip(bound, evidence, strict=True))


def test_the_bound_is_that_of_independent_weights(data):
    features, targets = data
    bound = polynomials.lower_bound(features, targets, 2.0, 5.0)
    design = np.asarray(features)
    precision = 5.0 * design.T @ design + 2.0 * np.eye(3)
    mean = np.linalg.solve(precision, 5.0 * design.T @ targets)
    variance = 1 / np.diag(precision)
    errors = np.sum((targets - design @ mean) ** 2) + np.sum(design**2 @ variance)
    likelihood = 0.5 * len(targets) * np.log(5.0 / (2 * np.pi)) - 2.5 * errors
    spread = 2.0 * (variance + mean**2)
    divergence = 0.5 * np.sum(spread - 1 - np.log(2.0 * variance))
    assert float(bound) == pytest.approx(likelihood - divergence, rel=1e-10)


@pytest.mark.slow
def test_laplace_chooses_the_degree_of_the_exact_evidence_on_20_data_sets(tmp_path):
    rows = polynomials.main(
        ["--criteria", "evidence", "Laplace", f"--output={tmp_path}"]
    )
    chosen = {(row["criterion"], row["seed"]): row["degree"] for row in rows}
    assert len(chosen) == 40
    for seed in range(20):
        assert chosen["Laplace", seed] == chosen["evidence", seed]
