"""What the pictures of pair relevance share: the pairs of one evaluated example as rows, names, checks, colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap

from deel_dualview._checks import require

if TYPE_CHECKING:
    from deel_dualview.relevance import PairRelevance

Colours = Literal["red-blue", "orange-purple"]
"""Colours of positive and negative relevance."""

INK, MUTED, LINE = "#1b1f24", "#5b6570", "#c9d1d9"
# Diverging from white, equal in lightness on both sides: red is positive, as in the papers.
_RED_BLUE = ("#053061", "#2b75b4", "#8dc2dd", "#ffffff", "#f2a385", "#ca3e3e", "#67001f")
# Orange and purple (Brewer's PuOr): told apart by readers of every colour vision.
_ORANGE_PURPLE = ("#2d004b", "#6a51a3", "#b2abd2", "#ffffff", "#fdb863", "#d9730d", "#7f3b08")


class Row(NamedTuple):
    """One training example beside the evaluated one.

    Attributes:
        inputs: of the training example.
        train_relevance: in the shape of the inputs.
        test_relevance: the same of the evaluated example, in view of it.
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


class Explained(NamedTuple):
    """An evaluated example with the pairs that are drawn of it, the strongest first on either side.

    Attributes:
        inputs: of the evaluated example.
        name: of the class that is explained.
        proponents: pairs of positive influence.
        opponents: pairs of negative influence.
    """

    inputs: np.ndarray
    name: str
    proponents: list[Row]
    opponents: list[Row]


def explained_of(
    pair: PairRelevance,
    index: int,
    *,
    opponents: PairRelevance | None,
    class_names: Sequence[str] | None,
    colours: str,
) -> Explained:
    """Return one evaluated example of a batch with its pairs, those of `opponents` once each.

    Raises:
        ValueError: `index` out of range, or unknown colours.
    """
    num_examples = len(pair.classes)
    require(0 <= index < num_examples, "`index` is out of range.", {"index": index, "m": num_examples})
    require(
        colours in get_args(Colours), f"`colours` must be one of {get_args(Colours)}.", {"colours": colours}
    )
    rows = _rows(pair, index, class_names)
    against = [row for row in rows if row.value < 0]
    if opponents is not None:
        known = {row.position for row in against}
        others = _rows(opponents, index, class_names)
        against += [row for row in others if row.value < 0 and row.position not in known]
    samples = pair.top.samples
    inputs = samples[0] if isinstance(samples, tuple) else samples
    name = plain(shorten(_class_name(int(pair.classes[index]), class_names)))
    return Explained(
        np.asarray(inputs[index]),
        name,
        [row for row in rows if row.value >= 0],
        sorted(against, key=lambda row: row.value),
    )


def _rows(pair: PairRelevance, index: int, class_names: Sequence[str] | None) -> list[Row]:
    inputs, labels = pair.top.training_samples[:2]
    labels = np.asarray(labels[index])
    labels = labels.reshape(len(labels), -1)
    classes = labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
    return [
        Row(
            np.asarray(inputs[index, rank]),
            np.asarray(pair.train_relevance[index, rank]),
            np.asarray(pair.test_relevance[index, rank]),
            float(pair.top.influence_values[index, rank]),
            plain(shorten(_class_name(int(classes[rank]), class_names))),
            int(pair.top.training_indices[index, rank]),
        )
        for rank in range(len(classes))
    ]


def colour_map(*, is_colour_blind_safe: bool) -> Colormap:
    """Return the diverging colours: red and blue, or orange and purple."""
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
    """Write a number with its sign, a true minus."""
    return f"{value:+.{digits}g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:+.{digits}g}"


def brief(value: float) -> str:
    """Write two digits: +0.012, +1.2e-4."""
    if abs(value) >= 1e-3:
        return signed(value, 2)
    digits, exponent = f"{value:+.1e}".split("e")
    return f"{digits}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


def shorten(name: str) -> str:
    """Return a name of at most 24 characters."""
    return name if len(name) <= 24 else name[:23] + "…"


def plain(text: str) -> str:
    """Keep Matplotlib from reading mathematics between dollar signs."""
    return text.replace("$", r"\$")


def _class_name(index: int, class_names: Sequence[str] | None) -> str:
    return f"class {index}" if class_names is None else str(class_names[index])


def to_words(tokens: np.ndarray, vocabulary: Any) -> list[str]:
    """Return tokens as text, by a list of words, a layer with `get_vocabulary`, a function of a number, or None.

    Raises:
        TypeError: `vocabulary` is something else.
    """
    if hasattr(vocabulary, "get_vocabulary"):
        vocabulary = vocabulary.get_vocabulary()
    numbers = [int(token) for token in tokens]
    if vocabulary is None:
        return [str(number) for number in numbers]
    if callable(vocabulary):
        return [str(vocabulary(number)) for number in numbers]
    if not hasattr(vocabulary, "__getitem__"):
        raise TypeError(
            "`vocabulary` must be a list of words by their number, a layer that has one (TextVectorization, "
            f"StringLookup), or a function from number to word. Received: vocabulary={vocabulary!r}."
        )
    size = len(vocabulary)
    return [str(vocabulary[number]) if 0 <= number < size else f"[{number}]" for number in numbers]
