"""One kind of Table 2's models as features, labels and queries, for experiments on attributions of a last layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.metrics import roc_auc_score

from deel_dualview import InfluenceModel
from deel_dualview.evaluation import Recipe, load_images, subject

NUM_TEST = 4000
MARKED_CLASS = 2
Values = Callable[[np.ndarray, int], np.ndarray]


class Case:
    """Features, labels and queries of one kind of model."""

    def __init__(
        self, data: str, kind: str, seed: int, models: str, data_dir: str | None, recipe: Recipe | None = None
    ) -> None:
        images = load_images(data, data_dir)
        chosen = subject(data, kind, seed, directory=models, data_dir=data_dir, recipe=recipe)
        model = InfluenceModel(chosen.model)
        parts = [(model.features(inputs).numpy(), labels.numpy()) for inputs, labels in chosen.train]
        self.kind = kind
        self.features = np.concatenate([part[0] for part in parts])
        self.labels = np.concatenate([part[1] for part in parts]).astype(np.int64)
        self.subclasses = images.train_labels
        self.num_classes = int(self.labels.max()) + 1
        rows = np.random.default_rng(seed).permutation(len(images.test_labels))[
            len(images.test_labels) // 5 :
        ]
        tests = images.test_images[rows]
        if kind == "marked":
            tests = np.asarray(chosen.truth.mark(tests))
            self.is_marked = chosen.truth.is_marked(len(self.labels))
        if kind == "poisoned":
            self.is_poisoned = chosen.truth.is_poisoned(len(self.labels))
        blocks = [model.features_and_logits(tests[i : i + 500]) for i in range(0, len(tests), 500)]
        self.queries = np.concatenate([block[0] for block in blocks])
        self.explained = np.concatenate([block[1] for block in blocks]).argmax(axis=1)
        self.truth = images.test_labels[rows]
        kept = np.arange(len(rows)) < NUM_TEST
        if kind == "marked":
            kept = (self.truth != MARKED_CLASS) & (self.explained == MARKED_CLASS)
        self.queries, self.explained, self.truth = (
            array[kept] for array in (self.queries, self.explained, self.truth)
        )
        head = model.head
        self.kernel = head.kernel

    def first(self, size: int) -> Case:
        """Return the same case with its first queries only."""
        fewer = copy.copy(self)
        fewer.queries, fewer.explained, fewer.truth = (
            array[:size] for array in (self.queries, self.explained, self.truth)
        )
        return fewer

    def score(self, alpha: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> float | None:
        """Return the metric of this kind of model for values alpha_ic <phi_i, psi_t>, c the explained class."""
        return self.score_rows(products(alpha, phi, psi))

    def score_rows(self, values_of: Values) -> float | None:
        """Return the metric, from a function of rows of one explained class and that class; None of no example."""
        if self.kind == "poisoned":
            shares = np.zeros(len(self.labels))
            for _, values in self._blocks(values_of):
                sizes = np.abs(values)
                shares += (sizes / np.maximum(sizes.max(axis=1, keepdims=True), 1e-30)).sum(axis=0)
            return round(float(roc_auc_score(self.is_poisoned, shares)), 4)
        hits = self._hits(self.answers(values_of))
        return round(float(hits.mean()), 4) if len(hits) else None

    def variety(self, values_of: Values) -> float | None:
        """Return the number of different first proponents as a share of the queries; None of no query."""
        found = self.answers(values_of)
        return round(len(np.unique(found)) / len(found), 4) if len(found) else None

    def answers(self, values_of: Values) -> np.ndarray:
        """Return the position of the first proponent of every query."""
        found = np.zeros(len(self.queries), np.int64)
        for rows, values in self._blocks(values_of):
            found[rows] = values.argmax(axis=1)
        return found

    def _blocks(self, values_of: Values) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for c in np.unique(self.explained):
            rows = np.flatnonzero(self.explained == c)
            for start in range(0, len(rows), 256):
                block = rows[start : start + 256]
                yield block, values_of(block, c)

    def _hits(self, first: np.ndarray) -> np.ndarray:
        if self.kind == "marked":
            return self.is_marked[first]
        if self.kind == "superclass":
            return self.subclasses[first] == self.truth
        return self.labels[first] == self.explained


def products(alpha: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> Values:
    """Return what `Case.score_rows` takes: alpha_ic <phi_i, psi_t> of some queries of one explained class."""
    return lambda rows, c: (psi[rows] @ phi.T) * alpha[:, c].astype(np.float32)[np.newaxis, :]
