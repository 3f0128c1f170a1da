"""Weights of classes in the training objective, as in `model.fit(class_weight=...)`."""

from collections.abc import Mapping

import numpy as np

from deel_dualview._checks import describe, is_number, require


class ClassWeights:
    """Weights by class; those that are not named have weight 1.

    Args:
        class_weight: from class indices to weights; None for no weights.

    Raises:
        TypeError: it is no mapping from classes to numbers.
        ValueError: a class or a weight that is negative, or a weight that is not finite.
    """

    def __init__(self, class_weight: Mapping[int, float] | None) -> None:
        given = {} if class_weight is None else class_weight
        if not isinstance(given, Mapping) or not all(
            isinstance(index, int | np.integer) and is_number(weight) for index, weight in given.items()
        ):
            raise TypeError(
                describe(
                    "`class_weight` must map class indices to numbers, as in {0: 1.0, 1: 5.0}.",
                    {"class_weight": class_weight},
                )
            )
        require(
            all(index >= 0 and 0 <= weight < np.inf for index, weight in given.items()),
            "Classes and weights of `class_weight` must not be negative, and weights be finite.",
            {"class_weight": class_weight},
        )
        self._weights = {int(index): float(weight) for index, weight in sorted(given.items())}

    def __bool__(self) -> bool:
        return bool(self._weights)

    def __str__(self) -> str:
        return f"class_weight={self._weights}"

    def of_examples(
        self, classes: np.ndarray | None, sample_weight: np.ndarray | None, num_classes: int
    ) -> np.ndarray:
        """Return the weights w_i of training examples in their objective `1/n sum_i w_i loss_i`, shape (b,), float32.

        Args:
            classes: of the examples, shape (b,).
            sample_weight: weights of the examples themselves, shape (b,), which are multiplied by those of classes.
            num_classes: of the model.

        Raises:
            ValueError: no labels, or a class that the model does not have.
        """
        outside = [index for index in self._weights if index >= num_classes]
        if classes is None or outside:
            needed = f"`class_weight` needs labels, and classes 0..{num_classes - 1} of the model."
            raise ValueError(describe(needed, {"classes that it does not have": outside}))
        weights = np.ones(num_classes, np.float32)
        weights[list(self._weights)] = list(self._weights.values())
        return weights[classes] if sample_weight is None else weights[classes] * sample_weight
