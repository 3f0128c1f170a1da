"""Random projections of gradients that keep inner products on average."""

import abc
import math

import tensorflow as tf

from deel_dualview._checks import check_count, require
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.linalg.factors import Factored, Factors, LayerGradients, to_block

_LARGEST_MATRIX = 2**31
_LONGEST_ROW = 4096
_SIGNS = 1
_NORMAL = 2


class Projection(abc.ABC):
    """A linear map of gradients to few numbers, P, with E<P u, P v> = <u, v> over its seeds.

    Applied to gradients of the same weights, equal seeds give equal maps: on training and evaluated examples,
    today and tomorrow.
    """

    @abc.abstractmethod
    def __call__(self, gradients: LayerGradients) -> Blocks:
        """Return the projected gradients of n examples."""

    @abc.abstractmethod
    def describe(self) -> str:
        """Return all settings as text that keys a store."""


class IdentityProjection(Projection):
    """Keeps gradients as they are; those of a Dense layer stay factored."""

    def __call__(self, gradients: LayerGradients) -> Blocks:
        """Return the gradients as blocks, one for each layer."""
        return tuple(to_block(block) for block in gradients)

    def describe(self) -> str:
        return "identity"


class _RandomProjection(Projection):
    """Keeps the random matrices of a projection, made when first needed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._matrices: dict[tuple[int, ...], tf.Tensor] = {}

    def _normal(self, stream: int, num_rows: int, size: int) -> tf.Tensor:
        """Return normal numbers of variance 1 / size, shape (num_rows, size); streams are independent."""
        return self._matrix(_NORMAL, stream, num_rows, size)

    def _signs(self, stream: int, num_rows: int, size: int) -> tf.Tensor:
        """Return random signs, shape (num_rows, size); streams are independent."""
        return self._matrix(_SIGNS, stream, num_rows, size)

    def _matrix(self, kind: int, stream: int, num_rows: int, size: int) -> tf.Tensor:
        key = (kind, stream, num_rows, size)
        if key not in self._matrices:
            # Outside of any trace: a matrix made inside would belong to one graph only.
            with tf.init_scope():
                self._matrices[key] = self._make(kind, stream, num_rows, size)
        return self._matrices[key]

    def _make(self, kind: int, stream: int, num_rows: int, size: int) -> tf.Tensor:
        shape, seed = (num_rows, size), (self.seed, stream)
        if kind == _NORMAL:
            return tf.random.stateless_normal(shape, seed) / tf.sqrt(float(size))
        return 2.0 * tf.cast(tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32), tf.float32) - 1.0


class GaussianProjection(_RandomProjection):
    """Multiplies gradients by one dense matrix (p, size) of independent normal numbers of variance 1 / size.

    The reference: it holds 4 * p * size bytes and multiplies every gradient out. An inner product of
    gradients u, v has variance (|u|^2 |v|^2 + <u, v>^2) / size.

    Args:
        size: number of projections.
        seed: of the random numbers.

    Raises:
        ValueError: (when first applied) a matrix of more than 2 GiB.

    Source: Pruthi et al. (2020), section 3.4; DualView paper, appendix C (SIM-rp, size 128).
    """

    def __init__(self, size: int = 128, *, seed: int = 0) -> None:
        super().__init__(seed)
        self.size = check_count("size", size)

    def __call__(self, gradients: LayerGradients) -> Blocks:
        """Return the projected gradients as one matrix (n, size)."""
        return (tf.add_n([self._project(index, block) for index, block in enumerate(gradients)]),)

    def describe(self) -> str:
        return f"gaussian {self.size} seed {self.seed}"

    def _project(self, index: int, block: tf.Tensor | OuterProduct | Factored) -> tf.Tensor:
        rows = _as_factors(block).multiplied() if not isinstance(block, tf.Tensor) else block
        num_bytes = 4 * rows.shape[1] * self.size
        require(
            num_bytes <= _LARGEST_MATRIX,
            "A dense projection holds one number for each parameter and projection, here more than 2 GiB: "
            "use FactoredProjection, which holds a few thousand for each layer.",
            {"parameters": rows.shape[1], "size": self.size},
        )
        return tf.matmul(rows, self._normal(index, rows.shape[1], self.size))


class FactoredProjection(_RandomProjection):
    """Projects each layer's pairs (input, output gradient) by pairs of random sign vectors.

    Projection j of a gradient matrix G = sum_t left_t right_t' is l_j' G r_j / sqrt(size), with vectors l_j
    (c,), r_j (d,) of independent signs: the matrix (p, size) is never made, nor is G where it has few
    positions, and size * (c + d) numbers a layer are held. Layers add up. Every projection has its own pair
    of vectors, where LoGra (KroneckerProjection) combines a few left with a few right ones: at equal size the
    variance of an inner product is far less (at most about 8 |u|^2 |v|^2 / size, 2 for a dense matrix).

    Args:
        size: number of projections.
        seed: of the random numbers.

    Source: Pruthi et al. (2020), section 3.4 and appendix; Choe et al. (2024, LoGra), section 3.
    """

    def __init__(self, size: int = 128, *, seed: int = 0) -> None:
        super().__init__(seed)
        self.size = check_count("size", size)

    def __call__(self, gradients: LayerGradients) -> Blocks:
        """Return the projected gradients as one matrix (n, size)."""
        projected = tf.add_n([self._project(index, block) for index, block in enumerate(gradients)])
        return (projected / tf.sqrt(float(self.size)),)

    def describe(self) -> str:
        return f"factored {self.size} seed {self.seed}"

    def _project(self, index: int, block: tf.Tensor | OuterProduct | Factored) -> tf.Tensor:
        if isinstance(block, tf.Tensor):
            return self._project_matrices(index, _folded(block))
        factors = _as_factors(block)
        if isinstance(factors, Factors) and factors.num_left * factors.num_right <= _cost(factors):
            rows = factors.multiplied()
            shape = (tf.shape(rows)[0], factors.num_left, factors.num_right)
            return self._project_matrices(index, tf.reshape(rows, shape))
        left, right = self._pairs(index, factors.num_left, factors.num_right)
        return tf.reduce_sum(factors.left_times(left) * factors.right_times(right), axis=1)

    def _project_matrices(self, index: int, matrices: tf.Tensor) -> tf.Tensor:
        left, right = self._pairs(index, matrices.shape[1], matrices.shape[2])
        return tf.reduce_sum(Factors(matrices, matrices).right_times(right) * left, axis=1)

    def _pairs(self, index: int, num_left: int, num_right: int) -> tuple[tf.Tensor, tf.Tensor]:
        return self._signs(2 * index, num_left, self.size), self._signs(2 * index + 1, num_right, self.size)


class KroneckerProjection(_RandomProjection):
    """LoGra's projection: every gradient matrix G (c, d) of a layer becomes the small matrix L' G R.

    L (c, left_size) and R (d, right_size) hold normal numbers of variance 1 / left_size and 1 / right_size.
    Layers are kept apart, left_size * right_size numbers each. The relative variance of a squared norm is
    about (1 + 2 / left_size) (1 + 2 / right_size) - 1: far more than that of a FactoredProjection of the same
    size.

    Args:
        left_size: number of projections of output gradients.
        right_size: number of projections of inputs.
        seed: of the random numbers.

    Source: Choe et al. (2024, LoGra), equation 6.
    """

    def __init__(self, left_size: int = 16, right_size: int = 16, *, seed: int = 0) -> None:
        super().__init__(seed)
        self.left_size = check_count("left_size", left_size)
        self.right_size = check_count("right_size", right_size)

    def __call__(self, gradients: LayerGradients) -> Blocks:
        """Return the projected gradients, a matrix (n, left_size * right_size) for each layer."""
        return tuple(self._project(index, block) for index, block in enumerate(gradients))

    def describe(self) -> str:
        return f"kronecker {self.left_size} x {self.right_size} seed {self.seed}"

    def _project(self, index: int, block: tf.Tensor | OuterProduct | Factored) -> tf.Tensor:
        size = self.left_size * self.right_size
        if isinstance(block, tf.Tensor):
            return tf.matmul(block, self._normal(2 * index, block.shape[1], size))
        factors = _as_factors(block)
        left = factors.left_times(self._normal(2 * index, factors.num_left, self.left_size))
        right = factors.right_times(self._normal(2 * index + 1, factors.num_right, self.right_size))
        return Factors(left, right).multiplied()


def _folded(rows: tf.Tensor) -> tf.Tensor:
    """Return rows (n, p) as matrices (n, 1, p), those longer than _LONGEST_ROW about square, padded.

    Any matrix form of a vector gives unbiased projections; a square one needs the fewest random numbers.
    """
    num_parameters = int(rows.shape[1])
    num_rows = 1 if num_parameters <= _LONGEST_ROW else math.isqrt(num_parameters)
    num_columns = -(-num_parameters // num_rows)
    padded = tf.pad(rows, [(0, 0), (0, num_rows * num_columns - num_parameters)])
    return tf.reshape(padded, (tf.shape(rows)[0], num_rows, num_columns))


def _as_factors(block: OuterProduct | Factored) -> Factored:
    if isinstance(block, OuterProduct):
        return Factors(block.left[:, tf.newaxis], block.right[:, tf.newaxis])
    return block


def _cost(factors: Factors) -> int:
    """Return how many numbers the factors of one example have (0 where that is not known beforehand)."""
    num_positions = factors.left.shape[1] or 0
    return num_positions * (factors.num_left + factors.num_right)
