"""A model that is made of a feature extractor and a head."""

import keras
import tensorflow as tf

from deel_dualview.models.inputs import Structure, structure_of
from deel_dualview.typing import Inputs


@keras.saving.register_keras_serializable("deel_dualview")
class Composed(keras.Model):
    """A feature extractor followed by a head."""

    def __init__(self, feature_extractor: keras.Layer, head: keras.Layer) -> None:
        super().__init__(name="feature_extractor_and_head")
        self.feature_extractor = feature_extractor
        self.head = head

    @property
    def _inputs_struct(self) -> Structure:
        """The feature extractor's inputs, where Keras and `structure_of` look for them."""
        return structure_of(self.feature_extractor)

    def call(self, inputs: Inputs, training: bool = False) -> tf.Tensor:
        return self.head(self.feature_extractor(inputs, training=training), training=training)
