"""label_issues: one pass over each set, and what it finds about the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deel_dualview import data
from deel_dualview._checks import check_seed, require
from deel_dualview.labels.finding import (
    Representation,
    Representations,
    find_label_issues,
    representation,
)
from deel_dualview.labels.independent import find_independent_issues
from deel_dualview.labels.inputs import InputTable
from deel_dualview.labels.issues import LabelIssues
from deel_dualview.labels.numbers import find_number_issues
from deel_dualview.labels.output_issues import OutputLabelIssues
from deel_dualview.linalg.rows import Rows
from deel_dualview.models import InfluenceModel, tracing
from deel_dualview.models.arrays import Data, label_names, to_datasets
from deel_dualview.models.checkpoints import Checkpoints
from deel_dualview.models.hidden import HiddenLayers
from deel_dualview.models.label_kinds import LabelKind, check_label_kind, label_kind
from deel_dualview.models.labels import check_class_names, check_output_names
from deel_dualview.stores.budget import MemoryShares
from deel_dualview.stores.growing import GrowingRows

_EARLY_PART = 5


def label_issues(
    model: keras.Model | InfluenceModel,
    train: Data,
    test: Data | None = None,
    *,
    class_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    pred_probs: np.ndarray | None = None,
    checkpoints: Checkpoints | Sequence[keras.Model | InfluenceModel] | None = None,
    seed: int = 0,
    memory_budget: int | None = None,
    progress: bool = True,
) -> LabelIssues | OutputLabelIssues:
    """Find the labels of a training set that are likely wrong, and of classes how many are.

    Simple classifiers (kernel ridge and logistic regression) are fitted to the penultimate features, to the layer
    before them and to the inputs themselves, and judge each example without having seen its label. They are weighted
    by the labels of the test set, and a label's score is how much likelier another class is. The number of wrong
    labels comes of the classifier on the inputs, which no network has prepared with the labels in view: it is given
    where it is large beside its error, else an upper bound, or "cannot tell". The network runs once over each set.

    Independent labels are treated one by one, as two classes each. Numbers of a regression are ranked, and not counted:
    by their distance from what such heads (ridge regressions and nearest neighbours) predict, over how far labels of
    such examples usually are.

    Args:
        model: a Keras 3 classifier, a model of independent labels or a regression; or an InfluenceModel.
        train: its training set: a dataset of batches `(inputs, labels)` or `(inputs, labels, ids)`, in the same order
            at every pass; or arrays or DataFrames `(x, y)` or `(x, y, ids)` (the index of a DataFrame is taken as ids
            unless it is the default one); or a `PyDataset`.
        test: examples that were not trained on, with labels that are right. Where they are as wrong as the training
            labels, a count says how many more are wrong than in the test set. Without it labels are ranked only.
        class_names: one for each class; by default the columns of a DataFrame of one-hot labels, else their numbers.
        output_names: one for each label or number of a model that is no classifier; by default the columns of a
            DataFrame of labels, else their numbers.
        pred_probs: of a classifier, probabilities of the classes for the training examples, of a model that has not
            seen their labels (of cross-validation, for instance), shape (n, c); they have half the weight.
        checkpoints: the model at earlier moments of its training, in their order, for instance of `load_checkpoints`:
            the features of the one at a fifth of the way, which has memorised less, get heads of their own.
        seed: of random rows, folds and resampling.
        memory_budget: bytes, for instance 2e9, beyond which rows of a classifier's training set are in a temporary
            directory (of `TMPDIR`) and read in blocks; None for no limit. A few numbers of each example, and words of
            texts, are in memory in any case.
        progress: whether a bar is shown (on a terminal only).

    Returns:
        `LabelIssues` of a classifier, else `OutputLabelIssues`.

    Raises:
        TypeError: `model` or a dataset is of another type.
        ValueError: sets without labels, labels that do not differ, probabilities of another shape, names or
            probabilities of classes where there are none.

    Example:
        found = deel_dualview.label_issues(model, train, test)
        print(found.count)
        found.to_csv("label_issues.csv")
    """
    check_seed("seed", seed)
    shares = MemoryShares.of(memory_budget)
    influence_model = model if isinstance(model, InfluenceModel) else InfluenceModel(model)
    check_label_kind(influence_model)
    given, columns = (
        {"train": train} | ({} if test is None else {"test": test}),
        label_names(train, influence_model),
    )
    splits = to_datasets(given, influence_model.model, class_names=class_names)
    for name, dataset in splits.items():
        data.check_bounded(dataset, name)
        data.check_same_twice(dataset, name)
    early = _early(checkpoints)
    table = InputTable(
        has_token_ids=takes_token_ids(influence_model.model), seed=seed, most_bytes=shares.inputs
    )
    read = {
        name: _read(influence_model, early, dataset, name, table, shares.block, seed=seed, progress=progress)
        for name, dataset in splits.items()
    }
    kind = label_kind(influence_model)
    trained, tested = read["train"], read.get("test", _nothing(read["train"]))
    representations = Representations(
        Representation(trained.features, tested.features[:]),
        representation(trained.before, tested.before),
        Representation(*table.rows()),
        representation(trained.early, tested.early),
    )
    test_labels = None if test is None else tested.labels
    check_label_names(kind, class_names, output_names, pred_probs)
    check_several_classes(trained.labels)
    if kind != "classes":
        find = find_number_issues if kind == "numbers" else find_independent_issues
        names = check_output_names(output_names, trained.labels.shape[1], columns)
        return find(
            representations, trained.labels, test_labels, output_names=names, ids=trained.ids, seed=seed
        )
    names = check_class_names(class_names, influence_model.num_classes, columns)
    check_pred_probs(pred_probs, len(trained.labels), len(names))
    return find_label_issues(
        representations,
        trained.labels,
        test_labels,
        (trained.predictions, tested.predictions),
        class_names=names,
        ids=trained.ids,
        pred_probs=pred_probs,
        seed=seed,
        held_bytes=shares.block,
    )


def check_label_names(
    kind: LabelKind,
    class_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    pred_probs: np.ndarray | None = None,
) -> None:
    """Refuse arguments that belong to another kind of labels.

    Raises:
        ValueError: names or probabilities of classes where there are none, or names of outputs of a classifier.
    """
    wrong = (
        {"output_names": output_names}
        if kind == "classes"
        else {"class_names": class_names, "pred_probs": pred_probs}
    )
    found = {name: value for name, value in wrong.items() if value is not None}
    require(
        not found,
        "A classifier has classes: name them by `class_names`."
        if kind == "classes"
        else "Only a classifier has classes. Name the numbers or labels of this model by `output_names`; `pred_probs` "
        "are of classifiers.",
        found,
    )


def _early(checkpoints: Checkpoints | Sequence[keras.Model | InfluenceModel] | None) -> InfluenceModel | None:
    """Return the checkpoint at a fifth of the way, if there are any."""
    models = checkpoints.models if isinstance(checkpoints, Checkpoints) else list(checkpoints or ())
    if not models:
        return None
    chosen = models[len(models) // _EARLY_PART]
    return chosen if isinstance(chosen, InfluenceModel) else InfluenceModel(chosen)


class _Read(NamedTuple):
    """What a pass over a set has kept: arrays of all its examples."""

    features: Rows
    before: Rows | None
    predictions: np.ndarray
    labels: np.ndarray
    ids: np.ndarray | None
    early: Rows | None


def takes_token_ids(model: keras.Model) -> bool:
    """Return whether whole numbers in a model's inputs stand for tokens."""
    return any(isinstance(layer, keras.layers.Embedding) for layer in tracing.all_layers(model))


