"""Random projections: right on average, the same map for every form of a gradient, small."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import FactoredProjection, GaussianProjection, IdentityProjection, KroneckerProjection
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import OuterProduct
from deel_dualview.linalg.factors import Factors, OneHotFactors, to_block


@pytest.fixture
def gradients(rng):
    """Two gradients in four layers: every form there is."""

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), tf.float32)

    return (
        OuterProduct(normal(2, 3), normal(2, 4)),
        Factors(normal(2, 5, 3), normal(2, 5, 2)),
        OneHotFactors(normal(2, 3, 2), tf.constant([[0, 3, 3], [1, 0, 2]]), 4),
        normal(2, 7),
    )


PROJECTIONS = {
    "gaussian": lambda seed: GaussianProjection(8, seed=seed),
    "factored": lambda seed: FactoredProjection(8, seed=seed),
    "kronecker": lambda seed: KroneckerProjection(2, 4, seed=seed),
}


@pytest.fixture(params=PROJECTIONS.values(), ids=PROJECTIONS)
def make_projection(request):
    return request.param


def dense(gradients):
    return blocks.to_dense(IdentityProjection()(gradients)).numpy().astype(np.float64)


def test_factors_multiplied_out_are_sums_of_outer_products(gradients):
    _, factors, _, _ = gradients
    expected = [
        sum(np.outer(left, right) for left, right in zip(*row, strict=True))
        for row in zip(*factors, strict=True)
    ]
    np.testing.assert_allclose(factors.multiplied(), np.reshape(expected, (2, 6)), rtol=1e-5, atol=1e-6)


def test_lookups_multiplied_out_are_sums_of_outer_products(gradients):
    _, _, lookups, _ = gradients
    right = tf.one_hot(lookups.indices, lookups.size)
    np.testing.assert_allclose(lookups.multiplied(), Factors(lookups.left, right).multiplied(), rtol=1e-5)


def test_one_position_stays_factored(gradients):
    single = Factors(gradients[1].left[:, :1], gradients[1].right[:, :1])
    assert isinstance(to_block(single), OuterProduct)


def test_inner_products_are_unbiased(make_projection, gradients):
    first, second = dense(gradients)
    exact = [first @ second, first @ first]
    found = []
    for seed in range(80):
        (one, other) = blocks.to_dense(make_projection(seed)(gradients)).numpy().astype(np.float64)
        found.append([one @ other, one @ one])
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - exact) < 4 * error).all()


def test_projections_are_linear_in_the_gradient(make_projection, gradients):
    """Whatever the form: a gradient scaled through one of its factors has its projection scaled."""
    tripled = (
        OuterProduct(3 * gradients[0].left, gradients[0].right),
        Factors(gradients[1].left, 3 * gradients[1].right),
        gradients[2]._replace(left=3 * gradients[2].left),
        3 * gradients[3],
    )
    projection = make_projection(0)
    expected = 3 * blocks.to_dense(projection(gradients)).numpy()
    np.testing.assert_allclose(blocks.to_dense(projection(tripled)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_positions", [1, 2, 40])
def test_a_factored_projection_is_the_formula_however_many_positions(num_positions, rng):
    left, right = rng.normal(size=(2, num_positions, 3)), rng.normal(size=(2, num_positions, 4))
    factors = Factors(tf.constant(left, tf.float32), tf.constant(right, tf.float32))
    projection = FactoredProjection(6, seed=3)
    (found,) = projection((factors,))
    signs_left, signs_right = projection._signs(0, 3, 6).numpy(), projection._signs(1, 4, 6).numpy()
    expected = np.einsum("ntc,ntd,ck,dk->nk", left, right, signs_left, signs_right) / np.sqrt(6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_equal_seeds_give_equal_maps(make_projection, gradients):
    first, again = (blocks.to_dense(make_projection(5)(gradients)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_other_seeds_give_other_maps(make_projection, gradients):
    first, other = (blocks.to_dense(make_projection(seed)(gradients)) for seed in (5, 6))
    assert np.abs(first - other).max() > 0.1
    assert make_projection(5).describe() != make_projection(6).describe()


def test_layers_have_independent_projections(make_projection, gradients):
    """Two layers of equal gradients: with equal maps their norms would add up to four times, not twice."""
    single = gradients[3]
    norms = [blocks.squared_norms(make_projection(seed)((single, single))) for seed in range(150)]
    np.testing.assert_allclose(np.mean(norms, 0), 2 * np.sum(single**2, 1), rtol=0.25, err_msg="150 seeds")


def test_a_trace_and_an_eager_call_use_the_same_matrices(make_projection, gradients):
    projection = make_projection(0)
    traced = tf.function(lambda: projection(gradients))()
    np.testing.assert_allclose(
        blocks.to_dense(traced), blocks.to_dense(projection(gradients)), rtol=1e-5, atol=1e-6
    )


def test_a_factored_projection_never_holds_a_number_for_each_weight(rng):
    projection = FactoredProjection(16)
    projection((OuterProduct(tf.ones((1, 300)), tf.ones((1, 400))), tf.ones((1, 90_000))))
    held = sum(int(tf.size(matrix)) for matrix in projection._matrices.values())
    assert held <= 16 * (300 + 400 + 300 + 300)


def test_a_long_vector_is_projected_without_bias(rng):
    vector = rng.normal(size=(1, 5000)).astype("float32")
    norms = [
        float(blocks.squared_norms(FactoredProjection(64, seed=seed)((tf.constant(vector),)))[0])
        for seed in range(50)
    ]
    np.testing.assert_allclose(np.mean(norms), (vector**2).sum(), rtol=0.15, err_msg="50 seeds")


def test_factored_projections_vary_less_than_kronecker_ones_of_the_same_size(rng):
    pair = OuterProduct(*(tf.constant(rng.normal(size=(1, 50)), tf.float32) for _ in range(2)))

    def deviation(projections):
        return np.std([float(blocks.squared_norms(projection((pair,)))[0]) for projection in projections])

    factored = deviation(FactoredProjection(128, seed=seed) for seed in range(100))
    assert factored < 0.6 * deviation(KroneckerProjection(8, 16, seed=seed) for seed in range(100))


def test_a_dense_matrix_of_many_gigabytes_is_refused():
    wide = OuterProduct(tf.ones((1, 5000)), tf.ones((1, 5000)))
    with pytest.raises(ValueError, match="FactoredProjection"):
        GaussianProjection(128)((wide,))


@pytest.mark.parametrize("size", [0, -1, True])
def test_a_wrong_size_is_refused(size):
    with pytest.raises((TypeError, ValueError), match="size"):
        FactoredProjection(size)
