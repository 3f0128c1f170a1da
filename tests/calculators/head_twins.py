"""The values of methods of the last layer by a naive computation in float64, from Keras' own losses."""

from typing import Any

import numpy as np
import scipy.special
import tensorflow as tf
from kind_cases import NUM_TRAIN, POSITION, Kind, binary, cross_entropy


class HeadTwin:
    """Features, gradients and Hessians in the outputs u of the last layer, and what is explained.

    Attributes:
        phi: features of the training examples and a 1, shape (n, d).
        psi: of the evaluated ones, shape (m, d).
        weights: of the training examples, shape (n,).
        gradients: of the training losses times the weights, shape (n, u).
        hessians: of the same, shape (n, u, u).
        outputs: of the evaluated examples, shape (m, u).
        explained: output of each evaluated example, shape (m,).
    """

    def __init__(self, kind: Kind) -> None:
        inputs, labels = kind.arrays
        features = np.asarray(kind.features(tf.nest.map_structure(tf.constant, inputs)), np.float64)
        features = np.concatenate([features, np.ones((*features.shape[:-1], 1))], axis=-1)
        labels = labels["price"] if isinstance(labels, dict) else labels
        kernel, bias = kind.model.split.head.layer.get_weights()
        self.theta = np.vstack([kernel, bias]).astype(np.float64)
        self.phi, self.psi, own = features[:NUM_TRAIN], features[NUM_TRAIN:], labels[:NUM_TRAIN]
        if kind.pairs is not None:
            kept = tuple(kind.pairs.T)
            self.phi, own, self.psi = self.phi[kept], own[kept], self.psi[:, POSITION]
        self.kind, self.labels, self.num = kind, own, len(self.phi)
        self.weights = np.ones(self.num) if kind.sample_weight is None else kind.sample_weight
        self.outputs = self.psi @ self.theta
        self.is_softmax, self.is_binary = kind.loss is cross_entropy, kind.loss is binary and self.width == 1
        self.explained = self._explained()
        self.gradients, self.hessians = self.derivatives(self.theta)

    @property
    def width(self) -> int:
        return self.theta.shape[1]

    def _explained(self) -> np.ndarray:
        if self.is_binary:
            return (self.outputs[:, 0] > 0).astype(int)
        return (
            self.outputs.argmax(axis=1) if self.kind.target == "prediction" else np.full(5, self.kind.target)
        )

    def derivatives(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return gradients (n, u) and Hessians (n, u, u) of the weighted losses in the outputs."""
        outputs = tf.constant(self.phi @ theta)
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(outputs)
            with tf.GradientTape() as inner:
                inner.watch(outputs)
                found = self.kind.loss(self.labels, outputs)
            gradients = inner.gradient(found, outputs)
        hessians = outer.batch_jacobian(gradients, outputs, experimental_use_pfor=False).numpy()
        return self.weights[:, None] * gradients.numpy(), self.weights[:, None, None] * hessians

    def value(self, outputs: np.ndarray) -> np.ndarray:
        """Return what influence functions explain, of outputs (m, ..., u): a loss, or minus an output."""
        if self.is_binary:
            signs = (1 - 2 * self.explained).reshape(-1, *[1] * (outputs.ndim - 2))
            return np.logaddexp(0, signs * outputs[..., 0])
        rows = np.arange(len(outputs))
        own = outputs[rows, ..., self.explained]
        return scipy.special.logsumexp(outputs, axis=-1) - own if self.is_softmax else -own

    @property
    def directions(self) -> np.ndarray:
        """Gradients of the explained outputs themselves, shape (m, u)."""
        return self.explained[:, None] - 0.5 if self.is_binary else np.eye(self.width)[self.explained]

    @property
    def query_gradients(self) -> np.ndarray:
        """Gradients of `value`, shape (m, u)."""
        if self.is_binary:
            return scipy.special.expit(self.outputs) - self.explained[:, None]
        gradients = -self.directions
        return gradients + scipy.special.softmax(self.outputs, axis=1) if self.is_softmax else gradients

    @property
    def kernel(self) -> np.ndarray:
        """Inner products of features, shape (m, n)."""
        return self.psi @ self.phi.T

    def hessian(self, hessians: np.ndarray, damping: float = 0.1) -> np.ndarray:
        """Return that of the mean loss in the weights (u, d), damped by a share of its mean eigenvalue."""
        found = np.einsum("nab,ni,nj->aibj", hessians, self.phi, self.phi) / self.num
        found = found.reshape(2 * [self.theta.size])
        return found + damping * np.trace(found) / len(found) * np.eye(len(found))

    def in_weights(self, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
        return (rows[:, :, None] * features[:, None]).reshape(len(rows), -1)

    def graddot(self) -> np.ndarray:
        return self.query_gradients @ self.gradients.T * self.kernel

    def gradcos(self) -> np.ndarray:
        return self.graddot() / np.outer(
            np.linalg.norm(self.in_weights(self.query_gradients, self.psi), axis=1), self._lengths()
        )

    def _lengths(self) -> np.ndarray:
        lengths = np.linalg.norm(self.in_weights(self.gradients, self.phi), axis=1)
        return np.where(lengths > 0, lengths, 1.0)

    def sim(self) -> np.ndarray:
        signs = self.labels[:, None] - 0.5 if self.is_binary else np.eye(self.width)[self.labels]
        lengths = np.linalg.norm(self.in_weights(signs, self.phi), axis=1)
        return self.directions @ signs.T * self.kernel / lengths * (self.weights > 0)

    def _solved(self) -> np.ndarray:
        return np.linalg.solve(self.hessian(self.hessians), self.in_weights(self.gradients, self.phi).T).T

    def first_order(self) -> np.ndarray:
        return self.in_weights(self.query_gradients, self.psi) @ self._solved().T / self.num

    def relatif(self) -> np.ndarray:
        lengths = np.linalg.norm(self._solved(), axis=1)
        return self.num * self.first_order() / np.where(lengths > 0, lengths, 1.0)

    def _own_hessian(self, index: int) -> np.ndarray:
        """Return that of the loss of one example, by n."""
        row = self.phi[index]
        return np.kron(self.hessians[index], np.outer(row, row)) / self.num

    def leverage_corrected(self) -> np.ndarray:
        """Return the change of the value by one Newton step on the others."""
        matrix, gradients = self.hessian(self.hessians), self.in_weights(self.gradients, self.phi)
        steps = [
            np.linalg.solve(matrix - self._own_hessian(i), gradients[i] / self.num) for i in range(self.num)
        ]
        steps = np.stack(steps).reshape(self.num, self.width, -1)
        changed = self.outputs[:, None] + np.einsum("nud,md->mnu", steps, self.psi)
        return self.value(changed) - self.value(self.outputs)[:, None]

    def second_order(self) -> np.ndarray:
        shares = self.weights / self.weights.sum()
        gradients = self.in_weights(self.gradients, self.phi)
        bent = np.stack([self._own_hessian(i) @ row for i, row in enumerate(self._solved())])
        rows = ((1 - 2 * shares)[:, None] * gradients + bent) / (1 - shares[:, None]) ** 2
        solved = np.linalg.solve(self.hessian(self.hessians), rows.T)
        return self.in_weights(self.query_gradients, self.psi) @ solved / self.num

    def trak(self) -> np.ndarray:
        """Return it for one output; of two classes the margin is plus or minus that output."""
        gram = self.phi.T @ (self.weights[:, None] * self.phi)
        gram += 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
        signs = np.sign(self.directions) if self.is_binary else 1.0
        return -signs * (self.psi @ np.linalg.solve(gram, self.phi.T)) * self.gradients[:, 0]

    def feature_similarity(self) -> np.ndarray:
        psi, phi = (
            rows[:, :-1] / np.linalg.norm(rows[:, :-1], axis=1, keepdims=True)
            for rows in (self.psi, self.phi)
        )
        if self.is_softmax or self.is_binary:
            signs = np.where(self.explained[:, None] == self.labels, 1.0, -1.0)
        else:
            signs = 2 * self.labels.T[self.explained] - 1 if self.kind.loss is binary else 1.0
        return signs * (psi @ phi.T)

    def rps_lje(self) -> np.ndarray:
        """Return it at theta itself: one step of size gamma is too small to be seen."""
        gradients = self.in_weights(self.gradients, self.phi)
        shares = self.weights / self.weights.mean()
        rows = self.theta.T.ravel() + np.linalg.solve(self.hessian(self.hessians), gradients.mean(axis=0))
        rows = shares[:, None] * rows - self._solved()
        return self.in_weights(self.directions, self.psi) @ rows.T / self.num

    def rps_l2(self, calculator: Any) -> np.ndarray:
        """Return it by the gradients at the retrained layer, which must be the sum of what it consists of."""
        layer = np.vstack([calculator.surrogate_weights, calculator.surrogate_bias])
        layer = 2 * layer[:, 1:] if self.is_binary else layer
        alpha = -self.derivatives(layer)[0] / (2 * calculator.lambda_regularization * self.num)
        np.testing.assert_allclose(self.phi.T @ alpha, layer, rtol=1e-3, atol=1e-3 * np.abs(layer).max())
        return self.directions @ alpha.T * self.kernel
