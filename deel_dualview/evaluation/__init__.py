"""How good attributions are: data perturbed in known ways, models trained on them, methods asked about them."""

from deel_dualview.evaluation.ground_truth import GroundTruth, load_ground_truth
from deel_dualview.evaluation.networks import RECIPES, Recipe
from deel_dualview.evaluation.pages import read_benchmark
from deel_dualview.evaluation.perturbations import Marks, PoisonedLabels, Subset, Superclasses
from deel_dualview.evaluation.runner import benchmark
from deel_dualview.evaluation.subset_training import SubsetModel, train_on_subsets
from deel_dualview.evaluation.tables import Benchmark
from deel_dualview.evaluation.trained_models import ImageData, Subject, load_images, subject
from deel_dualview.models.recorded_training import RecordedTraining, record_training

__all__ = [
    "RECIPES",
    "Benchmark",
    "GroundTruth",
    "ImageData",
    "Marks",
    "PoisonedLabels",
    "Recipe",
    "RecordedTraining",
    "Subject",
    "Subset",
    "SubsetModel",
    "Superclasses",
    "benchmark",
    "load_ground_truth",
    "load_images",
    "read_benchmark",
    "record_training",
    "subject",
    "train_on_subsets",
]


def __dir__() -> list[str]:
    return sorted(__all__)
