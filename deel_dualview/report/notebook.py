"""What a notebook shows of the most influential training examples: small pictures, text and numbers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._summaries import are_equally_strong
from deel_dualview.report.pictures import choose_range, image_to_address, is_image
from deel_dualview.search import TopK
from deel_dualview.search.top_k import index_as_text

MAX_QUERIES, MAX_EXAMPLES = 6, 6
_MAX_NUMBERS, _LONGEST_TEXT = 6, 140
_PICTURE = "height:64px;min-width:32px;image-rendering:pixelated"


def top_k_to_html(top: TopK) -> str:
    """Return a table of evaluated examples, each with its first training examples; needs no network.

    Args:
        top: an element of a calculator's `top_k`; the first few rows and columns are shown.
    """
    values, indices = np.asarray(top.influence_values), np.asarray(top.training_indices)
    queries, examples = (data.unpack(element) for element in (top.samples, top.training_samples))
    shown = min(len(values), MAX_QUERIES), min(values.shape[1], MAX_EXAMPLES)
    ranges = [_range(pair) for pair in _leaves(queries.inputs, examples.inputs)]
    rows = []
    for row in range(shown[0]):
        note = ["influences equally strong"] if are_equally_strong(values[row]) else []
        cells = [_cell(_parts(queries, (row,)), ranges, ["evaluated", *_facts(queries, (row,)), *note])]
        for column in range(shown[1]):
            place = row, column
            facts = [
                f"influence {values[place]:.4g}",
                f"training {index_as_text(indices[place].tolist())}",
                *_facts(examples, place),
            ]
            cells.append(_cell(_parts(examples, place), ranges, facts))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    title = f"{len(values)} evaluated examples, {values.shape[1]} training examples of each"
    if shown != values.shape:
        title += f" (the first {shown[0]} and {shown[1]} shown)"
    return f"<table><caption>{title}</caption><tbody>{''.join(rows)}</tbody></table>"


def _leaves(first: Any, second: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True)
    return [(data.to_array(own), data.to_array(other)) for own, other in pairs]


def _range(pair: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Return what is black and what is white in the pictures of one input."""
    if not is_image(pair[0].shape[1:]) or pair[0].dtype.kind not in "fiu":
        return 0.0, 1.0
    finite = [part[np.isfinite(part)] for part in pair]
    low, high = min(part.min(initial=0) for part in finite), max(part.max(initial=0) for part in finite)
    return choose_range(float(low), float(high), pair[0].dtype)


def _parts(batch: data.Batch, place: tuple[int, ...]) -> list[np.ndarray]:
    return [data.to_array(leaf)[place] for leaf in tf.nest.flatten(batch.inputs)]


def _facts(batch: data.Batch, place: tuple[int, ...]) -> list[str]:
    found = []
    for name, part in (data.named_labels(batch.labels) | {"id": batch.ids}).items():
        if part is not None:
            own = data.to_array(part)[place]
            is_one_hot = name != "id" and np.ndim(own) == 1 and len(own) > 1
            found.append(f"{name} {int(np.argmax(own)) if is_one_hot else _words(own)}")
    return found


def _cell(parts: Sequence[np.ndarray], ranges: Sequence[tuple[float, float]], facts: Sequence[str]) -> str:
    contents = [_content(part, *limits) for part, limits in zip(parts, ranges, strict=True)]
    lines = "<br>".join([*contents, *(html.escape(fact) for fact in facts)])
    return f"<td style='text-align:center;vertical-align:top'>{lines}</td>"


def _content(array: np.ndarray, low: float, high: float) -> str:
    if array.dtype.kind in "fiu" and is_image(array.shape):
        return f"<img alt='' style='{_PICTURE}' src='{image_to_address(array, low, high)}'>"
    return html.escape(_words(array))


def _words(value: Any) -> str:
    """Return text, or the first numbers of an array."""
    flat = np.ravel(value)
    words = [_word(entry) for entry in flat[:_MAX_NUMBERS]]
    text = ", ".join(words)
    text = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
    return text if len(flat) <= _MAX_NUMBERS else f"{text}, … ({len(flat):,} numbers)"


def _word(entry: Any) -> str:
    if isinstance(entry, bytes):
        return entry.decode("utf-8", errors="replace")
    return f"{entry:.4g}" if isinstance(entry, float | np.floating) else str(entry)
