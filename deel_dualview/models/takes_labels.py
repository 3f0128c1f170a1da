"""Labels as a model takes them: of the output that is explained, in the form of its objective, at positions."""

from abc import ABC, abstractmethod
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.models.keras_graph import settings_of_loss
from deel_dualview.models.keras_losses import LossFunction, compiled_loss
from deel_dualview.models.labels import to_classes
from deel_dualview.models.named_outputs import NamedOutput
from deel_dualview.models.objectives import IndependentSigmoids, Objective, SoftmaxCrossEntropy
from deel_dualview.models.positions import PositionLabels, flat_position, labels_at_positions


class TakesLabels(ABC):
    """Part of InfluenceModel: brings labels into the form of its objective."""

    model: keras.Model
    _loss_function: LossFunction | None
    _output: NamedOutput | None
    _position: tuple[int, ...] | None

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """The loss of an example as a function of the outputs."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Number c of outputs that can be explained."""

    @property
    @abstractmethod
    def num_axes(self) -> int:
        """Number of axes of positions that have an output each."""

    @property
    def output_name(self) -> str | None:
        """Name of the output that is explained, None of a model with one output."""
        return None if self._output is None else self._output.name

    @property
    def num_classes(self) -> int:
        """Number of classes c of a classifier; two for one with one output.

        Raises:
            ValueError: the model is no classifier.
        """
        require(
            self.is_classifier,
            "This needs a classifier of examples that have one class each. Was it trained with another loss? Then pass "
            "InfluenceModel(model, loss_function=SoftmaxCrossEntropy()). Other models are explained by `top_k` of a "
            "calculator, such as DualView.",
            {"objective": self.objective},
        )
        return self.num_outputs

    @property
    def is_classifier(self) -> bool:
        """Whether every example has one of c classes."""
        return isinstance(self.objective, SoftmaxCrossEntropy)

    def refuse_positions(self, what: str) -> None:
        """Raise an error if the model has an output at each position.

        Args:
            what: needs one output an example, for the message.
        """
        require(
            self.num_axes == 0,
            f"{what} is of models with one output an example. Those with an output at each position are explained by "
            "methods of the last layer: DualView, GradDot, FirstOrderInfluenceCalculator, RepresenterPointL2, ...",
            {"axes of positions": self.num_axes},
        )

    def to_targets(self, labels: tf.Tensor | np.ndarray) -> np.ndarray:
        """Return labels in the form of the objective: classes (b,), int64, or rows of numbers (b, c), float32.

        Raises:
            ValueError: labels that do not fit the objective.
        """
        return self.objective.targets(np.asarray(self.own_labels(labels)), self.num_outputs)

    def query_labels(self, labels: Any) -> Any:
        """Return the labels of evaluated examples at the explained position; as they are where there is none."""
        if labels is None or self.num_axes == 0:
            return labels
        own = np.asarray(self.own_labels(labels))
        flat = own.reshape((len(own), -1, *own.shape[1 + self.num_axes :]))
        return flat[:, flat_position(self._position, own.shape[1 : 1 + self.num_axes])]

    def training_targets(self, labels: Any) -> np.ndarray:
        """Return the targets of training examples; of a model with positions those of all that count."""
        return self.to_targets(labels) if self.num_axes == 0 else self.position_labels(labels).of_kept()

    def position_labels(self, labels: Any, shape: tuple[int, ...] | None = None) -> PositionLabels:
        """Return labels (b, *positions) or (b, *positions, c) in the form of the objective.

        Negative classes, and the class that a compiled loss ignores, do not count.

        Args:
            labels: of b examples.
            shape: of the positions of their outputs, where it is known.

        Raises:
            ValueError: labels that do not fit the objective or the positions.
        """
        own = np.asarray(self.own_labels(labels))
        require(
            shape is None or own.shape[1 : 1 + self.num_axes] == shape,
            f"Labels must have one entry for each of the outputs of an example, of shape {shape}.",
            {"shape of the labels": own.shape},
        )
        ignored = settings_of_loss(self._loss_function or self._compiled_loss).get("ignore_class")
        is_number = not isinstance(self.objective, SoftmaxCrossEntropy | IndependentSigmoids)
        return labels_at_positions(own, self.num_axes, self.to_targets, ignored=ignored, is_number=is_number)

    def own_labels(self, labels: Any) -> Any:
        """Return the labels of the output that is explained, from those of all outputs: a dict or a tuple.

        Raises:
            ValueError: they have no entry of it, or the model has one output.
        """
        if isinstance(labels, list):
            return np.asarray(labels)
        if self._output is not None:
            return self._output.pick(labels, "The labels")
        parts = tf.nest.flatten(labels)
        require(
            len(parts) == 1,
            "The labels of a model with one output must be one tensor: map the dataset to `(inputs, labels)`; several "
            "unlabelled inputs go in one tuple or dict, as in `((a, b),)`.",
            {"labels": labels},
        )
        return parts[0]

    def to_classes(self, labels: tf.Tensor | np.ndarray) -> np.ndarray:
        """Return labels of a classifier with one output an example as class indices, shape (b,), int64.

        Args:
            labels: integers or whole numbers of shape (b,) or (b, 1), or one-hot rows of shape (b, c) of any type.

        Raises:
            ValueError: class indices that are not whole numbers, a one-hot width that is not c, rows that are not
                one-hot, or a class outside 0..c-1.
        """
        self.refuse_positions("This")
        return to_classes(np.asarray(self.own_labels(labels)), self.num_classes)

    @property
    def _compiled_loss(self) -> Any:
        return compiled_loss(self.model) if self._output is None else self._output.compiled_loss()
