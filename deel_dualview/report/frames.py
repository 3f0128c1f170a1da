"""Rows of what a finding lists, for a DataFrame: examples by position, id and label, classes by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pandas as pd

    from deel_dualview.report.findings import ExampleReference, ExplainedPrediction, SimilarPair

ClassName: TypeAlias = Callable[[int | None], str | int | None]
Row: TypeAlias = dict[str, Any]


def namer(class_names: Sequence[str] | None) -> ClassName:
    """Return what writes a class: its name, or its number where there are no names; None stays None."""
    return lambda label: label if label is None or class_names is None else class_names[label]


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a DataFrame, without columns of ids where no example has one; pandas is imported here."""
    import pandas as pd

    names = [
        name for name in (rows[0] if rows else ()) if not (name.endswith("id") and _is_empty(rows, name))
    ]
    return pd.DataFrame(rows, columns=names)


def _is_empty(rows: Sequence[Row], name: str) -> bool:
    return all(row[name] is None for row in rows)


def example_columns(example: ExampleReference, name_of: ClassName, prefix: str = "") -> Row:
    """Return position, id and label of an example; of several numbers or independent labels a tuple."""
    labels = getattr(example, "labels", None)
    return {
        f"{prefix}position": example.index,
        f"{prefix}id": example.id,
        f"{prefix}label": name_of(example.label)
        if labels is None
        else labels
        if len(labels) > 1
        else labels[0],
    }


def pair_row(pair: SimilarPair, name_of: ClassName, prefixes: tuple[str, str]) -> Row:
    """Return the row of two examples that look alike."""
    return {
        **example_columns(pair.first, name_of, prefixes[0]),
        **example_columns(pair.second, name_of, prefixes[1]),
        "similarity": pair.similarity,
        "identical": pair.is_identical,
    }


def prediction_row(item: ExplainedPrediction, name_of: ClassName) -> Row:
    """Return the row of a prediction; its proponents and opponents are positions in the training set."""
    return {
        **example_columns(item.example, name_of),
        "predicted_label": name_of(item.prediction),
        "confidence": item.confidence,
        "proponents": [own.example.index for own in item.proponents],
        "opponents": [own.example.index for own in item.opponents],
    }
