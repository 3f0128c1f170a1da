"""Small regression and multi-label problems, and their formulas in NumPy float64."""

import numpy as np


def make_features(n=60, d=6, seed=0):
    """Features of a ReLU layer with a constant among them, float32."""
    generator = np.random.default_rng(seed)
    features = np.maximum(generator.normal(size=(n, d)) + 0.3, 0.0)
    features[:, -1] = 1.0
    return features.astype(np.float32)


def make_targets(features, t=3, seed=1, noise=0.5):
    """Noisy linear targets, shape (n, t)."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(features.shape[1], t))
    return features @ weights + noise * generator.normal(size=(len(features), t))


def signs(targets):
    """Labels -1 and +1."""
    return np.where(targets > np.median(targets, axis=0), 1.0, -1.0)


def bounds(targets, K, weights, binary):
    """low and high of every coefficient, shape (n, t)."""
    bound = K * weights[:, None] * np.ones_like(targets)
    if binary:
        return np.minimum(bound * targets, 0.0), np.maximum(bound * targets, 0.0)
    return -bound, bound


def objectives(features, targets, beta, K, epsilon=0.0, weights=None, binary=False):
    """P(w_b) and D(beta) of every output, from the text-book formulas, and w_b."""
    features = features.astype(np.float64)
    weights = np.ones(len(features)) if weights is None else weights
    w = features.T @ beta
    scores = features @ w
    loss = 1.0 - targets * scores if binary else np.abs(scores - targets) - epsilon
    half = 0.5 * np.sum(w**2, axis=0)
    primal = half + K * np.sum(weights[:, None] * np.maximum(loss, 0.0), axis=0)
    dual = np.sum(targets * beta, axis=0) - np.sum(epsilon * np.abs(beta), axis=0) - half
    return primal, dual, w


def coordinate_descent(features, targets, K, epsilon=0.0, weights=None, binary=False, sweeps=3000):
    """beta of every output by exact coordinate minimisation in a fixed order, float64."""
    features = features.astype(np.float64)
    weights = np.ones(len(features)) if weights is None else weights
    low, high = bounds(targets, K, weights, binary)
    beta, squares = np.zeros_like(targets), np.sum(features**2, axis=1)
    w = np.zeros((features.shape[1], targets.shape[1]))
    for _ in range(sweeps):
        before = beta.copy()
        for i, row in enumerate(features):
            if squares[i] == 0.0:
                continue
            centre = beta[i] + (targets[i] - row @ w) / squares[i]
            soft = np.sign(centre) * np.maximum(np.abs(centre) - epsilon / squares[i], 0.0)
            new = np.clip(soft, low[i], high[i])
            w += np.outer(row, new - beta[i])
            beta[i] = new
        if np.abs(beta - before).max() <= 1e-13 * np.abs(beta).max():
            break
    return beta


def check_certificate(features, targets, solution, epsilon=0.0, weights=None, binary=False):
    """Recompute the numbers of a solution from its coefficients alone, and compare."""
    weights = np.ones(len(features)) if weights is None else np.asarray(weights, float)
    beta = solution.coefficients.toarray()
    low, high = bounds(targets, solution.K, weights, binary)
    assert (beta >= low).all() and (beta <= high).all()
    primal, dual, w = objectives(features, targets, beta, solution.K, epsilon, weights, binary)
    # Terms may cancel down to nothing: rounding is relative to them, not to their sum.
    terms = np.abs(features.astype(np.float64)).T @ np.abs(beta)
    rounding = 1e-14 * np.max(np.abs(features.astype(np.float64)) @ terms, axis=0)
    np.testing.assert_allclose(solution.weights, w, atol=1e-14 * terms.max(), rtol=1e-11)
    lost = solution.K * weights.sum() * rounding
    assert (np.abs(solution.primal - primal) <= 1e-11 * primal + lost).all()
    size = primal + np.sum(np.abs(targets * beta), axis=0)
    assert (np.abs(solution.gap - (primal - dual)) <= 1e-12 * size + lost).all()
    assert (solution.gap >= 0).all()
    scale = solution.tolerance * np.minimum(primal, 4.0 * np.sum(w**2, axis=0))
    assert not (solution.is_converged & (solution.gap > scale * (1 + 1e-6))).any()
