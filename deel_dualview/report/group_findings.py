"""The finding about weak groups: test examples that the model is wrong on more often than on others of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deel_dualview.report.findings import ExampleReference, Finding
from deel_dualview.report.frames import ClassName, Row

GroupKind = Literal["features", "proponents", "column", "given"]


@dataclass(frozen=True)
class GroupMember:
    """A test example of a group, with the model's prediction."""

    example: ExampleReference
    prediction: int


@dataclass(frozen=True)
class WeakGroup:
    """Test examples on which the model is wrong more often than on others of their classes, beyond chance.

    Args:
        kind: what the examples have in common. `"features"`: examples of class `label` that are alike to the model.
            `"proponents"`: predictions of class `label` that have `proponent` among their strongest proponents.
            `"column"`: values of a column of the inputs. `"given"`: values of the argument `groups`.
        name: of the column, or of the given groups; empty for the other kinds.
        value: the value, or the range of values; empty for the other kinds.
        label: a class, or None.
        proponent: a training example, or None.
        num_test: number of test examples.
        num_right: how many of them are predicted right.
        expected: the share that would be right if the group were as good as the rest: as its classes (of
            `"proponents"`, its predictions) are in the whole test set.
        num_train: number of training examples of the group; None where it is not known.
        chance: the probability of so many errors by chance, corrected for the number of groups of this kind.
        examples: the most typical ones (`"features"`), or the wrong ones that the model is surest of.
    """

    kind: GroupKind
    name: str
    value: str
    label: int | None
    proponent: ExampleReference | None
    num_test: int
    num_right: int
    expected: float
    num_train: int | None
    chance: float
    examples: tuple[GroupMember, ...]


@dataclass(frozen=True, kw_only=True)
class WeakGroups(Finding):
    """Groups that the model is weak in, of least chance first; `share` of the test examples that are in one of them.

    Only in audits of a test set with labels. `num_examined` is the number of groups that were tested.
    """

    name: ClassVar[str] = "weak-groups"
    num_examined: int
    groups: tuple[WeakGroup, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        return [
            {
                "kind": item.kind,
                "name": item.name,
                "value": item.value,
                "label": name_of(item.label),
                "proponent": None if item.proponent is None else item.proponent.index,
                "test_examples": item.num_test,
                "predicted_right": item.num_right,
                "expected_share_right": item.expected,
                "training_examples": item.num_train,
                "chance": item.chance,
            }
            for item in self.groups
        ]
