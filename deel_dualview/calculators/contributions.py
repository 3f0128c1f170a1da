"""Influence values taken apart: the contribution of each penultimate feature to the influence of a pair."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview.linalg.blocks import OuterProduct


class Pairs(NamedTuple):
    """k training examples for each of m evaluated ones, as their penultimate features.

    Attributes:
        features: of the evaluated examples, shape (m, d).
        classes: outputs that are explained of them, shape (m,), or the labels of all outputs, (m, c).
        train_features: of the training examples, those of an evaluated one in a row, shape (m k, d).
        train_labels: their classes, shape (m k,).
        train_indices: their positions in the training set, shape (m k,).
    """

    features: tf.Tensor
    classes: np.ndarray
    train_features: tf.Tensor
    train_labels: np.ndarray
    train_indices: np.ndarray

    def repeated_classes(self) -> np.ndarray:
        """Return the explained class of every pair, shape (m k,)."""
        return np.repeat(self.classes, len(self.train_indices) // len(self.classes), axis=0)


class FeatureContributions(NamedTuple):
    """Parts whose sum is the influence of each pair, in its unit and with its sign.

    Attributes:
        features: of the features that both examples have, shape (m k, d).
        constant: of the constant feature that stands for a bias, shape (m k,); zeros where there is none.
        train_features: of the training example's features, shape (m k, d), where these share the influence out
            otherwise than the evaluated one's; their sum leaves out what belongs to no training example.
    """

    features: tf.Tensor
    constant: tf.Tensor
    train_features: tf.Tensor | None = None


def split_product(
    left: tf.Tensor, right: tf.Tensor, train_right: tf.Tensor, num_features: int
) -> FeatureContributions:
    """Return left * right_k * train_right_k for every feature k of every pair, the constant one apart.

    Args:
        left: factor of each pair, shape (m k,).
        right: of the evaluated examples, shape (m, d) or (m, d + 1).
        train_right: of the training examples, shape (m k, d) or (m k, d + 1).
        num_features: d.
    """
    repeats = tf.shape(train_right)[0] // tf.shape(right)[0]
    products = left[:, tf.newaxis] * tf.repeat(right, repeats, axis=0) * train_right
    return FeatureContributions(products[:, :num_features], tf.reduce_sum(products[:, num_features:], axis=1))


def split_outer_products(
    queries: OuterProduct, vectors: OuterProduct, num_features: int
) -> FeatureContributions:
    """Return the contributions of the features to <query, vector> of every pair.

    Args:
        queries: of m evaluated examples.
        vectors: of their training examples, (m k).
        num_features: d; the right factors may have a constant after it.
    """
    repeats = tf.shape(vectors.left)[0] // tf.shape(queries.left)[0]
    left = tf.reduce_sum(tf.repeat(queries.left, repeats, axis=0) * vectors.left, axis=1)
    return split_product(left, queries.right, vectors.right, num_features)
