"""What has changed since an earlier audit, by its `audit.json`."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from deel_dualview._checks import describe, require
from deel_dualview.report.findings import Finding
from deel_dualview.report.writing import to_json

MEANINGS = {
    "label-errors": "wrong training labels",
    "wrong-predictions": "wrong test predictions",
    "leaks": "leaks",
    "duplicates-conflicting": "duplicates of another label",
    "duplicates": "duplicates of the same label",
    "outliers": "outliers",
    "weak-classes": "weak classes",
    "inputs": "things unusual about the inputs",
    "weak-groups": "weak groups",
    "not-finite": "examples with NaN or infinity",
}
"""The findings that are compared, as a page calls them."""


class Earlier(NamedTuple):
    """An earlier audit.

    Attributes:
        created: when, as its page says.
        counts: of its findings, by their names; None where the number was unknown.
        class_names: of its classes.
    """

    created: str
    counts: dict[str, int | str | None]
    class_names: tuple[str, ...]

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Refuse an audit of other classes; classes that only one of both audits has names for are the same.

        Raises:
            ValueError: another number of classes, or other names.
        """
        numbers = tuple(map(str, range(len(class_names))))
        names = tuple(class_names)
        is_same = names == self.class_names or (
            len(names) == len(self.class_names) and numbers in (names, self.class_names)
        )
        require(
            is_same,
            "`since` must be an audit of the same classes, in the same order: choose an earlier audit of this model.",
            {"classes then": list(self.class_names), "classes now": list(names)},
        )


class Change(NamedTuple):
    """A finding then and now.

    Attributes:
        name: of the finding.
        before: its count in the earlier audit, or "at most ..."; None where that was unknown.
        after: the same now.
    """

    name: str
    before: int | str | None
    after: int | str | None


class Changes(NamedTuple):
    """What is different from an audit at `created`."""

    created: str
    items: tuple[Change, ...]

    def __str__(self) -> str:
        parts = [f"{MEANINGS[item.name]} {_write(item.before)} → {_write(item.after)}" for item in self.items]
        return f"Since the audit of {self.created}: {'; '.join(parts) or 'nothing that both audits have'}."


def read_earlier(path: str | os.PathLike[str]) -> Earlier:
    """Read the `audit.json` of an earlier audit.

    Args:
        path: of the file, or of its folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is another file, or that of another version of this library.
    """
    try:
        path = pathlib.Path(path)
        if path.is_dir():
            path = path / "audit.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        findings = {item["name"]: _count(item) for item in content["findings"]}
        overview = content["overview"]
        return Earlier(str(overview["created"]), findings, tuple(map(str, overview["class_names"])))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            describe(
                "`since` must be the file audit.json of an earlier audit, written by this version.",
                {"since": str(path)},
            )
        ) from error


def find_changes(earlier: Earlier, findings: Sequence[Finding]) -> Changes:
    """Compare the counts of findings that both audits have."""
    return Changes(
        earlier.created,
        tuple(
            Change(finding.name, earlier.counts[finding.name], _count(to_json(finding)))
            for finding in findings
            if finding.name in MEANINGS and finding.name in earlier.counts
        ),
    )


def _count(item: Mapping[str, Any]) -> int | str | None:
    """Return what a finding, as JSON has it, counts."""
    if item["share"] is None:
        return None
    return f"at most {item['at_most']:,}" if item.get("status") == "at most" else int(item["count"])


def _write(count: int | str | None) -> str:
    if count is None:
        return "cannot tell"
    return count if isinstance(count, str) else f"{count:,}"
