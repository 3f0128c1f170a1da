"""audit: from a trained Keras model and its data to a report of findings."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, check_instance, check_k, describe, require
from deel_dualview.auditing import data_checks, grouping, input_checks, leaks, pairs
from deel_dualview.auditing.audited import NUM_STEPS_OF_SURROGATE, Audited, AuditedClasses, Read
from deel_dualview.auditing.collecting import Splits
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.layers import read_test_layers, read_training_layers
from deel_dualview.auditing.outputs import AuditedOutputs
from deel_dualview.auditing.reading import gather_inputs, references_in
from deel_dualview.auditing.verifying import find_verified
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.method_specs import Given, resolve
from deel_dualview.calculators.methods import AUDIT_SETTINGS, METHODS
from deel_dualview.labels import (
    InputTable,
    ReviewedLabels,
    check_label_names,
    check_pred_probs,
    check_several_classes,
    takes_token_ids,
)
from deel_dualview.metrics.flags import checked_marks, marks_to_flags
from deel_dualview.models import InfluenceModel
from deel_dualview.models.arrays import Data, check_same_index, column_names, label_names, to_datasets
from deel_dualview.models.label_kinds import check_label_kind, explained_target, label_kind
from deel_dualview.models.labels import check_class_names, check_output_names
from deel_dualview.models.train_sets import with_own_labels, with_sample_weight
from deel_dualview.plots.formatting import check_names
from deel_dualview.report import AuditReport
from deel_dualview.report.changes import find_changes, read_earlier
from deel_dualview.report.findings import Finding, Severity
from deel_dualview.report.provenance import Steps
from deel_dualview.stores import Store
from deel_dualview.stores.budget import MemoryShares
from deel_dualview.stores.features import FeatureStore
from deel_dualview.stores.shared import shared_store
from deel_dualview.verification.retraining import check_retraining

_NUM_STEPS = 9


def audit(
    model: keras.Model | InfluenceModel,
    train: Data,
    test: Data,
    *,
    k: int = 5,
    method: Given = "dualview",
    class_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    label_unit: str = "",
    sample_weight: np.ndarray | None = None,
    known_label_errors: Sequence[int] | Sequence[bool] | np.ndarray | None = None,
    pred_probs: np.ndarray | None = None,
    relevance: pairs.Rule | None = pairs.DEFAULT_RULE,
    input_names: Sequence[str] | None = None,
    groups: Any = None,
    since: str | os.PathLike[str] | None = None,
    reviewed: Any = None,
    verify: int = 0,
    store: Store | None = None,
    memory_budget: int | None = None,
    progress: bool = True,
) -> AuditReport:
    """Audit a trained model and the data that it was trained on.

    The model is a classifier, one of independent labels, or a regression with one or several numbers. The network
    runs once over each set where the method works in the last layer; both are read for their contents, for features,
    and for the examples that are shown, which alone are kept. Label issues are those of `label_issues`, whatever the
    method. Of several numbers the first is explained, unless the method names another:
    `method=functools.partial(DualView, target=1)`.

    Args:
        model: a Keras 3 model, or an InfluenceModel where its features or its loss have to be named.
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
        class_names: one for each class; by default the columns of a DataFrame of one-hot labels, else their numbers.
        output_names: of a model that is no classifier, one for each number or label; by default the columns of a
            DataFrame of labels, else their numbers.
        label_unit: of the numbers of a regression, for instance "mm".
        sample_weight: of the training examples, shape (n,), as the model was trained with them: part of what the method
            explains. They may also stand in the training set, as `(inputs, labels, {"sample_weight": weights})`.
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
        reviewed: what was decided about labels in an earlier audit of a classifier: the `corrections.csv` that its page
            exports, or a DataFrame with its columns. Labels that it has as `right` are last in the order, and neither
            flagged nor listed. The corrections may be applied to `train`, or not.
        verify: how many predictions are checked, the explained ones first: the last layer is trained again without the
            proponents, without the opponents and without random examples, see `deel_dualview.verify`; 0 for none.
        store: where the features of the training set are kept, for instance a `DiskStore`: an audit that was
            interrupted goes on from them, and the workers of a cluster share the pass. In memory by default.
        memory_budget: bytes, for instance 2e9, that the audit of a classifier may take beside TensorFlow and a few
            numbers of each example; None for no limit. Beyond it features and inputs are on the disk (of `store`, or a
            temporary directory of `TMPDIR`) and read in blocks, the k strongest influence values on either side take
            the place of all, and other values of K are not previewed.
        progress: whether steps are shown by bars (on a terminal only).

    Returns:
        The findings; `report.to_html("audit")` writes them down.

    Raises:
        TypeError: `model` or a dataset is of another type.
        ValueError: data that cannot be audited, or arguments that do not fit each other.
    """
    check_count("k", k)
    if verify != 0:
        check_count("verify", verify)
    earlier = None if since is None else read_earlier(since)
    reviews = None if reviewed is None else ReviewedLabels.read(reviewed)
    pairs.check_rule(relevance)
    check_instance("store", store, Store, "DiskStore(directory) or MemoryStore()")
    if memory_budget is None and store is not None:
        memory_budget = store.memory_budget
    shares = MemoryShares.of(memory_budget)
    if known_label_errors is not None:
        checked_marks("known_label_errors", known_label_errors)
    influence_model = model if isinstance(model, InfluenceModel) else InfluenceModel(model)
    if input_names is None:
        input_names = column_names(train, influence_model.model)
    shown_names, label_columns = check_names("input_names", input_names), label_names(train, influence_model)
    check_same_index(test[0] if isinstance(test, tuple) else None, groups, "`groups`")
    check_same_index(train[0] if isinstance(train, tuple) else None, sample_weight, "`sample_weight`")
    both = {"train": train, "test": test}
    train, test = to_datasets(both, influence_model.model, class_names=class_names).values()
    train, test = (with_own_labels(influence_model, dataset) for dataset in (train, test))
    if sample_weight is not None:
        train = with_sample_weight(train, sample_weight)
    _check_datasets(train, test)
    inputs_spec = data.unpack(train.element_spec).inputs
    pairs.check_fit(shown_names, inputs_spec, influence_model)
    check_label_kind(influence_model)
    resolve(method).check_checkpoints()
    steps = Steps(_NUM_STEPS + NUM_STEPS_OF_SURROGATE + (verify > 0), progress=progress)
    try:
        with steps.step("Contents of both sets"):
            table = InputTable(has_token_ids=takes_token_ids(influence_model.model), most_bytes=shares.inputs)
            splits = Splits.read(train, test, table)
            used = method.model if isinstance(method, BaseInfluenceCalculator) else influence_model
            splits.check_labels(used)
            kind = label_kind(used)
            check_label_names(kind, class_names, output_names, pred_probs)
            require(
                kind == "numbers" or not label_unit,
                "Only the numbers of a regression have a unit: leave `label_unit` out.",
                {"label_unit": label_unit, "labels": kind},
            )
            spec = resolve(method, defaults=_defaults(used)).check_checkpoints()
            if kind == "classes":
                check_pred_probs(pred_probs, len(splits.train.hashes), used.num_classes)
            else:
                check_several_classes(used.to_targets(splits.train.labels))
            given = grouping.check_groups(
                groups, len(splits.test.hashes), has_labels=splits.test.labels is not None
            )
        with steps.step("Features of both sets"):
            limited = shares.limited(store, progress=progress)
            store = limited if store is None else FeatureStore(shared_store(limited, used.workers))
            trained = read_training_layers(used, splits.train_set, store)
            # The rest is done by each worker for itself: no other that fails can end it.
            used = copy.copy(used)
            used.workers = None
            tested = read_test_layers(used, splits.test_set)
        with steps.step("Set-up of the method"):
            made = spec.build(used, splits.train_set, store)
            _check_settings(made, influence_model, k)
            if verify:
                check_retraining(made, None, None, "audit(verify=)")
            names = (
                check_class_names(class_names, used.num_classes, label_columns)
                if kind == "classes"
                else check_output_names(output_names, used.num_outputs, label_columns)
            )
            known = (
                None
                if known_label_errors is None
                else np.flatnonzero(marks_to_flags("known_label_errors", known_label_errors, made.num_train))
            )
            _check_same_examples(made, splits)
            if earlier is not None:
                earlier.check_classes(names)
            right = _right_positions(reviews, used, splits, names)
        read = Read(splits, trained, tested, names, k, shares)
        audited: Audited[Any] = (
            AuditedClasses(made, read, steps)
            if kind == "classes"
            else AuditedOutputs(made, read, steps, label_unit=label_unit)
        )
        evidence = audited.evidence
        with steps.step("Label issues"):
            inputs = input_checks.find_input_problems(
                evidence, splits, evidence.class_names(names), shown_names
            )
            issues, label_errors = audited.find_label_errors(known, pred_probs, inputs.leaking_columns, right)
        with steps.step("Data"):
            scale = audited.check_scale()
            classes, weak = audited.find_weak(grouping.columns_of(table, inputs_spec, shown_names), given)
            others = [
                *data_checks.find_outliers(evidence, *read.features),
                *classes,
                inputs,
                *weak,
            ]
        with steps.step("Wrong predictions"):
            explained = audited.explain()
            influential = audited.find_influential()
        checked: list[Finding] = []
        if verify:
            with steps.step("Training again"):
                checked.append(find_verified(made, splits.test_set, evidence, explained, names, verify))
        with steps.step("Duplicates and pictures"):
            shown_in = [label_errors, explained, influential, *checked, *others]
            found, shown = _find_leaks(evidence, splits, shown_in)
        with steps.step("Relevance of pairs"):
            related = pairs.relate(made, relevance, explained, shown)
        described = spec.describe(made)
        head = audited.summarise(described, steps)
    finally:
        steps.close()
    findings: list[Finding] = [
        *scale,
        *splits.not_finite(),
        *_in_order(audited, [label_errors, related.finding, *checked, *found, *others, influential]),
    ]
    return AuditReport(
        overview=pairs.tell(head, relevance, related),
        findings=findings,
        attributions=evidence.attributions,
        arrays=audited.arrays(),
        label_issues=issues,
        shown=shown,
        relevance=related.maps,
        input_names=shown_names,
        changes=None
        if earlier is None
        else find_changes(earlier, findings, accuracy=head.test_accuracy, num_test=head.num_test),
        holds_all_values=evidence.holds_all,
    )


def _defaults(model: InfluenceModel) -> Mapping[str, Mapping[str, object]]:
    """Return the settings of methods that are given by name."""
    if model.is_classifier:
        return AUDIT_SETTINGS
    return {name: {"target": explained_target(model)} for name in METHODS}


def _right_positions(
    reviews: ReviewedLabels | None, model: InfluenceModel, splits: Splits, names: Sequence[str]
) -> np.ndarray:
    """Return the positions of the training labels that a person has found to be right."""
    if reviews is None:
        return np.zeros(0, np.int64)
    kind = label_kind(model)
    require(kind == "classes", "`reviewed` is for the labels of a classifier.", {"labels": kind})
    return reviews.right_positions(model.to_classes(splits.train.labels), splits.train.ids, names)


def _in_order(audited: Audited[Any], about_data: list[Finding]) -> list[Finding]:
    """Put the surrogate before what it says if it is not to be trusted, else after."""
    last = [] if audited.path is None else [audited.path]
    if audited.faithfulness is None:
        return [*about_data, *last]
    if audited.faithfulness.severity is Severity.ACT:
        return [audited.faithfulness, *about_data, *last]
    return [*about_data, audited.faithfulness, *last]


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


def _check_settings(calculator: BaseInfluenceCalculator, model: InfluenceModel, k: int) -> None:
    is_output = not model.is_classifier and isinstance(calculator.target, int | np.integer)
    require(
        calculator.target == "prediction" or is_output,
        "An audit explains the model's predictions: build the calculator with target='prediction'; of several numbers "
        "with the index of the one to explain.",
        {"target": calculator.target},
    )
    require(
        calculator.model is model or calculator.model.model is model.model,
        "The calculator explains another model than the one to audit: build it with this one.",
        {"calculator.model": calculator.model},
    )
    check_k(k, calculator.num_train)


def _check_same_examples(calculator: BaseInfluenceCalculator, splits: Splits) -> None:
    require(
        len(splits.train.hashes) == calculator.num_train,
        "`train` must be the training set that the calculator was built with.",
        {"examples": len(splits.train.hashes), "calculator.num_train": calculator.num_train},
    )
