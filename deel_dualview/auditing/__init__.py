"""audit: from a trained Keras model and its data to a report of findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_k, describe, require
from deel_dualview.auditing import labels, leaks, predictions, summary, surrogate
from deel_dualview.auditing.duplicates import Sketcher
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.reading import SplitContents, gather_inputs, read_contents, references_in
from deel_dualview.auditing.steps import Steps
from deel_dualview.calculators.dualview import DualView
from deel_dualview.models import InfluenceModel
from deel_dualview.report import AuditReport
from deel_dualview.report.findings import Faithfulness, Finding, Severity
from deel_dualview.stores import MemoryStore

_NUM_STEPS = 7


class _Splits(NamedTuple):
    """Both datasets with what one pass over each has kept."""

    train_set: tf.data.Dataset
    test_set: tf.data.Dataset
    train: SplitContents
    test: SplitContents


def audit(
    model: keras.Model | InfluenceModel,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    *,
    k: int = 5,
    calculator: DualView | Callable[..., DualView] | None = None,
    class_names: Sequence[str] | None = None,
    known_label_errors: Sequence[int] | np.ndarray | None = None,
    progress: bool = True,
) -> AuditReport:
    """Audit a trained classifier and the data that it was trained on.

    Reads `train` three times (features, contents, the examples that are shown) and `test` five times;
    examples themselves are kept only if they are shown.

    Args:
        model: a Keras 3 classifier, or an InfluenceModel where its features have to be named.
        train: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`; the same
            examples in the same order at every pass.
        test: batched examples that were not trained on; without labels, uncertain predictions take the place
            of wrong ones.
        k: proponents and opponents that are shown of every explained prediction.
        calculator: a DualView of this model and training set with settings of your own, target "prediction"; or
            what makes one of them, for instance `functools.partial(DualView, K=0.1)`.
        class_names: one for each class; their numbers by default.
        known_label_errors: positions of training examples known to be mislabelled. The report then tells how
            many of them it would have found.
        progress: whether steps are shown by bars (on a terminal only).

    Returns:
        The findings; `report.to_html("audit")` writes them down.

    Raises:
        TypeError: `model` or a dataset is of another type.
        ValueError: data that cannot be audited, or arguments that do not fit each other.
    """
    _check_datasets(train, test)
    influence_model = model if isinstance(model, InfluenceModel) else InfluenceModel(model)
    steps = Steps(_NUM_STEPS, progress=progress)
    try:
        with steps.step("Features and surrogate"):
            if not isinstance(calculator, DualView):
                make = calculator or DualView
                calculator = make(influence_model, train, store=MemoryStore(progress=progress))
            names, known = _check_settings(calculator, influence_model, k, class_names, known_label_errors)
        with steps.step("Contents of both sets"):
            sketcher = Sketcher()
            splits = _Splits(train, test, read_contents(train, sketcher), read_contents(test, sketcher))
            _check_same_examples(calculator, splits)
        with steps.step("Predictions and attributions"):
            evidence, kernel_features = _gather_evidence(calculator, splits, k)
        with steps.step("Fidelity"):
            faithfulness = surrogate.find_faithfulness(calculator.surrogate_fidelity(test))
        with steps.step("Other values of K"):
            path = surrogate.find_sparsity_path(evidence, kernel_features, surrogate.fit_path(calculator))
        with steps.step("Wrong labels and predictions"):
            first: list[Finding] = [
                labels.find_label_errors(evidence, known),
                predictions.find_wrong_predictions(evidence),
            ]
            influential = predictions.find_influential_examples(evidence)
        with steps.step("Duplicates and pictures"):
            found, shown = _find_leaks(evidence, splits, [*first, influential])
        head = summary.summarise(
            calculator, evidence, names, settings=summary.describe_settings(calculator, k), steps=steps
        )
    finally:
        steps.close()
    return AuditReport(
        overview=head,
        findings=_in_order(faithfulness, [*first, *found, influential], path),
        attributions=evidence.attributions,
        arrays=_arrays(evidence),
        shown=shown,
    )


def _in_order(faithfulness: Faithfulness, about_data: list[Finding], path: Finding) -> list[Finding]:
    """Put the surrogate before what it says if it is not to be trusted, else after."""
    if faithfulness.severity is Severity.WARNING:
        return [faithfulness, *about_data, path]
    return [*about_data, faithfulness, path]


def _gather_evidence(calculator: DualView, splits: _Splits, k: int) -> tuple[Evidence, np.ndarray]:
    """Ask the calculator for what findings are made of; also the kernel features (m, d) of the test set."""
    model, solution = calculator.model, calculator.surrogate
    evaluations = list(calculator.evaluate(splits.test_set))
    kernel_features = np.concatenate([batch.kernel_features for batch in evaluations])
    logits = np.concatenate([batch.model_logits for batch in evaluations]).astype(np.float64)
    test_labels = splits.test.labels
    evidence = Evidence(
        num_classes=model.num_classes,
        k=k,
        train_labels=calculator.train_labels,
        train_ids=calculator.train_ids,
        slack=solution.slack,
        suggested_labels=calculator.suggested_labels,
        self_influence=np.concatenate(
            list(calculator.compute_influence_values(splits.train_set).as_numpy_iterator())
        ),
        support_vectors=np.bincount(solution.coefficients.indices, minlength=model.num_classes),
        test_labels=None if test_labels is None else model.to_classes(test_labels),
        test_ids=splits.test.ids,
        predictions=logits.argmax(axis=1),
        confidences=1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1),
        attributions=calculator.sparse_influence_values(splits.test_set),
        surrogate_logits=np.concatenate([batch.surrogate_logits for batch in evaluations]),
        logit_error_bounds=solution.weight_error_bound * np.linalg.norm(kernel_features, axis=1),
    )
    return evidence, kernel_features


def _find_leaks(evidence: Evidence, splits: _Splits, others: list[Finding]) -> tuple[list[Finding], dict]:
    """Find duplicates, and fetch them together with the examples that the other findings show."""
    candidates = leaks.find_candidates(splits.train, splits.test, evidence.train_labels, slack=evidence.slack)
    train_indices, test_indices = leaks.indices_to_read(candidates)
    references = list(references_in(others))
    train_indices |= {item.index for item in references if item.split == "train"}
    test_indices |= {item.index for item in references if item.split == "test"}
    contents = {
        **_keyed("train", gather_inputs(splits.train_set, train_indices, splits.train.hashes)),
        **_keyed("test", gather_inputs(splits.test_set, test_indices, splits.test.hashes)),
    }
    found: list[Finding] = [
        leaks.find_leaks(evidence, candidates, contents),
        leaks.find_conflicting_duplicates(evidence, candidates, contents),
    ]
    needed = {(item.split, item.index) for item in references_in([*others, *found])}
    return found, {key: contents[key] for key in sorted(needed)}


def _keyed(split: str, contents: dict[int, object]) -> dict[tuple[str, int], object]:
    return {(split, index): example for index, example in contents.items()}


def _arrays(evidence: Evidence) -> dict[str, np.ndarray]:
    """Choose what goes beside the attributions; ids as text or integers, never as objects."""
    arrays = {
        "test_predictions": evidence.predictions,
        "test_confidences": evidence.confidences.astype(np.float32),
        "surrogate_logits": evidence.surrogate_logits.astype(np.float32),
        "train_labels": evidence.train_labels,
        "train_slack": evidence.slack.astype(np.float32),
        "train_suggested_labels": evidence.suggested_labels,
        "train_self_influence": evidence.self_influence.astype(np.float32),
    }
    if evidence.test_labels is not None:
        arrays["test_labels"] = evidence.test_labels
    for name, ids in (("train_ids", evidence.train_ids), ("test_ids", evidence.test_ids)):
        if ids is not None:
            arrays[name] = ids if ids.dtype.kind in "iu" else ids.astype(np.bytes_)
    return arrays


def _check_datasets(train: tf.data.Dataset, test: tf.data.Dataset) -> None:
    for name, dataset in (("train", train), ("test", test)):
        data.check_batched(dataset, name)
        data.check_same_twice(dataset, name)
    structures = [data.unpack(dataset.element_spec).inputs for dataset in (train, test)]
    try:
        tf.nest.assert_same_structure(*structures, expand_composites=True)
    except (ValueError, TypeError) as error:
        raise ValueError(
            describe(
                "`train` and `test` must have inputs of the same structure.",
                {"train inputs": structures[0], "test inputs": structures[1]},
            )
        ) from error


def _check_settings(
    calculator: DualView,
    model: InfluenceModel,
    k: int,
    class_names: Sequence[str] | None,
    known: Sequence[int] | np.ndarray | None,
) -> tuple[list[str], np.ndarray | None]:
    """Return the names of the classes and the positions of known label errors, checked."""
    require(
        calculator.target == "prediction",
        "An audit explains the model's predictions: build the calculator with target='prediction'.",
        {"target": calculator.target},
    )
    require(
        calculator.model is model or calculator.model.model is model.model,
        "The calculator explains another model than the one to audit: build it with this one.",
        {"calculator.model": calculator.model},
    )
    check_k(k, calculator.num_train)
    names = [str(name) for name in (range(model.num_classes) if class_names is None else class_names)]
    require(
        len(names) == model.num_classes,
        f"`class_names` must name the {model.num_classes} classes of the model.",
        {"len(class_names)": len(names)},
    )
    if known is None:
        return names, None
    positions = np.unique(np.asarray(known).astype(np.int64))
    require(
        not len(positions) or (positions[0] >= 0 and positions[-1] < calculator.num_train),
        f"`known_label_errors` are positions 0..{calculator.num_train - 1} of the training set.",
        {"known_label_errors": known},
    )
    return names, positions


def _check_same_examples(calculator: DualView, splits: _Splits) -> None:
    require(
        len(splits.train.hashes) == calculator.num_train,
        "`train` must be the training set that the calculator was built with.",
        {"examples": len(splits.train.hashes), "calculator.num_train": calculator.num_train},
    )
