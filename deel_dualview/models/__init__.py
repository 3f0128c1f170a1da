"""Keras models as what calculators need: features, outputs, losses, labels."""

from deel_dualview.models.influence_model import InfluenceModel

__all__ = [
    "InfluenceModel",
]
