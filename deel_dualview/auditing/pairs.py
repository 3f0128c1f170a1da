"""Which parts of a training and of a test example carry the influence of the pairs that a report shows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.lrp import Composite
from deel_dualview.models import InfluenceModel
from deel_dualview.plots.formatting import check_column_names
from deel_dualview.plots.panels import join_columns, shown_inputs
from deel_dualview.relevance import BackEnd, DualRelevance
from deel_dualview.relevance.layerwise import takes_tokens
from deel_dualview.report.findings import (
    ExampleReference,
    ExplainedPrediction,
    Influence,
    PairShares,
    UncertainPredictions,
    WrongPredictions,
)
from deel_dualview.report.maps import Kind, PairMaps, kind_of, reduce_map, shown_input
from deel_dualview.report.output_findings import ExplainedOutput, OutputReference, PredictionErrors
from deel_dualview.report.overview import Overview, Setting
from deel_dualview.search import TopK

Rule: TypeAlias = str | Composite | BackEnd
Explained: TypeAlias = WrongPredictions | UncertainPredictions | PredictionErrors
_Item = TypeVar("_Item", bound=ExplainedPrediction | ExplainedOutput)
DEFAULT_RULE = "epsilon-gamma"
"""That of `DualRelevance`."""
_NUMBERS_AT_ONCE = 2**20
"""So many input numbers are propagated at once: ten images of 32 x 32, six of 224 x 224."""

_logger = logging.getLogger(__name__)


class Related(NamedTuple):
    """Predictions with what their pairs' heatmaps leave out, the heatmaps, and why there are none.

    Attributes:
        finding: the predictions.
        maps: by the position of the test and of the training example.
        missing: a sentence for the reader where relevance was asked for and is not shown.
        of_input: which of several inputs they are of.
    """

    finding: Explained
    maps: Mapping[tuple[int, int], PairMaps]
    missing: str | None
    of_input: str | None = None


def check_rule(rule: Rule | None) -> None:
    """Refuse a rule that has no meaning, before any work.

    Raises:
        ValueError: no rule has this name.
    """
    known = tuple(_named_rules())
    require(
        not isinstance(rule, str) or rule in known,
        f"`relevance` must be one of {known}, a Composite of deel_dualview.lrp, a BackEnd of "
        "deel_dualview.relevance, or None for none.",
        {"relevance": rule},
    )


def check_fit(names: tuple[str, ...], inputs: Any, model: InfluenceModel) -> None:
    """Refuse names that do not fit the inputs that they are of.

    Args:
        names: of the columns of a table, or words of tokens.
        inputs: specification of a batch.
        model: of the audit.

    Raises:
        ValueError: another number than a table has columns, or inputs that have neither columns nor tokens.
    """
    if not names or not isinstance(inputs, tf.TensorSpec) or inputs.shape.rank is None or takes_tokens(model):
        return
    require(
        inputs.shape.rank == 2,
        "`input_names` are names of the columns of a table, or words of tokens; these inputs have neither.",
        {"inputs": inputs},
    )
    if inputs.shape[1] is not None:
        check_column_names("input_names", names, inputs.shape[1])


def relate(
    calculator: BaseInfluenceCalculator,
    rule: Rule | None,
    finding: Explained,
    contents: Mapping[tuple[str, int], Any],
) -> Related:
    """Propagate the relevance of every pair that the finding shows.

    An audit must not fail for want of a picture: a sentence says what cannot be explained.

    Args:
        calculator: of the audit.
        rule: of `DualRelevance`; None for none.
        finding: explained predictions.
        contents: inputs of the examples that are shown, by split and position.
    """
    if rule is None or not any(item.proponents or item.opponents for item in finding.predictions):
        return Related(finding, {}, None)
    try:
        relevance = DualRelevance(calculator, rule)  # type: ignore[arg-type]
        first = contents["test", finding.predictions[0].example.index]
        _check_sense(rule, first, calculator)
        name = shown_input(first, has_tokens=takes_tokens(calculator.model))
        found = [_relate(relevance, item, contents) for item in finding.predictions]
    except Exception as error:  # a report without heatmaps is worth more than none
        if not isinstance(error, (ValueError, TypeError, ImportError)):
            _logger.warning("Pair relevance failed.", exc_info=True)
        return Related(finding, {}, _reason(error))
    predictions: Any = tuple(item for item, _ in found)
    maps = {key: value for _, own in found for key, value in own.items()}
    of_input = f"input {name}" if isinstance(name, int) else name
    return Related(dataclasses.replace(finding, predictions=predictions), maps, None, of_input)


def tell(head: Overview, rule: Rule | None, related: Related) -> Overview:
    """Say in the head of a report how relevance was found, or why it is missing."""
    if rule is None:
        return head
    name = rule if isinstance(rule, str) else type(rule).__name__
    setting = Setting("Pair relevance", name if related.missing is None else "not shown")
    return dataclasses.replace(
        head,
        settings=(*head.settings, setting),
        relevance_rule=name if related.maps else None,
        relevance_missing=related.missing,
        relevance_input=related.of_input,
    )


def _named_rules() -> Iterator[str]:
    """Yield the names that `DualRelevance` declares for its rules."""
    for part in get_args(get_type_hints(DualRelevance.__init__)["rule"]):
        if get_origin(part) is Literal:
            yield from get_args(part)


def _relate(
    relevance: DualRelevance, item: _Item, contents: Mapping[tuple[str, int], Any]
) -> tuple[_Item, dict[tuple[int, int], PairMaps]]:
    """Explain the pairs of one prediction, a few at a time."""
    test = contents["test", item.example.index]
    name = shown_input(test, has_tokens=takes_tokens(relevance.calculator.model))
    kind = _kind(test, relevance.calculator)
    step = max(1, _NUMBERS_AT_ONCE // max(sum(part.size for part in tf.nest.flatten(test)), 1))
    influences = [*item.proponents, *item.opponents]
    shares: dict[int, PairShares] = {}
    maps: dict[tuple[int, int], PairMaps] = {}
    for start in range(0, len(influences), step):
        some = influences[start : start + step]
        pair = relevance.of_pairs(_top(test, some, contents))
        pair, names = join_columns(pair) if name is None else (pair.of_input(name), ())
        for place, influence in enumerate(some):
            index = influence.example.index
            train_side, test_side = (
                reduce_map(np.asarray(side[0, place]), kind)
                for side in (pair.train_relevance, pair.test_relevance)
            )
            own, evaluated = shown_inputs(pair, 0, place) if kind in ("tokens", "columns") else (None, None)
            maps[item.example.index, index] = PairMaps(train_side, test_side, kind, own, evaluated, names)
            shares[index] = PairShares(
                **{
                    part.name: _number(getattr(pair, part.name)[0, place])
                    for part in dataclasses.fields(PairShares)
                }
            )
    _check_finite(maps)

    def with_shares(group: tuple[Influence, ...]) -> tuple[Influence, ...]:
        return tuple(dataclasses.replace(own, relevance=shares[own.example.index]) for own in group)

    return dataclasses.replace(
        item, proponents=with_shares(item.proponents), opponents=with_shares(item.opponents)
    ), maps


def _number(value: Any) -> Any:
    """Return a number as JSON knows it: None for one that is not finite."""
    return float(value) if np.isfinite(value) else None


def _top(test: Any, influences: list[Influence], contents: Mapping[tuple[str, int], Any]) -> TopK:
    """Put pairs that are known into the form in which a calculator finds them: one query, k training examples."""
    examples = [influence.example for influence in influences]
    return TopK(
        samples=(tf.nest.map_structure(lambda part: part[np.newaxis], test),),
        influence_values=np.array([[influence.value for influence in influences]], np.float32),
        training_samples=(
            tf.nest.map_structure(
                lambda *parts: np.stack(parts)[np.newaxis],
                *(contents["train", example.index] for example in examples),
            ),
            _labels(examples),
        ),
        training_indices=np.array([[example.index for example in examples]], np.int64),
    )


def _labels(examples: list[ExampleReference]) -> np.ndarray:
    """Return classes (1, k), or labels of several outputs (1, k, c)."""
    if examples and isinstance(examples[0], OutputReference):
        return np.array([[cast(OutputReference, example).labels for example in examples]], np.float32)
    return np.array([[example.label for example in examples]], np.int64)


def _kind(example: Any, calculator: BaseInfluenceCalculator) -> Kind:
    has_tokens = takes_tokens(calculator.model)
    name = shown_input(example, has_tokens=has_tokens)
    return kind_of(example if name is None else example[name], has_tokens=has_tokens)


def _check_sense(rule: Rule, example: Any, calculator: BaseInfluenceCalculator) -> None:
    is_flat = isinstance(rule, str) and rule.endswith("-flat")
    require(
        not is_flat or _kind(example, calculator) != "columns",
        "The flat rule gives every column of a row the same relevance: take relevance='epsilon'.",
        {"relevance": rule},
    )


def _check_finite(maps: Mapping[tuple[int, int], PairMaps]) -> None:
    wrong = [key for key, own in maps.items() if not np.isfinite([own.train.sum(), own.test.sum()]).all()]
    require(not wrong, "The relevance of some pairs is not finite.", {"(test, train)": wrong})


def _reason(error: Exception) -> str:
    """Write an error as one line for a reader; the type is named where it is not one that users cause."""
    text = " ".join(str(error).split()).split(" Received: ")[0] or "no message"
    is_told = isinstance(error, (ValueError, TypeError, ImportError))
    return text if is_told else f"{type(error).__name__}: {text[:300]}"
