"""How good attributions are: data perturbed in known ways, for the metrics to look for."""

from deel_dualview.evaluation.perturbations import Marks, PoisonedLabels, Subset, Superclasses

__all__ = ["Marks", "PoisonedLabels", "Subset", "Superclasses"]
