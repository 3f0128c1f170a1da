"""What every picture of pair relevance has in common: the pairs by side, colours, scale and words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from deel_dualview._checks import describe, is_integer, require
from deel_dualview._summaries import are_equally_strong
from deel_dualview.plots.fonts import drawn

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from deel_dualview.relevance import PairRelevance

Colours = Literal["red-blue", "orange-blue", "orange-purple"]
"""Colours of positive and negative relevance."""
COLOURS = get_args(Colours)

INK, MUTED, LINE, WARNING = "#1b1f24", "#5b6570", "#c9d1d9", "#a40e26"
# Diverging from white, equal in lightness on both sides: red is positive, as in the papers.
_RED_BLUE = ("#053061", "#2b75b4", "#8dc2dd", "#ffffff", "#f2a385", "#ca3e3e", "#67001f")
_ORANGE_BLUE = ("#0b2c55", "#2f74c0", "#9cc3e8", "#ffffff", "#fdb863", "#d9730d", "#7f3b08")
# Orange and purple (Brewer's PuOr): distinguished by readers of every colour vision.
_ORANGE_PURPLE = ("#2d004b", "#6a51a3", "#b2abd2", "#ffffff", "#fdb863", "#d9730d", "#7f3b08")


class Panel(NamedTuple):
    """One training example beside the evaluated one.

    Attributes:
        inputs: of the training example.
        train_relevance: of its inputs.
        test_relevance: of the evaluated example's inputs in view of it.
        value: influence.
        label: of the training example, as text.
        position: its position in the training set.
    """

    inputs: np.ndarray
    train_relevance: np.ndarray
    test_relevance: np.ndarray
    value: float
    label: str
    position: int


class Sides(NamedTuple):
    """One evaluated example and its pairs.

    Attributes:
        inputs: of the evaluated example.
        name: of the class that is explained.
        proponents: the strongest first.
        opponents: the strongest first.
        note: what must be known of the heatmaps; empty if nothing.
    """

    inputs: np.ndarray
    name: str
    proponents: list[Panel]
    opponents: list[Panel]
    note: str


def shown_inputs(pair: PairRelevance, index: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of a training and of an evaluated example as they are drawn: words of texts, strings decoded.

    Args:
        pair: of one input.
        index: of the evaluated example.
        rank: of the training example.
    """
    train, test = (
        samples[0] if isinstance(words, tuple) else words
        for words, samples in (
            (pair.train_words, pair.top.training_samples),
            (pair.test_words, pair.top.samples),
        )
    )
    return _to_strings(np.asarray(train[index, rank])), _to_strings(np.asarray(test[index]))


def take_sides(
    pair: PairRelevance, index: int, opponents: PairRelevance | None, class_names: Sequence[str] | None
) -> Sides:
    """Return the pairs of one evaluated example by side: those of negative influence are opponents."""
    _check_class_names(pair, class_names)
    panels = _panels(pair, index, class_names)
    against = [panel for panel in panels if panel.value < 0]
    if opponents is not None:
        _check_kind("opponents", opponents)
        _check_class_names(opponents, class_names)
        require(
            index < len(opponents.classes),
            "`opponents` must be of the same evaluated examples.",
            {"index": index},
        )
        require(
            int(opponents.classes[index]) == int(pair.classes[index])
            and _is_same_example(pair, opponents, index),
            "`opponents` must be of the same evaluated examples, explained as the same classes.",
            {"index": index, "classes": (int(pair.classes[index]), int(opponents.classes[index]))},
        )
        known = {panel.position for panel in against}
        others = _panels(opponents, index, class_names)
        against += [panel for panel in others if panel.value < 0 and panel.position not in known]
    return Sides(
        shown_inputs(pair, index, 0)[1],
        drawn(_name_output(pair, index, class_names)),
        [panel for panel in panels if panel.value >= 0],
        sorted(against, key=lambda panel: panel.value),
        _note_on_cancellation([pair] if opponents is None else [pair, opponents], index),
    )


def join_columns(pair: PairRelevance) -> tuple[PairRelevance, tuple[str, ...]]:
    """Return the relevance of several inputs as that of one row, and the names of its columns.

    Every input is a column, or a few; of a text it is the sum over its words. A pair of one input, or with one that is
    no column, is returned as it is, without names.
    """
    parts: Any = getattr(pair, "train_relevance", None)
    keys = list(parts) if isinstance(parts, dict) else range(len(parts)) if isinstance(parts, tuple) else []
    if not keys or any(isinstance(parts[key], (dict, tuple)) or np.ndim(parts[key]) > 3 for key in keys):
        return pair, ()
    names: list[str] = []
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for key in keys:
        own = [pair.train_relevance[key], pair.test_relevance[key]]
        if not isinstance(pair.test_words[key], tuple):
            own = [np.sum(part, axis=2) for part in own]
        own += [samples[0][key] for samples in (pair.top.training_samples, pair.top.samples)]
        lead = np.shape(parts[key])[:2]
        for found, part, shape in zip(columns, own, (lead, lead, lead, lead[:1]), strict=True):
            found.append(np.reshape(part, (*shape, -1)))
        width = columns[0][-1].shape[2]
        names += [str(key)] if width == 1 else [f"{key} {place}" for place in range(width)]
    train, test = (np.concatenate(part, axis=-1) for part in columns[:2])
    train_row, test_row = (
        np.concatenate([own.astype(object) for own in part], axis=-1) for part in columns[2:]
    )
    top = pair.top._replace(
        samples=(test_row, *pair.top.samples[1:]),
        training_samples=(train_row, *pair.top.training_samples[1:]),
    )
    return pair._replace(
        train_relevance=train, test_relevance=test, top=top, train_words=(), test_words=()
    ), tuple(names)


