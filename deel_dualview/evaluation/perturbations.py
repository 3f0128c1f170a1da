"""Known changes of a dataset, made lazily, that leave every example at its position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, require
from deel_dualview.evaluation.perturbation import (
    Perturbation,
    checked_classes,
    checked_share,
    indicator,
    table,
    with_positions,
)


@dataclass(frozen=True, eq=False)
class PoisonedLabels(Perturbation):
    """Wrong labels at some positions.

    Attributes:
        indices: positions, increasing, shape (p,).
        labels: their wrong classes, shape (p,).
    """

    indices: np.ndarray
    labels: np.ndarray

    @classmethod
    def draw(cls, labels: Any, share: float, num_classes: int, *, seed: int) -> Self:
        """Give each example with probability `share` another class, all others being as likely.

        Args:
            labels: true classes, shape (n,).
            share: probability, between 0 and 1.
            num_classes: c, at least 2.
            seed: of the draw.

        Raises:
            ValueError: a share outside of 0..1, fewer than two classes, or a label outside of 0..c-1.
        """
        classes = checked_classes(labels)
        require(
            check_count("num_classes", num_classes) >= 2,
            "At least two classes are needed.",
            {"num_classes": num_classes},
        )
        require(
            bool(((classes >= 0) & (classes < num_classes)).all()),
            f"Labels must be classes 0..{num_classes - 1}.",
            {"labels": np.unique(classes).tolist()},
        )
        generator = np.random.default_rng(seed)
        indices = np.flatnonzero(generator.random(len(classes)) < checked_share(share))
        shift = generator.integers(1, num_classes, len(indices))
        return cls(indices, (classes[indices] + shift) % num_classes)

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the dataset with the wrong labels."""
        entries = table(self.indices, self.labels)

        def poison(positions: tf.Tensor, element: Any) -> Any:
            inputs, labels, *rest = element
            wrong = tf.cast(entries.lookup(positions), labels.dtype)
            shape = tf.shape(labels)
            changed = tf.where(wrong < 0, tf.reshape(labels, [-1]), wrong)
            return inputs, tf.reshape(changed, shape), *rest

        return with_positions(dataset).map(poison)

    def is_poisoned(self, num_examples: int) -> np.ndarray:
        """Return whether each of n examples has a wrong label, shape (n,), as the metrics take it."""
        return indicator(self.indices, num_examples)


