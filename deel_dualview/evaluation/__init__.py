"""How good attributions are: data perturbed in known ways, models trained on them, for the metrics to look for."""

from deel_dualview.evaluation.networks import RECIPES, Recipe
from deel_dualview.evaluation.perturbations import Marks, PoisonedLabels, Subset, Superclasses
from deel_dualview.evaluation.subjects import ImageData, Subject, load_images, subject

__all__ = [
    "RECIPES",
    "ImageData",
    "Marks",
    "PoisonedLabels",
    "Recipe",
    "Subject",
    "Subset",
    "Superclasses",
    "load_images",
    "subject",
]
