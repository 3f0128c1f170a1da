"""What has changed since an earlier audit, by its `audit.json`."""

from __future__ import annotations

import json
import math
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
        accuracy: on its test labels, None where it had none.
        num_test: its test examples.
    """

    created: str
    counts: dict[str, int | str | None]
    class_names: tuple[str, ...]
    accuracy: float | None = None
    num_test: int = 0

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

    def __str__(self) -> str:
        name = MEANINGS[self.name]
        if self.before == self.after:
            return f"{name} {_write(self.after)}"
        return f"{name} {_write(self.before)} → {_write(self.after)}"


class Changes(NamedTuple):
    """What is different from an audit at `created`.

    Attributes:
        created: when the earlier audit was made.
        items: findings that both audits have.
        accuracy: on the test labels, then and now; None without labels, or where the test sets differ in size.
        num_test: test examples of both.
    """

    created: str
    items: tuple[Change, ...]
    accuracy: tuple[float, float] | None = None
    num_test: int = 0

    def __str__(self) -> str:
        parts = [] if self.accuracy is None else [self._accuracy(*self.accuracy)]
        for meaning, items in self._grouped().items():
            if items:
                parts.append(f"{meaning}: {', '.join(map(str, items))}")
        text = f"Since the audit of {self.created}: {'; '.join(parts) or 'nothing that both audits have'}."
        by_name = {item.name: item for item in self.items}
        copies, conflicts = by_name.get("duplicates"), by_name.get("duplicates-conflicting")
        if copies and conflicts and _rise(copies) > 0 > _rise(conflicts):
            text += " Duplicates whose labels were corrected now count as duplicates of the same label: no new fault."
        return text

    def _accuracy(self, before: float, after: float) -> str:
        if before == after:
            return f"right on {after:.1%} of the test labels, as before"
        # Both are of one test set, as a rule, so that chance makes less: an upper bound.
        error = math.sqrt((before * (1 - before) + after * (1 - after)) / max(self.num_test, 1))
        word = "better" if after > before else "worse"
        chance = ", but chance may make as much" if abs(after - before) <= 2 * error else ""
        return f"right on {before:.1%} → {after:.1%} of the test labels ({word}{chance})"

    def _grouped(self) -> dict[str, list[Change]]:
        """Return the findings by what has become of them."""
        groups: dict[str, list[Change]] = {"fewer": [], "more": [], "changed": [], "as before": []}
        for item in self.items:
            rise = _rise(item)
            if item.before == item.after:
                groups["as before"].append(item)
            else:
                groups["changed" if not rise else "fewer" if rise < 0 else "more"].append(item)
        return groups


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
        accuracy = overview["test_accuracy"]
        return Earlier(
            str(overview["created"]),
            findings,
            tuple(map(str, overview["class_names"])),
            None if accuracy is None else float(accuracy),
            int(overview["num_test"]),
        )
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            describe(
                "`since` must be the file audit.json of an earlier audit, written by this version.",
                {"since": str(path)},
            )
        ) from error


def find_changes(
    earlier: Earlier, findings: Sequence[Finding], *, accuracy: float | None = None, num_test: int = 0
) -> Changes:
    """Compare the counts of findings that both audits have, and the accuracy.

    Args:
        earlier: audit.
        findings: of this one.
        accuracy: on the test labels now, None without labels.
        num_test: test examples now; of another number than then the accuracies are not compared.
    """
    compared = None
    if earlier.num_test == num_test and accuracy is not None and earlier.accuracy is not None:
        compared = (earlier.accuracy, accuracy)
    return Changes(
        earlier.created,
        tuple(
            Change(finding.name, earlier.counts[finding.name], _count(to_json(finding)))
            for finding in findings
            if finding.name in MEANINGS and finding.name in earlier.counts
        ),
        compared,
        num_test,
    )


def _rise(item: Change) -> int:
    """Return by how much a count has risen, 0 where one of both is no number."""
    return item.after - item.before if isinstance(item.after, int) and isinstance(item.before, int) else 0


def _count(item: Mapping[str, Any]) -> int | str | None:
    """Return what a finding, as JSON has it, counts."""
    if item["share"] is None:
        return None
    return f"at most {item['at_most']:,}" if item.get("status") == "at most" else int(item["count"])


def _write(count: int | str | None) -> str:
    if count is None:
        return "cannot tell"
    return count if isinstance(count, str) else f"{count:,}"