def cancellation_note(own: Sequence[float | None], of_gradients: Sequence[float | None]) -> str:
    """Return how much of the colours cancels, beside gradients times inputs; empty where it is little.

    Args:
        own: cancellation of some heatmaps; None for one that is not finite.
        of_gradients: that of gradients times inputs for the same; None or NaN where it is unknown.
    """
    # TensorFlow here: the command line reads this module's names before it silences TensorFlow.
    from deel_dualview.relevance.cancellation import MUCH_CANCELLATION, WORSE

    found = [
        (math.inf if size is None else size, math.inf if other is None or math.isnan(other) else other)
        for size, other in zip(own, of_gradients, strict=True)
        if size is None or not math.isnan(size)
    ]
    is_worse, size, other = max(
        ((size > WORSE * other, size, other) for size, other in found), default=(False, 0.0, 0.0)
    )
    if size <= MUCH_CANCELLATION:
        return ""
    note = f"colours cancel: {size:.3g} times the influence"
    if math.isinf(other):
        return note
    return f"{note}, {'worse than' if is_worse else 'with'} gradients times inputs {other:.3g}"


def _note_on_cancellation(pairs: Sequence[PairRelevance], index: int) -> str:
    sides = ("train", "test")
    note = cancellation_note(
        *(
            [
                float(size)
                for pair in pairs
                for side in sides
                for size in getattr(pair, f"{side}_{kind}")[index]
            ]
            for kind in ("cancellation", "gradient_cancellation")
        )
    )
    return note.replace("colours cancel:", "Colours cancel: up to")


def _is_same_example(pair: PairRelevance, other: PairRelevance, index: int) -> bool:
    # TensorFlow here: the command line reads this module's names before it silences TensorFlow.
    import tensorflow as tf

    parts = zip(*(tf.nest.flatten(one.top.samples) for one in (pair, other)), strict=True)
    return all(np.array_equal(np.asarray(own)[index], np.asarray(theirs)[index]) for own, theirs in parts)


def check_pair(pair: PairRelevance, index: int, colours: Colours, *, rank: int, what: str) -> None:
    """Refuse what cannot be drawn.

    Args:
        pair: the relevance.
        index: of an evaluated example.
        colours: a name of colours.
        rank: of the relevance that can be drawn.
        what: that is, in words, and of which shape.

    Raises:
        TypeError: `pair` is no `PairRelevance`, `index` no integer.
        ValueError: relevance of another rank or of several inputs, `index` out of range, unknown colours.
    """
    _check_kind("pair", pair)
    if not is_integer(index):
        raise TypeError(
            describe("`index` must be an integer: which of the evaluated examples.", {"index": index})
        )
    parts = pair.train_relevance
    if isinstance(parts, (tuple, dict)):
        name = sorted(parts)[0] if isinstance(parts, dict) else 0
        needed = f"A model of several inputs is drawn one input at a time: pair.of_input({name!r})."
        raise ValueError(describe(needed, {"inputs": len(parts)}))
    shape = tuple(np.shape(parts))
    require(len(shape) == rank, f"{what}.", {"train_relevance": shape})
    num_queries = len(pair.classes)
    require(0 <= index < num_queries, "`index` is out of range.", {"index": index, "m": num_queries})
    require(colours in COLOURS, f"`colours` must be one of {COLOURS}.", {"colours": colours})


def _check_kind(name: str, pair: object) -> None:
    if not hasattr(pair, "train_relevance"):
        made = "next(iter(DualRelevance(calculator).explain(test, k=4)))"
        if hasattr(pair, "training_indices"):
            made = "DualRelevance(calculator).of_pairs(top), of the element `top` of `top_k` that was given"
        needed = f"`{name}` must be a PairRelevance: {made}."
        raise TypeError(describe(needed, {name: type(pair).__name__}))


