"""The finding about inputs that are not numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deel_dualview.report.findings import Finding
from deel_dualview.report.frames import ClassName, Row


@dataclass(frozen=True, kw_only=True)
class NotFiniteInputs(Finding):
    """Examples with NaN or infinity in their inputs, by position; `share` of all training and test examples.

    Only in audits that found some. The audit reads these numbers as 0, and shows none of these examples elsewhere.
    """

    name: ClassVar[str] = "not-finite"
    train_positions: tuple[int, ...]
    test_positions: tuple[int, ...]

    def _rows(self, name_of: ClassName) -> list[Row]:
        del name_of
        return [
            {"split": split, "position": position}
            for split, positions in (("train", self.train_positions), ("test", self.test_positions))
            for position in positions
        ]
