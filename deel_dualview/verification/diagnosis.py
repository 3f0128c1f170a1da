"""diagnose: whether what a method assumes holds for a model and its training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_instance, check_k, require
from deel_dualview._summaries import to_html, to_text
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.unrolled import UnrolledInfluenceCalculator
from deel_dualview.models.checkpoints import Checkpoints
from deel_dualview.search import block_top_k
from deel_dualview.stores import MemoryStore
from deel_dualview.stores.features import stored_features
from deel_dualview.verification.results import rank_correlation

_FEWEST_CHECKPOINTS = 3
_NUM_REMOVALS, _SHARE_REMOVED = 3, 0.01


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `diagnose` finds; None where it was not requested, or cannot be known.

    Attributes:
        repeatability: largest difference between two computations of the same influence values, as a share of the
            largest value; 0 where both are equal to the last bit.
        gradient: norm of the mean gradient of the training loss in the last layer over the mean norm of its
            examples' gradients: 0 at an optimum of the loss, 1 where all examples push the same way. (With weight
            decay the optimum of loss and penalty leaves some.)
        last_change: how far the weights moved between the last two checkpoints, in units of the mean over all: 0 for
            a training that has come to rest, 1 for one that moves on as before.
        rank_correlation: Spearman's, of all influence values with those of the other calculator; mean over queries.
        overlap: share of the k strongest proponents that both calculators name.
        k: of the overlap.
        smoothness: of a recorded training, rank correlation of the changes of the outputs without some random examples
            and with half their weight: 1 where a derivative says what a removal does, 0 where it says nothing.
    """

    repeatability: float
    gradient: float | None
    last_change: float | None
    rank_correlation: float | None
    overlap: float | None
    k: int
    smoothness: float | None = None

    def summary(self) -> dict[str, str]:
        """Return what stands in the text and in the table of a notebook, by name."""
        shown = {"computed twice": f"differs by {self.repeatability:.1g} of the largest value"}
        if self.gradient is not None:
            shown["gradient that training has left"] = (
                f"{self.gradient:.2g} (0 at an optimum, 1 far from one)"
            )
        if self.last_change is not None:
            shown["last change of the weights"] = f"{self.last_change:.2g} of the mean one (0 at rest)"
        if self.smoothness is not None:
            shown["smoothness of the training"] = (
                f"{self.smoothness:.2f} (1 where half a removal is half the change, 0 where it says nothing)"
            )
        if self.rank_correlation is not None:
            text = f"rank correlation {self.rank_correlation:.2f}, {self.overlap:.0%} of {self.k} proponents in common"
            shown["other seed"] = text
        return shown

    def __repr__(self) -> str:
        return to_text("Diagnosis", self.summary())

    def _repr_html_(self) -> str:
        return to_html("Diagnosis", self.summary())


def diagnose(
    calculator: BaseInfluenceCalculator,
    queries: tf.data.Dataset,
    *,
    other: BaseInfluenceCalculator | None = None,
    checkpoints: Checkpoints | None = None,
    k: int = 5,
) -> Diagnosis:
    """Measure whether what a method assumes holds here: in seconds, and before training again by `verify`.

    Of an `UnrolledInfluenceCalculator` the recorded training is run six times more, for its smoothness.

    Args:
        calculator: of any method.
        queries: a bounded, batched dataset of some evaluated examples.
        other: the same method with another seed (TRAK, Arnoldi, LiSSA), or on a model that was trained on the same
            training set with another seed.
        checkpoints: of the training run, at least three.
        k: proponents that are compared.

    Raises:
        TypeError: something else than calculators, or checkpoints of another type.
        ValueError: a calculator of another training set, k out of range, fewer than three checkpoints.

    Example:
        ```python
        other = Trak(model, train, projection=GaussianProjection(512, seed=1))
        print(diagnose(Trak(model, train), test.take(1), other=other))
        ```
    """
    if not isinstance(calculator, BaseInfluenceCalculator):
        raise TypeError(f"`diagnose` needs a calculator. Received: calculator={type(calculator).__name__}.")
    check_instance("other", other, BaseInfluenceCalculator, "Trak(model, train_set)")
    check_instance("checkpoints", checkpoints, Checkpoints, "load_checkpoints(directory, model)")
    require(
        other is None or other.model.num_outputs == calculator.model.num_outputs,
        "`other` must be of a model with the same outputs.",
        {
            "outputs": calculator.model.num_outputs,
            "of the other": None if other is None else other.model.num_outputs,
        },
    )
    check_k(k, calculator.num_train)
    require(
        other is None or other.num_train == calculator.num_train,
        "`other` must be of the same training set.",
        {"num_train": calculator.num_train, "of the other": None if other is None else other.num_train},
    )
    last_change = None if checkpoints is None else _last_change(checkpoints)
    correlations, overlaps, largest, error = [], [], 0.0, 0.0
    for first, second in zip(_values(calculator, queries), _values(calculator, queries), strict=True):
        largest, error = max(largest, np.abs(first).max()), max(error, np.abs(first - second).max())
    if other is not None:
        for first, second in zip(_values(calculator, queries), _values(other, queries), strict=True):
            correlations += [
                rank_correlation(np.stack(rows, axis=1)) for rows in zip(first, second, strict=True)
            ]
            overlaps += list(_overlaps(first, second, k))
    return Diagnosis(
        repeatability=float(error / largest) if largest else 0.0,
        gradient=_gradient(calculator),
        last_change=last_change,
        rank_correlation=float(np.nanmean(correlations)) if correlations else None,
        overlap=float(np.mean(overlaps)) if overlaps else None,
        k=k,
        smoothness=(
            _smoothness(calculator, queries) if isinstance(calculator, UnrolledInfluenceCalculator) else None
        ),
    )