def colour_map(colours: Colours) -> Colormap:
    """Return the diverging colours of a name."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = {"red-blue": _RED_BLUE, "orange-blue": _ORANGE_BLUE, "orange-purple": _ORANGE_PURPLE}
    return LinearSegmentedColormap.from_list("relevance", ends[colours])


def heat_limit(maps: Sequence[np.ndarray], quantile: float = 0.998) -> float:
    """Return the relevance at full colour: a high quantile of |relevance| over the maps of one row.

    What is not finite is left out.
    """
    values = np.abs(np.concatenate([np.ravel(own) for own in maps])) if len(maps) else np.zeros(1)
    values = values[np.isfinite(values)]
    limit = float(np.quantile(values, quantile)) if values.size else 0.0
    return limit if limit > 0 else float(values.max(initial=0.0)) or 1.0


def _to_strings(array: np.ndarray) -> np.ndarray:
    """Return bytes as strings, dtype object; an array of numbers stays what it is."""
    if array.dtype.kind not in "OS":
        return array
    found = [
        part.decode("utf-8", "replace") if isinstance(part, bytes) else part
        for part in array.ravel().tolist()
    ]
    return np.array(found, object).reshape(array.shape)


def are_words(tokens: np.ndarray) -> np.ndarray:
    """Return which tokens are no padding: not 0, not the empty string."""
    return tokens != ("" if tokens.dtype.kind in "OU" else 0)


def shown_tokens(tokens: np.ndarray, relevance: np.ndarray, width: int) -> tuple[np.ndarray, bool, bool]:
    """Choose the tokens of a text that are shown: at most `width` in a row, those that carry most; no padding.

    Returns:
        Their places, whether some are left out before them, and whether some are after them.
    """
    places = np.flatnonzero(are_words(tokens))
    if len(places) <= width:
        return places, False, False
    sums = np.cumsum(np.concatenate([[0.0], np.abs(relevance[places])]))
    first = int(np.argmax(sums[width:] - sums[:-width]))
    return places[first : first + width], first > 0, first + width < len(places)


def equally_strong(panels: Sequence[Panel]) -> str:
    """Return what the heading of a side adds where its influence values are nearly equal."""
    return ", equally strong" if are_equally_strong([panel.value for panel in panels]) else ""


def both_sides(panels: Sequence[Panel]) -> list[np.ndarray]:
    """Return the relevance of the training and of the evaluated example of every pair."""
    return [side for panel in panels for side in (panel.train_relevance, panel.test_relevance)]


def sum_channels(panels: Sequence[Panel]) -> list[Panel]:
    """Sum the relevance of images over channels."""
    return [
        panel._replace(
            train_relevance=panel.train_relevance.sum(axis=-1),
            test_relevance=panel.test_relevance.sum(axis=-1),
        )
        for panel in panels
    ]


def _panels(pair: PairRelevance, index: int, class_names: Sequence[str] | None) -> list[Panel]:
    labels = _train_labels(pair)
    names = [_name_label(row, class_names, is_class=_are_classes(labels)) for row in labels[index]]
    return [
        Panel(
            shown_inputs(pair, index, rank)[0],
            np.asarray(pair.train_relevance[index, rank]),
            np.asarray(pair.test_relevance[index, rank]),
            float(pair.top.influence_values[index, rank]),
            drawn(names[rank]),
            int(pair.top.training_indices[index, rank]),
        )
        for rank in range(len(names))
    ]


def _train_labels(pair: PairRelevance) -> np.ndarray:
    """Return the labels of the training examples, shape (m, k, outputs or 1)."""
    labels = np.asarray(pair.top.training_samples[1])
    return labels.reshape(*labels.shape[:2], -1)


def _are_classes(labels: np.ndarray) -> bool:
    """Tell class indices and one-hot rows from numbers and from several labels that may hold."""
    if labels.shape[2] == 1:
        return bool(np.all(labels == np.rint(labels)))
    return bool(np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(axis=2) == 1))


def _name_label(label: np.ndarray, names: Sequence[str] | None, *, is_class: bool) -> str:
    """Return the name of a class, those of the labels that hold, or numbers."""
    if is_class:
        return _class_name(int(label.argmax() if len(label) > 1 else label[0]), names)
    if len(label) > 1 and np.all((label == 0) | (label == 1)):
        held = [_class_name(int(place), names).removeprefix("class ") for place in np.flatnonzero(label)]
        return ", ".join(held) or "no label"
    return ", ".join(f"{number:.3g}" for number in label)


def _name_output(pair: PairRelevance, index: int, names: Sequence[str] | None) -> str:
    explained = int(pair.classes[index])
    if explained < 0:
        return "its labels"
    is_class = names is not None or _are_classes(_train_labels(pair))
    return _class_name(explained, names) if is_class else f"output {explained}"


def _check_class_names(pair: PairRelevance, names: Sequence[str] | None) -> None:
    if names is None:
        return
    if isinstance(names, str):
        raise TypeError(
            describe("`class_names` must be a list of names, not one string.", {"class_names": names})
        )
    labels = _train_labels(pair)
    largest = labels.shape[2] - 1 if labels.shape[2] > 1 else labels.max() if _are_classes(labels) else 0
    largest = int(max(np.max(pair.classes), largest))
    needed = f"`class_names` must name every class, and there is a class {largest}."
    require(largest < len(names), needed, {"len(class_names)": len(names)})


def _class_name(index: int, class_names: Sequence[str] | None) -> str:
    return f"class {index}" if class_names is None else str(class_names[index])