@dataclass(frozen=True, eq=False)
class Superclasses(Perturbation):
    """Classes in groups.

    Attributes:
        group_of: group of each class, shape (c,).
    """

    group_of: np.ndarray

    @classmethod
    def pairs(cls, num_classes: int) -> Self:
        """Return the groups {0, 1}, {2, 3} and so on, as in the DualView paper."""
        return cls(np.arange(check_count("num_classes", num_classes)) // 2)

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the dataset with groups as labels."""
        groups = tf.constant(self.group_of)

        def regroup(inputs: Any, labels: tf.Tensor, *rest: Any) -> Any:
            return inputs, tf.cast(tf.gather(groups, tf.cast(labels, tf.int64)), labels.dtype), *rest

        data.check_batched(dataset, "dataset")
        return dataset.map(regroup)


@dataclass(frozen=True, eq=False)
class Marks(Perturbation):
    """A frame and a centred square, in the first channel of images at some positions.

    The first channel of a marked pixel becomes the largest value, the others 0.

    Attributes:
        indices: positions of the marked examples, increasing, shape (p,).
        frame: width of the frame in pixels.
        square: side of the square in pixels.
        largest: value of full intensity, 1 or 255.

    Source: DualView, section 5 (domain mismatch).
    """

    indices: np.ndarray
    frame: int = 2
    square: int = 6
    largest: float = 255.0

    @classmethod
    def draw(cls, labels: Any, marked_class: int, share: float, *, seed: int, largest: float = 255.0) -> Self:
        """Mark each example of one class with probability `share`.

        Args:
            labels: classes, shape (n,).
            marked_class: the class.
            share: probability, between 0 and 1.
            seed: of the draw.
            largest: value of full intensity in the images.

        Raises:
            ValueError: a share outside of 0..1, or no example of that class.
        """
        classes = checked_classes(labels)
        of_class = classes == marked_class
        require(
            bool(of_class.any()),
            "There is no example of the class to mark.",
            {"marked_class": marked_class, "classes": np.unique(classes).tolist()},
        )
        drawn = np.random.default_rng(seed).random(len(classes)) < checked_share(share)
        return cls(np.flatnonzero(of_class & drawn), largest=largest)

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the dataset with the marks."""
        entries = table(self.indices, np.ones(len(self.indices), np.int64))

        def mark(positions: tf.Tensor, element: Any) -> Any:
            images, *rest = element
            chosen = tf.reshape(entries.lookup(positions) > 0, [-1, 1, 1, 1])
            return tf.where(chosen, self.mark(images), images), *rest

        return with_positions(dataset).map(mark)

    def mark(self, images: Any) -> tf.Tensor:
        """Return images with the mark, all of them, such as the test images that metrics ask about.

        Args:
            images: shape (m, height, width, channels).
        """
        images = tf.convert_to_tensor(images)
        height, width, channels = images.shape[1:]
        colour = tf.one_hot(0, channels, on_value=self.largest, off_value=0.0)
        is_marked = self.mask(height, width)[None, :, :, None]
        return tf.where(is_marked, tf.cast(colour, images.dtype), images)

    def mask(self, height: int, width: int) -> np.ndarray:
        """Return where the mark lies, shape (height, width), boolean."""
        rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
        inner = (rows >= self.frame) & (rows < height - self.frame)
        inner = inner & (columns >= self.frame) & (columns < width - self.frame)
        top, left = (height - self.square) // 2, (width - self.square) // 2
        square = (rows >= top) & (rows < top + self.square)
        return ~inner | (square & (columns >= left) & (columns < left + self.square))

    def is_marked(self, num_examples: int) -> np.ndarray:
        """Return whether each of n examples is marked, shape (n,), as the metrics take it."""
        return indicator(self.indices, num_examples)


@dataclass(frozen=True, eq=False)
class Subset(Perturbation):
    """Some of the examples, in their order.

    Attributes:
        indices: positions that stay, increasing, shape (p,).
    """

    indices: np.ndarray

    @classmethod
    def draw(cls, num_examples: int, size: int, *, seed: int) -> Self:
        """Draw `size` of n positions without replacement.

        Raises:
            ValueError: more than there are.
        """
        require(
            check_count("size", size) <= check_count("num_examples", num_examples),
            "Only as many examples can stay as there are.",
            {"size": size, "num_examples": num_examples},
        )
        return cls(np.sort(np.random.default_rng(seed).choice(num_examples, size, replace=False)))

    def apply(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return the dataset without the others; batches shrink, those left empty are dropped."""
        entries = table(self.indices, np.ones(len(self.indices), np.int64))

        def keep(positions: tf.Tensor, element: Any) -> Any:
            rows = tf.where(entries.lookup(positions) > 0)[:, 0]
            return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), element)

        def is_filled(*element: Any) -> tf.Tensor:
            return tf.shape(tf.nest.flatten(element)[0])[0] > 0

        return with_positions(dataset).map(keep).filter(is_filled)

    def is_member(self, num_examples: int) -> np.ndarray:
        """Return whether each of n examples stays, shape (n,): a row of a datamodelling score's subsets."""
        return indicator(self.indices, num_examples)


def stack_subsets(subsets: Sequence[Subset], num_examples: int) -> np.ndarray:
    """Return the subsets as the boolean matrix (s, n) that `LinearDatamodelingScore` takes."""
    return np.stack([subset.is_member(num_examples) for subset in subsets])
