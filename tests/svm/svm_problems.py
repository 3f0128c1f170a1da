"""Small training problems of every awkward kind, and the paper's formulas in NumPy float64."""

import numpy as np


def _features(generator, n, d):
    return np.maximum(generator.normal(size=(n, d)) + 0.3, 0.0)


def _labels(generator, features, num_classes, noise=1.0):
    scores = features @ generator.normal(size=(features.shape[1], num_classes))
    return np.argmax(scores + noise * generator.normal(size=scores.shape), axis=1)


def _random(generator):
    features = _features(generator, 120, 8)
    return features, _labels(generator, features, 5), 5


def _ill_conditioned(generator):
    features = _features(generator, 120, 12) * np.logspace(1, -3, 12)
    return features, _labels(generator, features, 4), 4


def _duplicates(generator):
    features, labels, num_classes = _random(generator)
    return np.concatenate([features[:60]] * 2), np.concatenate([labels[:60]] * 2), num_classes


def _zero_rows(generator):
    features, labels, num_classes = _random(generator)
    features[[0, 7, 50]] = 0.0
    return features, labels, num_classes


def _missing_class(generator):
    features = _features(generator, 90, 6)
    labels = _labels(generator, features, 4)
    return features, np.where(labels >= 2, labels + 1, labels), 5


def _two_classes(generator):
    features = _features(generator, 100, 6)
    return features, _labels(generator, features, 2), 2


def _forty_classes(generator):
    features = _features(generator, 120, 8)
    labels = _labels(generator, features, 40)
    labels[:40] = np.arange(40)
    return features, labels, 40


def _wide(generator):
    features = _features(generator, 30, 60)
    labels = _labels(generator, features, 3)
    labels[:3] = np.arange(3)
    return features, labels, 3


PROBLEMS = {
    "random": _random,
    "ill_conditioned": _ill_conditioned,
    "duplicates": _duplicates,
    "zero_rows": _zero_rows,
    "missing_class": _missing_class,
    "two_classes": _two_classes,
    "forty_classes": _forty_classes,
    "wide": _wide,
}


def make_problem(name, seed=0):
    """Features (n, d) float32, labels (n,) and the number of classes."""
    features, labels, num_classes = PROBLEMS[name](np.random.default_rng(seed))
    return features.astype(np.float32), labels.astype(np.int64), num_classes


def relative_penalty(features, strength):
    """K with K E||f||^2 = strength."""
    return strength / float(np.mean(np.sum(features.astype(np.float64) ** 2, axis=1)))


def objectives(problem, alpha, K):
    """P(W_a), D(lambda), W_a by equation 15 and the slacks, term by term from alpha."""
    features, labels, num_classes = problem
    features = features.astype(np.float64)
    multipliers = K * np.eye(num_classes)[labels] - alpha
    weights = np.zeros((features.shape[1], num_classes))
    for i, label in enumerate(labels):
        for j in range(num_classes):
            if j != label:
                weights[:, label] += multipliers[i, j] * features[i]
                weights[:, j] -= multipliers[i, j] * features[i]
    scores = features @ weights
    margins = scores - scores[np.arange(len(labels)), labels][:, None] + 1.0
    margins[np.arange(len(labels)), labels] = 0.0
    slack = margins.max(axis=1)
    norm = 0.5 * np.sum(weights**2)
    own = alpha[np.arange(len(labels)), labels]
    return norm + K * slack.sum(), own.sum() - norm, weights, slack


def check_certificate(problem, solution):
    """Recompute every number of a solution in float64 from its alpha alone, and compare."""
    features, labels, num_classes = problem
    K, alpha, rows = solution.K, solution.coefficients.toarray(), np.arange(len(labels))
    multipliers = K * np.eye(num_classes)[labels] - alpha
    weights = features.astype(np.float64).T @ alpha
    margins = features.astype(np.float64) @ weights + 1.0 - np.eye(num_classes)[labels]
    shortfall = margins.max(axis=1, keepdims=True) - margins
    slack = shortfall[rows, labels]
    primal = 0.5 * np.sum(weights**2) + K * slack.sum()
    dual = alpha[rows, labels].sum() - 0.5 * np.sum(weights**2)
    gap = np.sum(multipliers * shortfall)
    # lambda on its simplex; P - D cancels, the sum of non-negative terms does not.
    assert multipliers.min() >= -1e-12 * K
    np.testing.assert_allclose(multipliers.sum(axis=1), K, rtol=1e-12)
    np.testing.assert_allclose(primal - dual, gap, atol=1e-12 * primal)
    # Terms may cancel down to nothing: rounding is relative to them, not to their sum.
    rounding = 1e-14 * K * np.abs(features).sum()
    np.testing.assert_allclose(solution.weights, weights, atol=1e-11 * np.abs(weights).max() + rounding)
    np.testing.assert_allclose(solution.slack, slack, atol=1e-11 * (1 + np.abs(margins).max()))
    np.testing.assert_allclose(solution.primal, primal, rtol=1e-11)
    np.testing.assert_allclose(solution.primal - solution.dual, gap, rtol=1e-6, atol=1e-12 * primal)
    np.testing.assert_allclose(solution.relative_gap, gap / primal, rtol=1e-6, atol=1e-12)
    within = gap <= solution.tolerance * min(primal, 4.0 * np.sum(weights**2)) * (1 + 1e-6)
    assert solution.converged == within
