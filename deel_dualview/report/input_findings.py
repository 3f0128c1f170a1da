"""The finding about the inputs as they are, whatever the model: their order, their columns, what images look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deel_dualview.report.findings import ExampleReference, Finding, Severity
from deel_dualview.report.frames import ClassName, Row

ProblemKind = Literal[
    "order",
    "identical",
    "constant",
    "missing",
    "one-value-column",
    "constant-column",
    "identifier",
    "leaking-column",
    "odd-images",
    "shortcut",
    "shift",
]


@dataclass(frozen=True)
class OddExample:
    """An example, and what is unusual about it in a few words."""

    example: ExampleReference
    note: str


@dataclass(frozen=True)
class InputProblem:
    """One problem with the inputs: what was found, and what to do.

    `count` is that of the examples, columns or classes that it is about; `columns` are their names.
    """

    kind: ProblemKind
    severity: Severity
    title: str
    advice: str
    count: int
    examples: tuple[OddExample, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputProblems(Finding):
    """What is unusual about the inputs, most urgent first; `share` is 1 where anything is, else 0."""

    name: ClassVar[str] = "inputs"
    problems: tuple[InputProblem, ...]

    @property
    def leaking_columns(self) -> tuple[str, ...]:
        """Names of the columns of a table that give the label on their own."""
        return tuple(name for item in self.problems if item.kind == "leaking-column" for name in item.columns)

    def _rows(self, name_of: ClassName) -> list[Row]:
        del name_of
        return [
            {
                "kind": item.kind,
                "severity": item.severity.value,
                "title": item.title,
                "advice": item.advice,
                "count": item.count,
                "columns": list(item.columns),
                "train_positions": _positions(item, "train"),
                "test_positions": _positions(item, "test"),
            }
            for item in self.problems
        ]


def _positions(problem: InputProblem, split: str) -> list[int]:
    """Return the positions of the examples that a problem lists, in one set."""
    return [item.example.index for item in problem.examples if item.example.split == split]