def check_several_classes(labels: np.ndarray) -> None:
    """Refuse a training set of one class, or of one number: no label could be another.

    Raises:
        ValueError: all labels are equal.
    """
    require(
        bool((labels != labels[0]).any()),
        "Label issues need training labels of at least two classes, or numbers that differ.",
        {"label of every training example": labels[0].tolist()},
    )


def check_pred_probs(pred_probs: np.ndarray | None, num_train: int, num_classes: int) -> None:
    """Refuse probabilities that are not those of the training examples.

    Raises:
        ValueError: another shape, or rows that are no probabilities.
    """
    if pred_probs is None:
        return
    shape = np.shape(pred_probs)
    require(
        shape == (num_train, num_classes),
        f"`pred_probs` must have a row for each training example and a column for each class: shape "
        f"({num_train}, {num_classes}).",
        {"shape": shape},
    )
    sums = np.sum(pred_probs, axis=1)
    require(
        bool(np.all(np.asarray(pred_probs) >= 0) and np.allclose(sums, 1, atol=1e-3)),
        "`pred_probs` must be probabilities: at least 0, and each row with sum 1.",
        {"sums": sums},
    )


def _read(
    model: InfluenceModel,
    early: InfluenceModel | None,
    dataset: tf.data.Dataset,
    name: str,
    table: InputTable,
    most_bytes: int | None,
    *,
    seed: int,
    progress: bool,
) -> _Read:
    require(
        data.unpack(dataset.element_spec).labels is not None,
        f"`{name}` must have labels: elements (inputs, labels)."
        + (
            " Without test labels leave `test` out: labels are ranked then, and not counted."
            if name == "test"
            else ""
        ),
        {"element_spec": dataset.element_spec},
    )
    layers = HiddenLayers(model, seed, data.unpack(dataset.element_spec).inputs)
    columns: dict[str, list[Any]] = {}
    rows = {key: GrowingRows(most_bytes) for key in ("features", "before", "early")}

    def keep(batch: data.Batch) -> None:
        hidden = layers(batch.inputs)
        kept = {
            "predictions": tf.argmax(hidden.logits, axis=1),
            "labels": model.to_targets(batch.labels),
            "ids": batch.ids,
        }
        for key, part in kept.items():
            if part is not None:
                columns.setdefault(key, []).append(data.to_array(part))
        rows["features"].append(data.to_array(hidden.features))
        if hidden.before is not None:
            rows["before"].append(data.to_array(hidden.before))
        if early is not None:
            rows["early"].append(data.to_array(early.features(batch.inputs)))
        table.add(batch.inputs, name)

    with tqdm(total=None, desc=f"Reading {name}", unit="batch", disable=None if progress else True) as bar:
        for _ in data.map_batches(keep, dataset, name):
            bar.update()
    arrays = {key: np.concatenate(parts) for key, parts in columns.items()}
    found = {key: own.in_memory() for key, own in rows.items() if len(own)}
    return _Read(
        found["features"],
        found.get("before"),
        arrays["predictions"],
        arrays["labels"],
        arrays.get("ids"),
        found.get("early"),
    )


def _nothing(read: _Read) -> _Read:
    """Return the same without examples."""
    return read._replace(
        features=read.features[:0],
        before=None if read.before is None else read.before[:0],
        predictions=read.predictions[:0],
        early=None if read.early is None else read.early[:0],
    )
