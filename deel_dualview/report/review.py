"""The section of label issues as a place to work: what its filters, its script and its table of corrections need."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from deel_dualview.report.findings import ExampleReference, LabelErrors, LabelIssue

_SCRIPT = pathlib.Path(__file__).parent / "review.js"
PAGE_OF_PICTURES, PAGE_OF_OTHERS = 24, 12
"""Label issues before the first "more": pictures are small, texts and rows of a table are not."""
_SHORTEST_PREFIX = 8


class PairRow(NamedTuple):
    """Label issues of one pair of classes: how many are listed, and how many there are by the count, if any."""

    given: int
    suggested: int
    number: int
    estimate: float | None


class Review(NamedTuple):
    """What the section shows.

    Attributes:
        pairs: of the listed issues, most frequent first.
        first: issues before the first "more".
        largest: the highest score, or 0.
        id_prefix: what all ids begin with, "" where that is short.
    """

    pairs: tuple[PairRow, ...]
    first: int
    largest: float
    id_prefix: str


def review_of(finding: LabelErrors, *, has_pictures: bool, id_prefix: str) -> Review:
    """Return what the section of label issues shows beside the issues themselves.

    Args:
        finding: with its issues.
        has_pictures: whether examples are pictures.
        id_prefix: what all ids begin with.
    """
    counts = Counter((_class_of(item), item.suggested_label) for item in finding.issues)
    estimates = {(pair.given, pair.suggested): pair.estimate for pair in finding.class_pairs}
    rows = [PairRow(*pair, number, estimates.get(pair)) for pair, number in counts.items()]
    return Review(
        pairs=tuple(sorted(rows, key=lambda row: (-row.number, -(row.estimate or 0)))),
        first=PAGE_OF_PICTURES if has_pictures else PAGE_OF_OTHERS,
        largest=max([item.score for item in finding.issues] + [0.0]),
        id_prefix=id_prefix,
    )


def common_prefix(ids: Sequence[Any] | None) -> str:
    """Return what all ids begin with where it is long enough to be a nuisance, else ""."""
    if ids is None or len(ids) < 2:
        return ""
    texts = [value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value for value in ids]
    if not all(isinstance(text, str) for text in texts):
        return ""
    prefix = os.path.commonprefix(texts)
    return prefix if len(prefix) >= _SHORTEST_PREFIX and prefix not in texts else ""


def short_id(example: ExampleReference, prefix: str) -> str:
    """Return an example's id without `prefix`, "" where it has none or where it repeats the position."""
    text = "" if example.id is None else str(example.id)
    text = text.removeprefix(prefix)
    return "" if text == str(example.index) else text


def exact(value: Any) -> str:
    """Write a name or an id as JSON in ASCII.

    A page writes unseen characters so that they are seen; a script that exports a name needs it as it is.
    """
    return json.dumps(value, ensure_ascii=True)


def read_script() -> Markup:
    """Return the script of the section."""
    return Markup(_SCRIPT.read_text(encoding="utf-8"))


def content_hash(text: str) -> str:
    """Return the source expression by which a content security policy allows exactly this script or style sheet."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _class_of(item: LabelIssue) -> int:
    """Return the given label, which every training example has."""
    label = item.example.label
    return -1 if label is None else label
