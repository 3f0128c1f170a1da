"""RelatIF: both normalisations against naive twins; examples without a gradient."""

import numpy as np
import pytest
import tensorflow as tf
from test_first_order import all_values, convex

from deel_dualview import FirstOrderInfluenceCalculator, RelatIF
from deel_dualview.linalg import blocks

__all__ = ["convex"]


def make(convex, train=None, **settings):
    return RelatIF(convex.model, train or convex.train, convex.ihvp, target="label", **settings)


def gradients(convex, inputs, labels):
    logits = inputs @ convex.weights.reshape(3, 4).T
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    return np.einsum("nc,nd->ncd", p - np.eye(3)[labels], inputs).reshape(-1, 12)


@pytest.mark.parametrize("normalisation", ["theta", "loss"])
def test_values_are_the_papers_formula(normalisation, convex):
    train = gradients(convex, convex.inputs, convex.labels)
    inverse = convex.ihvp.inverse.numpy()
    changes = {
        "theta": np.linalg.norm(train @ inverse, axis=1),
        "loss": np.sqrt(np.sum((train @ inverse) * train, axis=1)),
    }[normalisation]
    expected = gradients(convex, convex.test_inputs, convex.test_labels) @ inverse @ train.T / changes
    values = all_values(make(convex, normalisation=normalisation), convex.test)
    np.testing.assert_allclose(values, expected, rtol=2e-3, atol=1e-5)


def test_relative_to_the_weights_is_the_default(convex):
    assert make(convex).normalisation == "theta"


def test_relative_to_the_loss_is_a_cosine_times_the_query(convex):
    calculator = make(convex, normalisation="loss")
    own = np.concatenate(list(calculator.compute_influence_values()))
    assert np.all(np.abs(all_values(calculator, convex.train)) <= own[:, np.newaxis] * (1 + 1e-3))


def test_self_influence_relative_to_the_loss_ranks_labels_as_first_order_does(convex):
    """It is no constant: only the training side is divided."""
    first = FirstOrderInfluenceCalculator(convex.model, convex.train, convex.ihvp)
    plain = np.concatenate(list(first.compute_influence_values()))
    own = np.concatenate(list(make(convex, normalisation="loss").compute_influence_values()))
    np.testing.assert_allclose(own, np.sqrt(len(plain) * plain), rtol=1e-3)


@pytest.mark.parametrize("normalisation", ["theta", "loss"])
def test_an_example_fitted_exactly_spoils_nothing(normalisation, convex):
    calculator = make(convex, convex.with_fitted_example(5), normalisation=normalisation)
    values = all_values(calculator, convex.test)
    assert np.isfinite(values).all()
    values, _ = next(iter(calculator.top_k_indices(convex.test, k=90)))
    assert np.isfinite(values).all()


def test_an_example_without_a_gradient_has_no_influence(convex):
    """Its inputs are zero, and the layer has no bias."""
    inputs = convex.inputs.copy()
    inputs[5] = 0
    train = tf.data.Dataset.from_tensor_slices((inputs, convex.labels)).batch(32)
    values = all_values(make(convex, train), convex.test)
    np.testing.assert_array_equal(values[:, 5], np.zeros(30))
    assert np.isfinite(values).all()


def test_an_example_with_a_tiny_gradient_counts_by_its_direction(convex):
    calculator = make(convex)
    batch = next(iter(convex.train))
    small = calculator.ihvp.gradients(*batch)
    calculator._training_gradients = lambda batch: tuple(
        type(block)(1e-25 * block.left, block.right) for block in small
    )
    (tiny,) = calculator._influence_vectors(None)
    (expected,) = next(iter(make(convex).compute_influence_vector()))
    np.testing.assert_allclose(
        blocks.to_dense((tiny,)), blocks.to_dense((expected,))[: len(tiny.left)], rtol=1e-3, atol=1e-6
    )


def test_an_unknown_normalisation_is_refused(convex):
    with pytest.raises(ValueError, match="normalisation"):
        make(convex, normalisation="weights")
