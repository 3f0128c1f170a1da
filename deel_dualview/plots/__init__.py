"""Pictures of arrays as Matplotlib figures: no model, no dataset, no global state of pyplot."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deel_dualview.plots.audit import column_relevance, pair_relevance, token_relevance

__all__ = ["column_relevance", "pair_relevance", "token_relevance"]


def __getattr__(name: str) -> Any:
    # Matplotlib is imported by the first figure: names are formatted for the command line without it.
    return getattr(import_module("deel_dualview.plots.audit"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