def _smoothness(calculator: UnrolledInfluenceCalculator, queries: tf.data.Dataset) -> float | None:
    """Return the mean rank correlation of the changes of outputs without random examples, and with half of each.

    None where no output changes.
    """
    training, rng, found = calculator.training, np.random.default_rng(0), []
    batches = [data.unpack(element).inputs for element in queries]

    def outputs(weights: np.ndarray | None) -> np.ndarray:
        trained = None if weights is None else training.retrain(weights)
        return np.concatenate([training.outputs(inputs, trained).reshape(-1) for inputs in batches])

    before = outputs(None)
    for _ in range(_NUM_REMOVALS):
        count = max(1, round(_SHARE_REMOVED * training.num_train))
        without = training.without(rng.choice(training.num_train, count, replace=False))
        halved = (without + training.weights) / 2
        changes = [outputs(weights) - before for weights in (without, halved)]
        found.append(rank_correlation(np.stack(changes, axis=1)))
    return None if np.isnan(found).all() else float(np.nanmean(found))


def _values(calculator: BaseInfluenceCalculator, queries: tf.data.Dataset) -> Iterator[np.ndarray]:
    for values in calculator.estimate_influence_values_in_batches(queries):
        yield values.numpy()


def _overlaps(first: np.ndarray, second: np.ndarray, k: int) -> np.ndarray:
    """Return the share of common proponents for every query, shape (m,)."""
    columns = np.arange(first.shape[1])
    one, two = (block_top_k(values, columns, k)[1] for values in (first, second))
    return (one[:, :, np.newaxis] == two[:, np.newaxis]).any(axis=2).mean(axis=1)


def _gradient(calculator: BaseInfluenceCalculator) -> float | None:
    """Return ||mean gradient|| / mean ||gradient|| in the last layer, None where there is no linear one."""
    model = calculator.model
    if model.head is None or model.num_axes:
        return None
    store = calculator.store if calculator.follows_from_features else MemoryStore()
    total: np.ndarray | float = 0.0
    norms = 0.0
    for block in stored_features(store, model, calculator.train_set):
        features, labels = block["features"].astype(np.float64), block["labels"]
        outputs = model.logits_of_features(tf.constant(block["features"]))
        errors = model.objective.loss_gradient(outputs, tf.constant(labels)).numpy().astype(np.float64)
        weights = model.example_weights(labels, block.get("sample_weight"))
        if weights is not None:
            errors *= weights[:, np.newaxis]
        if model.head.has_bias:
            features = np.hstack([features, np.ones((len(features), 1))])
        total = total + errors.T @ features
        norms += float(np.sum(np.linalg.norm(errors, axis=1) * np.linalg.norm(features, axis=1)))
    return float(np.linalg.norm(total) / norms) if norms else 0.0


def _last_change(checkpoints: Checkpoints) -> float:
    """Return the last change of the weights in units of the mean one."""
    require(
        len(checkpoints.models) >= _FEWEST_CHECKPOINTS,
        f"At least {_FEWEST_CHECKPOINTS} checkpoints show whether the weights come to rest.",
        {"checkpoints": len(checkpoints.models)},
    )
    weights = [
        np.concatenate([np.ravel(own.numpy()) for own in model.model.trainable_variables])
        for model in checkpoints.models
    ]
    changes = [np.linalg.norm(after - before) for before, after in zip(weights, weights[1:], strict=False)]
    return float(changes[-1] / np.mean(changes)) if any(changes) else 0.0
