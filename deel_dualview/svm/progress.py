"""A bar of how far the dual solver's gap has come on its way to the tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from deel_dualview.svm.solution import SolverProgress

_DELAY = 1.0  # seconds: a shorter solve shows no bar


class GapBar:
    """Shows the relative gap on a logarithmic scale, from the first one known to the tolerance; never goes back.

    Penalties count alike, in increasing order, as `DualSVMSolver.fit_path` takes them. A stage at another penalty,
    by way of which the solver may come to a large one, moves nothing.

    Args:
        Ks: absolute penalties that are solved for.
        progress: whether the bar is shown (on a terminal only, and only for a solve that takes long).
        stream: where the bar goes; the error stream by default.
    """

    def __init__(self, Ks: Sequence[float], *, progress: bool, stream: TextIO | None = None):
        self._penalties = sorted(set(Ks))
        self._first: dict[float, float] = {}
        self._bar = tqdm(
            total=len(self._penalties),
            desc="Fitting the surrogate",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
            leave=False,
            delay=_DELAY,
            disable=None if progress else True,
            file=stream,
        )
        self.position = 0.0

    def update(self, state: SolverProgress) -> None:
        """Move to where the solver stands; a `progress` of `DualSVMSolver`."""
        self.position = max(self.position, self._position(state))
        gap = f"gap {state.estimated_gap:.1e}, " if state.estimated_gap < math.inf else ""
        self._bar.set_postfix_str(f"{gap}tolerance {state.tolerance:.0e}", refresh=False)
        self._bar.update(self.position - self._bar.n)

    def _position(self, state: SolverProgress) -> float:
        if state.K not in self._penalties:
            return 0.0
        done = self._penalties.index(state.K)
        if not 0 < state.estimated_gap < math.inf:
            return done + float(state.estimated_gap <= 0)
        first = self._first.setdefault(state.K, state.estimated_gap)
        way = math.log(max(first / state.tolerance, 1.0))
        left = math.log(max(state.estimated_gap / state.tolerance, 1.0))
        return done + (1.0 - left / way if way else 1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
