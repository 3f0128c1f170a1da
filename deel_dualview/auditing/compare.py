"""compare: several attribution methods on the same predictions, how far they agree and what they cost."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from tqdm import tqdm

from deel_dualview import data
from deel_dualview._checks import check_count, check_k, describe, require
from deel_dualview.auditing.agreement import Agreement, mean_over_queries
from deel_dualview.auditing.compared_method import Queries, TimedMethod
from deel_dualview.auditing.disagreement import contents_of, least_agreed
from deel_dualview.auditing.duplicates import Sketcher
from deel_dualview.auditing.reading import read_contents
from deel_dualview.calculators.method_specs import Given, MethodSpec, resolve_all
from deel_dualview.calculators.methods import DEFAULT_METHODS
from deel_dualview.labels import check_label_names
from deel_dualview.models import InfluenceModel
from deel_dualview.models.arrays import Data, label_names, to_datasets
from deel_dualview.models.checkpoints import Checkpoints
from deel_dualview.models.label_kinds import check_label_kind, explained_target, label_kind
from deel_dualview.models.labels import check_class_names, check_output_names
from deel_dualview.models.train_sets import with_own_labels
from deel_dualview.report.comparison import Comparison, OutputComparison
from deel_dualview.report.output_words import words_of
from deel_dualview.report.provenance import Steps, peak_memory_bytes, versions
from deel_dualview.stores import MemoryStore, stored_features


def compare(
    model: keras.Model | InfluenceModel,
    train_set: Data,
    test_set: Data,
    *,
    methods: Sequence[Given] | Mapping[str, Given] = DEFAULT_METHODS,
    k: int = 5,
    num_queries: int = 100,
    checkpoints: Checkpoints | None = None,
    class_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    progress: bool = True,
) -> Comparison:
    """Explain the same predictions by several methods, and tell how far they agree and what each one costs.

    All methods keep their vectors of the training set in memory at the same time; influence values (m, n) are
    computed batch by batch and dropped. The queries are read once and kept, and so are the few training
    examples that are shown.

    Args:
        model: a Keras 3 model, or an InfluenceModel where its features or its loss have to be named. Of several numbers
            the first is explained.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`; or arrays or
            DataFrames `(x, y)`; or a `PyDataset`.
        test_set: examples, of which the first are explained, in any of these forms.
        methods: names of `deel_dualview.METHODS`; or, by names of your own, what `audit` takes as `calculator`:
            names, calculators, or what makes one from model, training set and `store`.
        k: how many of the strongest proponents are compared.
        num_queries: at most so many test examples are explained, the first ones.
        checkpoints: of the training run, for the methods that take them, from `load_checkpoints`.
        class_names: one for each class; by default the columns of a DataFrame of one-hot labels, else their numbers.
        output_names: of a model that is no classifier, one for each number or label; by default the columns of a
            DataFrame of labels, else their numbers.
        progress: whether steps are shown by bars (on a terminal only).

    Raises:
        TypeError: `model`, a dataset or a calculator is of another type.
        ValueError: fewer than two methods, an unknown one, one without the checkpoints that it needs, or data
            that cannot be explained.
    """
    specs = _specs(methods, checkpoints)
    check_count("k", k)
    check_count("num_queries", num_queries)
    own = model if isinstance(model, InfluenceModel) else InfluenceModel(model)
    check_label_kind(own)
    columns = label_names(train_set, own)
    train_set, test_set = to_datasets({"train_set": train_set, "test_set": test_set}, own.model).values()
    train_set, test_set = (with_own_labels(own, dataset) for dataset in (train_set, test_set))
    steps = Steps(len(specs) + 3, progress=progress)
    store = MemoryStore(progress=progress)
    try:
        with steps.step("Contents of both sets"):
            for name, dataset in (("train_set", train_set), ("test_set", test_set)):
                data.check_bounded(dataset, name)
            train = read_contents(train_set, Sketcher())
            check_k(k, len(train.hashes))
            own.prepare(data.unpack(data.first_batch(train_set, "train_set")).inputs)
            queries = Queries.read(own, test_set, num_queries, num_train=len(train.hashes))
            kind = label_kind(own)
            check_label_names(kind, class_names, output_names)
            names = tuple(
                check_class_names(class_names, own.num_classes, columns)
                if kind == "classes"
                else check_output_names(output_names, own.num_outputs, columns)
            )
            if explained_target(own) != "prediction":
                specs = [_explaining_the_first(spec) for spec in specs]
        with steps.step("Features of the training set"):
            # Once, so that no method's time has in it what another finds done.
            stored_features(store, own, train_set)
        timed = []
        for spec in specs:
            with steps.step(spec.name):
                made = TimedMethod.prepare(spec, own, train_set, queries, store)
                timed.append(made)
        with steps.step("Influence values"):
            agreement = _agreement(timed, queries, k, progress=progress)
        with steps.step("Pictures"):
            predictions = least_agreed(agreement, queries, train, own)
            shown = contents_of(predictions, train_set, train, queries)
    finally:
        steps.close()
    make: Callable[..., Comparison] = (
        Comparison
        if kind == "classes"
        else functools.partial(OutputComparison, outputs=words_of(kind, names, own.to_targets(train.labels)))
    )
    return make(
        model_name=own.model.name,
        model_fingerprint=own.fingerprint,
        feature_layer=own.feature_layer,
        num_train=len(train.hashes),
        num_queries=queries.size,
        k=k,
        class_names=names,
        methods=tuple(method.report() for method in timed),
        rank_correlation=_rows(mean_over_queries(agreement.rank_correlations())),
        top_k_overlap=_rows(mean_over_queries(agreement.overlaps())),
        predictions=predictions,
        versions=versions(),
        seconds=steps.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        added_memory_bytes=steps.added_memory_bytes,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        shown=shown,
    )


def _specs(
    methods: Sequence[Given] | Mapping[str, Given], checkpoints: Checkpoints | None
) -> list[MethodSpec]:
    """Return the methods to compare, at least two, with the checkpoints that they need."""
    if not isinstance(methods, Sequence | Mapping):
        raise TypeError(
            describe("`methods` must be a list of methods, or a mapping from names.", {"methods": methods})
        )
    require(
        not isinstance(methods, str) and len(methods) >= 2,
        "`methods` must be at least two different methods, or a mapping from names.",
        {"methods": methods},
    )
    return [spec.check_checkpoints() for spec in resolve_all(methods, checkpoints=checkpoints)]


def _explaining_the_first(spec: MethodSpec) -> MethodSpec:
    """Return a method that is given by its name with the first output as its target."""
    if not isinstance(spec.method, str):
        return spec
    return dataclasses.replace(spec, settings={"target": 0, **spec.settings})


def _agreement(timed: Sequence[TimedMethod], queries: Queries, k: int, *, progress: bool) -> Agreement:
    """Ask all methods for the values of one batch of queries after the other."""
    agreement = Agreement(k)
    streams = [method.values(queries) for method in timed]
    with tqdm(total=queries.size, unit="query", leave=False, disable=None if progress else True) as bar:
        for values in zip(*streams, strict=True):
            agreement.update(values)
            bar.update(len(values[0]))
    return agreement


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)
