"""What every picture of pair relevance has in common: the pairs by side, colours, scale and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from deel_dualview._checks import require

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from deel_dualview.relevance import PairRelevance

Colours = Literal["red-blue", "orange-purple"]
"""Colours of positive and negative relevance."""
COLOURS = get_args(Colours)

INK, MUTED, LINE = "#1b1f24", "#5b6570", "#c9d1d9"
# Diverging from white, equal in lightness on both sides: red is positive, as in the papers.
_RED_BLUE = ("#053061", "#2b75b4", "#8dc2dd", "#ffffff", "#f2a385", "#ca3e3e", "#67001f")
# Orange and purple (Brewer's PuOr): told apart by readers of every colour vision.
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
    """

    inputs: np.ndarray
    name: str
    proponents: list[Panel]
    opponents: list[Panel]


def take_sides(
    pair: PairRelevance, index: int, opponents: PairRelevance | None, class_names: Sequence[str] | None
) -> Sides:
    """Return the pairs of one evaluated example by side: those of negative influence are opponents."""
    panels = _panels(pair, index, class_names)
    against = [panel for panel in panels if panel.value < 0]
    if opponents is not None:
        require(
            int(opponents.classes[index]) == int(pair.classes[index])
            and _is_same_example(pair, opponents, index),
            "`opponents` must be of the same evaluated examples, explained as the same classes.",
            {"index": index, "classes": (int(pair.classes[index]), int(opponents.classes[index]))},
        )
        known = {panel.position for panel in against}
        others = _panels(opponents, index, class_names)
        against += [panel for panel in others if panel.value < 0 and panel.position not in known]
    samples = pair.top.samples
    inputs = samples[0] if isinstance(samples, tuple) else samples
    return Sides(
        np.asarray(inputs[index]),
        plain(shorten(_class_name(int(pair.classes[index]), class_names))),
        [panel for panel in panels if panel.value >= 0],
        sorted(against, key=lambda panel: panel.value),
    )


def _is_same_example(pair: PairRelevance, other: PairRelevance, index: int) -> bool:
    # TensorFlow here: the command line reads this module's names before it quietens TensorFlow.
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
        ValueError: relevance of another rank or of several inputs, `index` out of range, unknown colours.
    """
    several = isinstance(pair.train_relevance, (tuple, list, dict))
    shape: Any = "several inputs" if several else tuple(np.shape(pair.train_relevance))
    require(not several and len(shape) == rank, f"{what}.", {"train_relevance": shape})
    num_queries = len(pair.classes)
    require(0 <= index < num_queries, "`index` is out of range.", {"index": index, "m": num_queries})
    require(colours in COLOURS, f"`colours` must be one of {COLOURS}.", {"colours": colours})


def colour_map(*, is_colour_blind_safe: bool) -> Colormap:
    """Return the diverging colours: red and blue, or orange and purple."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = _ORANGE_PURPLE if is_colour_blind_safe else _RED_BLUE
    return LinearSegmentedColormap.from_list("relevance", colours)


def heat_limit(maps: Sequence[np.ndarray], quantile: float = 0.998) -> float:
    """Return the relevance at full colour: a high quantile of |relevance| over the maps of one row.

    What is not finite is left out.
    """
    values = np.abs(np.concatenate([np.ravel(own) for own in maps])) if len(maps) else np.zeros(1)
    values = values[np.isfinite(values)]
    limit = float(np.quantile(values, quantile)) if values.size else 0.0
    return limit if limit > 0 else float(values.max(initial=0.0)) or 1.0


def signed(value: float, digits: int = 3) -> str:
    """Write a number with its sign, a true minus among them."""
    return f"{value:+.{digits}g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:+.{digits}g}"


def brief(value: float) -> str:
    """Write two digits: +0.012, +1.2e-4."""
    if abs(value) >= 1e-3:
        return signed(value, 2)
    digits, exponent = f"{value:+.1e}".split("e")
    return f"{digits}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def name_token(token: int, vocabulary: Sequence[str]) -> str:
    """Return the word of a token; its number where the vocabulary has none."""
    return str(vocabulary[token]) if 0 <= token < len(vocabulary) and vocabulary[token] else str(token)


def to_words(vocabulary: Any) -> Sequence[str]:
    """Return the words of a vocabulary by their number: a list of words, or a layer that has one.

    Raises:
        TypeError: it is neither.
    """
    words = vocabulary.get_vocabulary() if hasattr(vocabulary, "get_vocabulary") else vocabulary
    if isinstance(words, str) or not hasattr(words, "__getitem__"):
        raise TypeError(
            "`vocabulary` must be a list of words by their number, or a layer that has one (TextVectorization, "
            f"StringLookup). Received: vocabulary={vocabulary!r}."
        )
    return words


def name_column(index: int, names: Sequence[str]) -> str:
    """Return the name of a column; its number where there is none."""
    return str(names[index]) if index < len(names) else f"column {index}"


def shown_tokens(tokens: np.ndarray, relevance: np.ndarray, width: int) -> tuple[np.ndarray, bool, bool]:
    """Choose the tokens of a text that are shown: at most `width` in a row, those that carry most; no padding (0).

    Returns:
        Their places, whether some are left out before them, and whether some are after them.
    """
    places = np.flatnonzero(tokens)
    if len(places) <= width:
        return places, False, False
    sums = np.cumsum(np.concatenate([[0.0], np.abs(relevance[places])]))
    first = int(np.argmax(sums[width:] - sums[:-width]))
    return places[first : first + width], first > 0, first + width < len(places)


def shorten(name: str) -> str:
    """Return a name of at most 24 characters."""
    return name if len(name) <= 24 else name[:23] + "…"


def plain(text: str) -> str:
    """Keep Matplotlib from reading mathematics between dollar signs."""
    return text.replace("$", r"\$")


def _panels(pair: PairRelevance, index: int, class_names: Sequence[str] | None) -> list[Panel]:
    inputs, labels = pair.top.training_samples[:2]
    labels = np.asarray(labels[index])
    labels = labels.reshape(len(labels), -1)
    classes = labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
    return [
        Panel(
            np.asarray(inputs[index, rank]),
            np.asarray(pair.train_relevance[index, rank]),
            np.asarray(pair.test_relevance[index, rank]),
            float(pair.top.influence_values[index, rank]),
            plain(shorten(_class_name(int(classes[rank]), class_names))),
            int(pair.top.training_indices[index, rank]),
        )
        for rank in range(len(classes))
    ]


def _class_name(index: int, class_names: Sequence[str] | None) -> str:
    return f"class {index}" if class_names is None else str(class_names[index])
