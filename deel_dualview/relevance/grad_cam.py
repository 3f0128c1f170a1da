"""Grad-CAM of the influence of a pair: the last feature maps, weighed by their mean gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.models import InfluenceModel
from deel_dualview.models.inputs import spread, structure_of
from deel_dualview.models.keras_graph import Graph, Ref
from deel_dualview.relevance.base import BackEnd, Explainer, Side
from deel_dualview.relevance.gradients import tf_explain
from deel_dualview.relevance.layerwise import feature_function, feature_graph
from deel_dualview.relevance.occlusion import check_images
from deel_dualview.relevance.scores import single_input
from deel_dualview.typing import Inputs


@dataclass(frozen=True)
class GradCAM(BackEnd):
    """The last feature maps of the network times their mean gradients, enlarged to the image.

    Signed, where Grad-CAM keeps what is positive, and with all gradients, where tf-explain keeps the positive ones.
    Enlarging keeps the sum, which is the influence where features are means of the maps and it is linear in them;
    channels share alike. The maps are weighed by tf-explain's helper; it finds them by a call that Keras 3 does not
    know, so that is done here.

    Attributes:
        layer: name of the layer that ends in the maps; by default the last whose output is larger than 1 x 1.

    Source: Selvaraju et al. (2017), equations 1 and 2.
    """

    layer: str | None = None

    def prepare(self, model: InfluenceModel) -> Explainer:
        """Return the explainer.

        Raises:
            ValueError: the model is subclassed or has no feature maps.
            ImportError: tf-explain is not installed.
        """
        tf_explain()
        maps = _MapGradients(feature_graph(model), self.layer)
        features_of = feature_function(model)
        structure = structure_of(model.model)

        def explain(side: Side) -> Inputs:
            inputs = single_input(structure, side.inputs)
            return spread(structure, side.inputs, [_of_side(features_of, maps, inputs, side)])

        return explain


def _of_side(
    features_of: Callable[[tf.Tensor], tf.Tensor], maps: _MapGradients, inputs: tf.Tensor, side: Side
) -> tf.Tensor:
    check_images(inputs, "grad-cam")
    num_rows = side.start.shape[0]
    inputs = tf.repeat(inputs, num_rows // inputs.shape[0], axis=0)
    features = features_of(inputs)
    with tf.GradientTape() as tape:
        tape.watch(features)
        influence = side.influence.of_features(features, tf.range(num_rows).numpy())
    outputs, gradients = maps(inputs, tape.gradient(influence, features))
    weighed = tf.stack(tf_explain().GradCAM.generate_ponderated_output(outputs, gradients))
    enlarged = tf.image.resize(weighed[..., tf.newaxis], inputs.shape[1:3])
    shrunk = weighed.shape[1] * weighed.shape[2] / (inputs.shape[1] * inputs.shape[2] * inputs.shape[3])
    return tf.repeat(enlarged * shrunk, inputs.shape[3], axis=3)


class _MapGradients:
    """Feature maps of a graph, and the gradients of its output with respect to them."""

    def __init__(self, graph: Graph, layer: str | None) -> None:
        self._graph = graph
        self._layer = layer
        self._function = tf.function(self._trace, autograph=False, reduce_retracing=True)

    def __call__(self, inputs: tf.Tensor, cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return maps (b, h, w, channels) and the gradient of <cotangent, features> with respect to them."""
        specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in (inputs, cotangent)]
        self._function.get_concrete_function(*specs)
        return self._function(inputs, cotangent)

    def _trace(self, inputs: tf.Tensor, cotangent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = self._graph.run([inputs])
            features = tf.reshape(values[self._graph.outputs[0]], tf.shape(cotangent))
        maps = self._last_maps(values)
        return maps, tape.gradient(features, maps, output_gradients=cotangent)

    def _last_maps(self, values: dict[Ref, Any]) -> tf.Tensor:
        found = [
            values[step.outputs[0]]
            for step in self._graph.steps
            if self._layer in (None, step.name) and _is_map(values[step.outputs[0]])
        ]
        require(
            bool(found),
            "Grad-CAM needs a layer whose output is a map of features, of shape (b, height, width, channels).",
            {"layer": self._layer, "layers": [step.name for step in self._graph.steps]},
        )
        return found[-1]


def _is_map(tensor: tf.Tensor) -> bool:
    return tensor.shape.rank == 4 and (tensor.shape[1] or 2) * (tensor.shape[2] or 2) > 1
