"""audit: from a trained Keras model and its data to a report of findings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, check_k, describe, require
from deel_dualview.auditing import (
    data_checks,
    grouping,
    input_checks,
    labels,
    leaks,
    pairs,
    predictions,
    summary,
    surrogate,
    weak_groups,
)
from deel_dualview.auditing.collecting import Splits, gather_from_surrogate, gather_without_surrogate
from deel_dualview.auditing.evidence import Evidence, id_arrays
from deel_dualview.auditing.layers import Layers, read_test_layers, read_training_layers
from deel_dualview.auditing.reading import gather_inputs, references_in
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.dualview import DualView
from deel_dualview.calculators.fidelity import SurrogateFidelity
from deel_dualview.calculators.method_specs import Given, resolve
from deel_dualview.calculators.methods import AUDIT_SETTINGS
from deel_dualview.labels import (
    InputTable,
    LabelIssues,
    Representation,
    Representations,
    check_pred_probs,
    find_label_issues,
    representation,
    takes_token_ids,
)
from deel_dualview.metrics.flags import checked_marks, marks_to_flags
from deel_dualview.models import InfluenceModel
from deel_dualview.models.arrays import Data, check_same_index, column_names, to_datasets
from deel_dualview.models.labels import check_class_names
from deel_dualview.models.train_sets import with_own_labels
from deel_dualview.plots.formatting import check_names
from deel_dualview.report import AuditReport
from deel_dualview.report.changes import find_changes, read_earlier
from deel_dualview.report.findings import Faithfulness, Finding, Severity
from deel_dualview.report.provenance import Steps
from deel_dualview.stores import MemoryStore

_NUM_STEPS, _NUM_STEPS_OF_SURROGATE = 9, 2


def audit(
    model: keras.Model | InfluenceModel,
    train: Data,
    test: Data,
    *,
    k: int = 5,
    method: Given = "dualview",
    class_names: Sequence[str] | None = None,
    known_label_errors: Sequence[int] | Sequence[bool] | np.ndarray | None = None,
    pred_probs: np.ndarray | None = None,
    relevance: pairs.Rule | None = pairs.DEFAULT_RULE,
    input_names: Sequence[str] | None = None,
    groups: Any = None,
    since: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> AuditReport:
    """Audit a trained classifier and the data that it was trained on.

    The network runs once over each set where the method works in the last layer; both are read for their contents,
    for features, and for the examples that are shown, which alone are kept. Label issues are those of `label_issues`,
    whatever the method.

    Args:
        model: a Keras 3 classifier, or an InfluenceModel where its features have to be named.
        train: its training set: a dataset of batches `(inputs, labels)` or `(inputs, labels, ids)`, the same examples
            in the same order at every pass; or arrays or DataFrames `(x, y)` or `(x, y, ids)` (the index of a
            DataFrame is taken as ids unless it is the default one); or a `PyDataset`.
        test: examples that were not trained on, in any of these forms; without labels (`(x,)`), uncertain predictions
            take the place of wrong ones.
        k: proponents and opponents that are shown of every explained prediction.
        method: the name of a method (`deel_dualview.METHODS` has them), perhaps with settings
            ("dualview?K=0.1"); or what makes a calculator from model and training set, for instance
            `functools.partial(DualView, K=0.1)`; or a calculator of this model and training set, target
            "prediction". Any other than DualView has no surrogate: sections about it are left out, and of the
            influence values only the k strongest on either side are kept.
        class_names: one for each class; their numbers by default.
        known_label_errors: which training examples are known to be mislabelled: positions (integers from 0, each
            once), or one flag for each example, as `deel_dualview.metrics` takes them. The report then tells how many
            of them it would have found.
        pred_probs: probabilities of the training examples by a model that has not seen their labels, shape (n, c); see
            `label_issues`.
        relevance: the rule of `DualRelevance` by which every explained prediction shows what in it, and in its
            training examples, carries the influence; None for none. Where the method or the model does not
            allow it, the report says why.
        input_names: what the numbers of an input stand for: the names of the columns of a table, or the words of
            a text's tokens by their number (`TextVectorization.get_vocabulary()`). Those of a DataFrame's columns by
            default.
        groups: values of the test examples by which they are grouped to find groups that the model is weak in, beside
            those that it looks for itself: an array or a Series (m,), or a dict or DataFrame of several.
        since: the `audit.json` of an earlier audit of these classes: the report then says what has changed.
        progress: whether steps are shown by bars (on a terminal only).

    Returns:
        The findings; `report.to_html("audit")` writes them down.

    Raises:
        TypeError: `model` or a dataset is of another type.
        ValueError: data that cannot be audited, or arguments that do not fit each other.
    """
    check_count("k", k)
    earlier = None if since is None else read_earlier(since)
    pairs.check_rule(relevance)
    if known_label_errors is not None:
        checked_marks("known_label_errors", known_label_errors)
    influence_model = model if isinstance(model, InfluenceModel) else InfluenceModel(model)
    if input_names is None:
        input_names = column_names(train, influence_model.model)
    shown_names = check_names("input_names", input_names)
    check_same_index(test[0] if isinstance(test, tuple) else None, groups, "`groups`")
    train, test = to_datasets({"train": train, "test": test}, influence_model.model).values()
    train, test = (with_own_labels(influence_model, dataset) for dataset in (train, test))
    _check_datasets(train, test)
    inputs_spec = data.unpack(train.element_spec).inputs
    pairs.check_fit(shown_names, inputs_spec, influence_model)
    spec = resolve(method, defaults=AUDIT_SETTINGS).check_checkpoints()
    ready = spec.method if isinstance(spec.method, BaseInfluenceCalculator) else None
    steps = Steps(_NUM_STEPS, progress=progress)
    try:
        with steps.step("Contents of both sets"):
            table = InputTable(has_token_ids=takes_token_ids(influence_model.model))
            splits = Splits.read(train, test, table)
            used = influence_model if ready is None else ready.model
            splits.check_labels(used)
            check_pred_probs(pred_probs, len(splits.train.hashes), used.num_classes)
            given = grouping.check_groups(
                groups, len(splits.test.hashes), has_labels=splits.test.labels is not None
            )
        with steps.step("Features of both sets"):
            store = MemoryStore(progress=progress)
            trained = read_training_layers(used, splits.train_set, store)
            tested = read_test_layers(used, splits.test_set)
        with steps.step("Set-up of the method"):
            made = spec.build(used, splits.train_set, store)
            names, known = _check_settings(made, influence_model, k, class_names, known_label_errors)
            _check_same_examples(made, splits)
            if earlier is not None:
                earlier.check_classes(names)
        if isinstance(made, DualView):
            about = _with_surrogate(made, splits, tested, k, steps)
        else:
            about = _without_surrogate(made, splits, tested, k, steps)
        with steps.step("Label issues"):
            issues = _find_label_issues(about.evidence, splits, (trained, tested), names, pred_probs)
            label_errors = labels.find_label_errors(about.evidence, issues, known)
        with steps.step("Data"):
            scale = list(
                data_checks.check_scale(trained.predictions, about.evidence.train_labels, table.ranges)
            )
            others = [
                *data_checks.find_outliers(about.evidence, trained.features, tested.features),
                *data_checks.find_weak_classes(about.evidence),
                input_checks.find_input_problems(about.evidence, splits, names, shown_names),
                *weak_groups.find_weak_groups(
                    about.evidence,
                    (trained.features, tested.features),
                    columns=grouping.columns_of(table, inputs_spec, shown_names),
                    given=given,
                ),
            ]
        with steps.step("Wrong predictions"):
            explained = predictions.with_likeness(
                predictions.find_wrong_predictions(about.evidence), trained.features, tested.features
            )
            influential = predictions.find_influential_examples(about.evidence)
        with steps.step("Duplicates and pictures"):
            found, shown = _find_leaks(
                about.evidence, splits, [label_errors, explained, influential, *others]
            )
        with steps.step("Relevance of pairs"):
            related = pairs.relate(made, relevance, explained, shown)
        described = spec.describe(made)
        head = summary.summarise(made, about.evidence, names, method=described, steps=steps)
    finally:
        steps.close()
    findings: list[Finding] = [
        *scale,
        *splits.not_finite(),
        *_in_order(about, [label_errors, related.finding, *found, *others, influential]),
    ]
    return AuditReport(
        overview=pairs.tell(head, relevance, related),
        findings=findings,
        attributions=about.evidence.attributions,
        arrays=_arrays(about.evidence, issues),
        label_issues=issues,
        shown=shown,
        relevance=related.maps,
        input_names=shown_names,
        changes=None if earlier is None else find_changes(earlier, findings),
    )


class _About(NamedTuple):
    """Findings by way of a calculator: evidence, and those about the surrogate, if any."""

    evidence: Evidence
    faithfulness: Faithfulness | None
    path: Finding | None


def _with_surrogate(calculator: DualView, splits: Splits, tested: Layers, k: int, steps: Steps) -> _About:
    steps.expect(_NUM_STEPS_OF_SURROGATE)
    with steps.step("Other values of K"):
        solutions = surrogate.fit_path(calculator)
    with steps.step("Predictions and attributions"):
        evaluated = tested.represented(calculator, splits.test_set)
        evidence, kernel_features = gather_from_surrogate(calculator, splits, evaluated, k)
    with steps.step("Fidelity"):
        faithfulness = surrogate.find_faithfulness(
            cast(SurrogateFidelity, calculator.surrogate_fidelity(evaluated))
        )
        path = surrogate.find_sparsity_path(evidence, kernel_features, solutions)
    return _About(evidence, faithfulness, path)


def _without_surrogate(
    calculator: BaseInfluenceCalculator, splits: Splits, tested: Layers, k: int, steps: Steps
) -> _About:
    with steps.step("Predictions and attributions"):
        evaluated = tested.represented(calculator, splits.test_set)
        evidence = gather_without_surrogate(calculator, splits, evaluated, k)
    return _About(evidence, None, None)


def _find_label_issues(
    evidence: Evidence,
    splits: Splits,
    layers: tuple[Layers, Layers],
    names: Sequence[str],
    pred_probs: np.ndarray | None,
) -> LabelIssues:
    trained, tested = layers
    found = find_label_issues(
        Representations(
            Representation(trained.features, tested.features),
            representation(trained.before, tested.before),
            Representation(*splits.table.rows()),
        ),
        evidence.train_labels,
        evidence.test_labels,
        (trained.predictions, tested.predictions),
        class_names=names,
        ids=evidence.train_ids,
        pred_probs=pred_probs,
    )
    return labels.without_broken(found, splits.train.not_finite)


def _in_order(about: _About, about_data: list[Finding]) -> list[Finding]:
    """Put the surrogate before what it says if it is not to be trusted, else after."""
    last = [] if about.path is None else [about.path]
    if about.faithfulness is None:
        return [*about_data, *last]
    if about.faithfulness.severity is Severity.ACT:
        return [about.faithfulness, *about_data, *last]
    return [*about_data, about.faithfulness, *last]


def _find_leaks(
    evidence: Evidence, splits: Splits, others: list[Finding]
) -> tuple[list[Finding], dict[tuple[str, int], object]]:
    """Find duplicates, and fetch all examples that a finding shows."""
    found = leaks.find_duplicates(evidence, splits.train, splits.test)
    needed = {(item.split, item.index) for item in references_in([*others, *found])}
    contents: dict[tuple[str, int], object] = {}
    for split, dataset, own in (
        ("train", splits.train_set, splits.train),
        ("test", splits.test_set, splits.test),
    ):
        indices = {index for name, index in needed if name == split}
        contents |= _keyed(split, gather_inputs(dataset, indices, own.hashes))
    return found, {key: contents[key] for key in sorted(needed)}


def _keyed(split: str, contents: dict[int, object]) -> dict[tuple[str, int], object]:
    return {(split, index): example for index, example in contents.items()}


def _arrays(evidence: Evidence, issues: LabelIssues) -> dict[str, np.ndarray]:
    """Choose what goes beside the attributions; ids as text or integers, never as objects."""
    arrays = {
        "test_predictions": evidence.predictions,
        "test_confidences": evidence.confidences.astype(np.float32),
        "train_labels": evidence.train_labels,
        "train_label_scores": issues.scores.astype(np.float32),
        "train_suggested_labels": issues.suggested_labels,
        "train_self_influence": evidence.self_influence.astype(np.float32),
    }
    if evidence.surrogate is not None:
        arrays["surrogate_logits"] = evidence.surrogate.logits.astype(np.float32)
    if evidence.test_labels is not None:
        arrays["test_labels"] = evidence.test_labels
    for name, ids in (("train_ids", evidence.train_ids), ("test_ids", evidence.test_ids)):
        if ids is not None:
            arrays |= id_arrays(name, ids)
    return arrays


def _check_datasets(train: tf.data.Dataset, test: tf.data.Dataset) -> None:
    for name, dataset in (("train", train), ("test", test)):
        data.check_bounded(dataset, name)
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
    calculator: BaseInfluenceCalculator,
    model: InfluenceModel,
    k: int,
    class_names: Sequence[str] | None,
    known: Sequence[int] | Sequence[bool] | np.ndarray | None,
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
    names = check_class_names(class_names, model.num_classes)
    if known is None:
        return names, None
    return names, np.flatnonzero(marks_to_flags("known_label_errors", known, calculator.num_train))


def _check_same_examples(calculator: BaseInfluenceCalculator, splits: Splits) -> None:
    require(
        len(splits.train.hashes) == calculator.num_train,
        "`train` must be the training set that the calculator was built with.",
        {"examples": len(splits.train.hashes), "calculator.num_train": calculator.num_train},
    )
