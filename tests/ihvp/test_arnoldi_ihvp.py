"""The low-rank inverse: exact at full rank, the paper's formula below, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import ArnoldiIHVP, ExactIHVP, RelativeDamping
from deel_dualview.linalg import blocks


@pytest.fixture(scope="module")
def exact(model, train_set):
    return ExactIHVP(model, train_set, weights=["hidden"], curvature="gauss-newton", damping=0.01)


def gradients_of(ihvp, data):
    return ihvp.gradients(data[0][:6], data[1][:6])


@pytest.mark.parametrize("damping", [0.02, None, RelativeDamping(0.5)])
def test_all_eigenvectors_of_the_last_layer_give_the_exact_inverse(damping, model, train_set, data):
    exact = ExactIHVP(model, train_set, damping=damping)
    arnoldi = ArnoldiIHVP(model, train_set, damping=damping, rank=18)
    expected = exact.solve(gradients_of(exact, data)).value
    np.testing.assert_allclose(
        arnoldi.solve(gradients_of(arnoldi, data)).value, expected, rtol=1e-3, atol=1e-5
    )


def test_a_regularisation_is_part_of_the_inverse(model, train_set):
    regularised = ArnoldiIHVP(model, train_set, rank=5, regularisation=0.02)
    damped = ArnoldiIHVP(model, train_set, rank=5, damping=0.02)
    np.testing.assert_array_equal(regularised.inverse_eigenvalues, damped.inverse_eigenvalues)


def test_all_eigenvectors_of_other_layers_give_the_exact_inverse(exact, model, train_set, data):
    arnoldi = ArnoldiIHVP(model, train_set, weights=["hidden"], damping=0.01, rank=25)
    solution = arnoldi.solve(gradients_of(arnoldi, data))
    expected = exact.solve(gradients_of(exact, data)).value
    scale = np.abs(expected).max()
    np.testing.assert_allclose(solution.value, expected, atol=2e-4 * scale, err_msg="float32 products")
    np.testing.assert_allclose(solution.relative_residual, np.zeros(6), atol=1e-5)


def test_fewer_eigenvectors_give_the_papers_formula(exact, model, train_set, data):
    arnoldi = ArnoldiIHVP(model, train_set, weights=["hidden"], damping=0.01, rank=3, num_iterations=25)
    values, vectors = np.linalg.eigh(exact.hessian.to_dense().numpy())
    values, vectors = values[-3:], vectors[:, -3:]
    rows = blocks.to_dense(gradients_of(exact, data)).numpy().astype(np.float64)
    expected = rows @ vectors @ np.diag(1 / values) @ vectors.T
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        arnoldi.solve(gradients_of(arnoldi, data)).value, expected, atol=1e-3 * scale, err_msg="float32"
    )


def test_the_spectrum_holds_the_largest_eigenvalues_without_damping(exact, model, train_set):
    arnoldi = ArnoldiIHVP(model, train_set, weights=["hidden"], damping=0.01, rank=3, num_iterations=25)
    expected = np.linalg.eigvalsh(exact.hessian.to_dense())[::-1][:3] - 0.01
    np.testing.assert_allclose(arnoldi.spectrum.eigenvalues, expected, rtol=1e-4)


def test_the_residual_is_the_share_of_a_row_outside_of_the_eigenvectors(model, train_set, data):
    arnoldi = ArnoldiIHVP(model, train_set, rank=4)
    rows = blocks.to_dense(gradients_of(arnoldi, data)).numpy()
    vectors = arnoldi.spectrum.eigenvectors.numpy()
    outside = rows - rows @ vectors.T @ vectors
    expected = np.linalg.norm(outside, axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(arnoldi.solve(tf.constant(rows)).relative_residual, expected, rtol=1e-3)


def test_projections_of_factored_gradients_are_those_of_their_products(model, train_set, data):
    arnoldi = ArnoldiIHVP(model, train_set, rank=4)
    gradients = gradients_of(arnoldi, data)
    expected = blocks.to_dense(gradients).numpy() @ arnoldi.spectrum.eigenvectors.numpy().T
    np.testing.assert_allclose(arnoldi.project(gradients), expected, rtol=1e-4, atol=1e-6)


def test_no_damping_gives_the_pseudo_inverse(model, train_set, data):
    arnoldi = ArnoldiIHVP(model, train_set, damping=0.0)
    rows = blocks.to_dense(gradients_of(arnoldi, data)).numpy()
    inverse = np.linalg.pinv(arnoldi._undamped.to_dense().numpy(), rcond=1e-6, hermitian=True)
    np.testing.assert_allclose(arnoldi.solve(tf.constant(rows)).value, rows @ inverse, rtol=1e-2, atol=1e-2)


def test_relative_damping_refers_to_the_mean_eigenvalue_of_other_layers_too(exact, model, train_set):
    arnoldi = ArnoldiIHVP(
        model, train_set, weights=["hidden"], rank=6, num_iterations=25, damping=RelativeDamping(0.3)
    )
    mean = exact.hessian.trace() / 25 - 0.01
    np.testing.assert_allclose(arnoldi.damping, 0.3 * mean, rtol=0.05, err_msg="an estimate")


def test_a_subset_estimates_the_curvature_whatever_the_batches(model, train_set, data):
    examples = tf.data.Dataset.from_tensor_slices(data)
    settings = {"weights": ["hidden"], "rank": 2, "num_iterations": 25}
    all_of_them = ArnoldiIHVP(model, train_set, **settings).spectrum.eigenvalues
    first, second, other = (
        ArnoldiIHVP(model, examples.batch(size), num_curvature_examples=20, seed=seed, **settings)
        for size, seed in ((7, 0), (41, 0), (7, 1))
    )
    assert first.num_train == 20
    np.testing.assert_allclose(first.spectrum.eigenvalues, second.spectrum.eigenvalues, rtol=1e-4)
    assert np.abs(first.spectrum.eigenvalues / other.spectrum.eigenvalues - 1).max() > 0.01
    np.testing.assert_allclose(first.spectrum.eigenvalues, all_of_them, rtol=0.5, err_msg="half the examples")


def test_a_subset_of_everything_is_everything(model, train_set):
    settings = {"weights": ["hidden"], "rank": 2, "num_iterations": 25}
    np.testing.assert_allclose(
        ArnoldiIHVP(model, train_set, num_curvature_examples=41, **settings).spectrum.eigenvalues,
        ArnoldiIHVP(model, train_set, **settings).spectrum.eigenvalues,
        rtol=1e-4,
    )


def test_negative_eigenvalues_are_left_out_with_a_warning(model, train_set):
    with pytest.warns(UserWarning, match="negative after damping"):
        arnoldi = ArnoldiIHVP(
            model, train_set, weights=["hidden"], curvature="hessian", damping=1e-6, rank=25
        )
    is_negative = arnoldi.spectrum.eigenvalues < -1e-3
    assert is_negative.any() and (arnoldi.inverse_eigenvalues[is_negative] == 0).all()
    assert (arnoldi.inverse_eigenvalues[arnoldi.spectrum.eigenvalues > 1e-3] > 0).all()


@pytest.mark.parametrize("name", ["rank", "num_iterations"])
def test_more_than_the_dimensions_is_reduced_with_a_warning(name, model, train_set):
    with pytest.warns(UserWarning, match=f"`{name}`=100 is reduced to 18"):
        arnoldi = ArnoldiIHVP(model, train_set, **{name: 100})
    assert getattr(arnoldi, name) == 18


def test_by_default_small_layers_are_taken_whole(model, train_set):
    arnoldi = ArnoldiIHVP(model, train_set)
    assert (arnoldi.rank, arnoldi.num_iterations) == (18, 18)


BAD_SETTINGS = [
    ({"rank": 5, "num_iterations": 4}, ValueError, "at least `rank`"),
    ({"rank": 0}, ValueError, "rank"),
    ({"num_iterations": 2.5}, TypeError, "num_iterations"),
    ({"num_curvature_examples": 42}, ValueError, "there are"),
    ({"curvature": "fisher"}, ValueError, "curvature"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused(settings, error, message, model, train_set):
    with pytest.raises(error, match=message):
        ArnoldiIHVP(model, train_set, **settings)


@pytest.mark.parametrize("weights", ["last", "all"])
def test_examples_that_are_not_finite_are_named(weights, model, data):
    inputs = data[0].copy()
    inputs[[3, 29]] = np.nan
    train = tf.data.Dataset.from_tensor_slices((inputs, data[1])).batch(41)
    with pytest.raises(ValueError, match=r"\[3, 29\]"):
        ArnoldiIHVP(model, train, weights=weights)
