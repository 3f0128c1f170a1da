"""Findings about the data that any audit looks for: inputs of another scale, outliers, classes the model is weak in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deel_dualview.report.findings import ExampleReference, Finding
from deel_dualview.report.frames import ClassName, Row, example_columns


@dataclass(frozen=True)
class ValueRange:
    """The numbers of one input of one set, from `low` to `high`."""

    split: str
    number: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class InputScale(Finding):
    """Inputs that cannot be those that the model was trained on. Only in audits that found it.

    Either the model is no better than always naming one class on its own training set (`is_guessing`), or the numbers
    of one set are of another size than those of the other, or `training_loss` (mean cross-entropy in nats, else None)
    is above that of guessing.
    """

    name: ClassVar[str] = "inputs-scale"
    is_guessing: bool
    training_accuracy: float
    training_loss: float | None = None
    ranges: tuple[ValueRange, ...]

    @property
    def is_of_numbers(self) -> bool:
        """Whether it is about the labels of a regression."""
        return False


@dataclass(frozen=True, kw_only=True)
class NumbersNotLearned(InputScale):
    """The same of a regression: on its own training set it is no better than the mean of the labels."""

    @property
    def is_of_numbers(self) -> bool:
        return True


@dataclass(frozen=True)
class Outlier:
    """An example far from all training examples: `ratio` times the usual distance to the tenth nearest one."""

    example: ExampleReference
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Outliers(Finding):
    """Examples far from all training examples in the model's features, farthest first; `share` of both sets.

    A page shows the first `num_shown` of them.
    """

    name: ClassVar[str] = "outliers"
    num_shown: ClassVar[int] = 12
    num_train: int
    num_test: int
    examples: tuple[Outlier, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                "split": item.example.split,
                **example_columns(item.example, name_of),
                "times_usual_distance": item.ratio,
            }
            for item in self.examples
        ]


@dataclass(frozen=True)
class ClassAccuracy:
    """A class: its examples in both sets, how many of its test labels are predicted, and whether that is too few."""

    label: int
    num_train: int
    num_test: int
    num_right: int
    is_weak: bool


@dataclass(frozen=True, kw_only=True)
class WeakClasses(Finding):
    """Classes of which the model predicts fewer test labels than of all, beyond chance; `share` of the classes.

    Only in audits of a test set with labels.
    """

    name: ClassVar[str] = "weak-classes"
    classes: tuple[ClassAccuracy, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                "label": name_of(item.label),
                "training_examples": item.num_train,
                "test_examples": item.num_test,
                "predicted_right": item.num_right,
                "weak": item.is_weak,
            }
            for item in self.classes
        ]
