"""Rules for layers with weights: in which proportion the inputs of a neuron receive its relevance.

With the inputs a_i of a neuron j, its weights w_ij, bias b_j and relevance R_j, every rule is

    R_i = sum_j  c_ij / (sum_i c_ij + d_j)  R_j

for contributions c_ij and a share d_j of the bias that it chooses. Activations are passed by. What a bias takes is
relevance that no input receives.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.lrp.calls import Applied, Call, Rule, per_row, pull_back, ratio

# Of the root mean square: what rounding may leave of an empty sum, and how far apart sums of both signs stay from 0.
_ROUNDING = 1e-7

Term = tuple[tf.Tensor, tf.Tensor]
"""Inputs and a kernel: contributions are products of the two."""


class WeightedRule(Rule):
    """A rule for layers with weights, applied to each of a layer's linear maps, the last first."""

    @abstractmethod
    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        """Return the relevance of a linear map's inputs, shape (b r, ...), given that of its outputs."""

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        for applied in reversed(call.applied):
            relevance = self.propagate_map(applied, relevance)
        return [relevance, *(tf.zeros_like(per_row(other, relevance)) for other in call.inputs[1:])]


@dataclass(frozen=True)
class Epsilon(WeightedRule):
    """c_ij = a_i w_ij, d_j = b_j, and the denominator grows by epsilon: small z_j keep their relevance to themselves.

    With epsilon -> 0 and ReLU it is gradient times input.

    Attributes:
        epsilon: as a fraction of the root mean square of the example's z over the layer, so that layers of any
            scale are treated alike.

    Source: Bach et al. (2015), equation 58.
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        require(self.epsilon >= 0, "`epsilon` must not be negative.", {"epsilon": self.epsilon})

    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        scaled = ratio(relevance, applied.outputs, self.epsilon)
        return _shared(applied, [(applied.inputs, applied.map.kernel)], scaled)


@dataclass(frozen=True)
class ZPlus(WeightedRule):
    """c_ij = max(a_i w_ij, 0), d_j = max(b_j, 0): only what speaks for a neuron is relevant to it.

    Source: Montavon et al. (2017), Deep Taylor decomposition, equation 14; the alpha-beta rule with alpha = 1.
    """

    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        return _share_of_sign(applied, relevance, 1)


@dataclass(frozen=True)
class AlphaBeta(WeightedRule):
    """alpha times the shares among positive contributions less beta times those among negative ones.

    Positive: c_ij = max(a_i w_ij, 0), d_j = max(b_j, 0); negative: with min.

    Attributes:
        alpha: beta + 1, so that relevance is conserved.
        beta: not negative.

    Source: Bach et al. (2015), equation 60.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.beta >= 0 and abs(self.alpha - self.beta - 1) < 1e-6,
            "`alpha` must be `beta` + 1, and `beta` not negative.",
            {"alpha": self.alpha, "beta": self.beta},
        )

    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        positive = _share_of_sign(applied, relevance, 1)
        negative = _share_of_sign(applied, relevance, -1)
        return self.alpha * positive - self.beta * negative


@dataclass(frozen=True)
class Gamma(WeightedRule):
    """c_ij = a_i w_ij + gamma max(a_i w_ij, 0) and so the bias; where z_j < 0, with min.

    A neuron that a ReLU silences passes nothing on.

    Attributes:
        gamma: 0 is the epsilon rule, infinity the z-plus rule.
        epsilon: as in `Epsilon`.

    Source: Montavon et al. (2019), table 10.1, there for inputs that are not negative; Andéol et al. (2021) for
        others.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        require(self.gamma >= 0, "`gamma` must not be negative.", {"gamma": self.gamma})

    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        is_positive = per_row(applied.outputs >= 0, relevance)
        zeros = tf.zeros_like(relevance)
        up, down = tf.where(is_positive, relevance, zeros), tf.where(is_positive, zeros, relevance)
        if applied.is_rectified:
            return self._share(applied, up, 1)
        if applied.is_nonnegative:
            return self._share_both(applied, up, down)
        return self._share(applied, up, 1) + self._share(applied, down, -1)

    def _share_both(self, applied: Applied, up: tf.Tensor, down: tf.Tensor) -> tf.Tensor:
        """Share for inputs that are not negative, where what is negative is the whole less what is positive.

        That leaves one more pass forward and two back, where the two signs apart take two and two.
        """
        kernel, inputs = applied.map.kernel, applied.inputs
        positive_kernel, bias = _part(kernel, 1), applied.map.bias
        positive = applied.map.apply(inputs, positive_kernel)
        positive = positive if bias is None else positive + _part(bias, 1)
        up = ratio(up, applied.outputs + self.gamma * positive, self.epsilon)
        down = ratio(down, applied.outputs + self.gamma * (applied.outputs - positive), self.epsilon)
        repeated = per_row(inputs, up)
        whole = _transposed(applied, kernel, repeated, up + (1 + self.gamma) * down)
        return repeated * (whole + self.gamma * _transposed(applied, positive_kernel, repeated, up - down))

    def _share(self, applied: Applied, relevance: tf.Tensor, sign: int) -> tf.Tensor:
        kernel = applied.map.kernel
        terms = [
            (part, kernel + self.gamma * _part(kernel, sign * own_sign))
            for part, own_sign in _signed(applied.inputs, applied.is_nonnegative)
        ]
        bias = applied.map.bias
        bias = None if bias is None else bias + self.gamma * _part(bias, sign)
        return _shared_among(applied, terms, bias, relevance, self.epsilon)


@dataclass(frozen=True)
class Flat(WeightedRule):
    """c_ij = 1 for every input that the neuron sees, d_j = 0.

    Source: Bach et al. (2016); Lapuschkin et al. (2019).
    """

    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        terms = [(tf.ones_like(applied.inputs), tf.ones_like(applied.map.kernel))]
        return _shared_among(applied, terms, None, relevance)


@dataclass(frozen=True)
class WSquare(WeightedRule):
    """c_ij = w_ij^2, d_j = 0: for inputs that may be anything.

    Source: Montavon et al. (2017), equation 11.
    """

    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        terms = [(tf.ones_like(applied.inputs), applied.map.kernel**2)]
        return _shared_among(applied, terms, None, relevance)


@dataclass(frozen=True)
class ZBox(WeightedRule):
    """c_ij = a_i w_ij - low max(w_ij, 0) - high min(w_ij, 0), d_j = 0: for inputs between two bounds, as pixels are.

    Attributes:
        low: lower bound of the layer's inputs (after any rescaling by layers before it).
        high: upper bound.

    Source: Montavon et al. (2017), equation 15.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        require(self.low < self.high, "`low` must be below `high`.", {"low": self.low, "high": self.high})

    def propagate_map(self, applied: Applied, relevance: tf.Tensor) -> tf.Tensor:
        kernel, ones = applied.map.kernel, tf.ones_like(applied.inputs)
        terms = [
            (applied.inputs, kernel),
            (-self.low * ones, _part(kernel, 1)),
            (-self.high * ones, _part(kernel, -1)),
        ]
        return _shared_among(applied, terms, None, relevance, _ROUNDING)


def _share_of_sign(applied: Applied, relevance: tf.Tensor, sign: int) -> tf.Tensor:
    """Share out among the contributions a_i w_ij of one sign."""
    terms = [
        (part, _part(applied.map.kernel, sign * own_sign))
        for part, own_sign in _signed(applied.inputs, applied.is_nonnegative)
    ]
    bias = applied.map.bias
    z = _total(applied, terms, None if bias is None else _part(bias, sign))
    size = tf.sqrt(tf.reduce_mean(z**2, axis=list(range(1, z.shape.rank)), keepdims=True))
    z = tf.where(tf.abs(z) > _ROUNDING * size, z, tf.zeros_like(z))
    return _shared(applied, terms, ratio(relevance, z, 0.0))


def _shared_among(
    applied: Applied,
    terms: Sequence[Term],
    bias: tf.Tensor | None,
    relevance: tf.Tensor,
    epsilon: float = 0.0,
) -> tf.Tensor:
    return _shared(applied, terms, ratio(relevance, _total(applied, terms, bias), epsilon))


def _total(applied: Applied, terms: Sequence[Term], bias: tf.Tensor | None) -> tf.Tensor:
    """Return sum_i c_ij + d_j."""
    z = tf.add_n([applied.map.apply(inputs, kernel) for inputs, kernel in terms])
    return z if bias is None else z + bias


def _shared(applied: Applied, terms: Sequence[Term], scaled: tf.Tensor) -> tf.Tensor:
    """Return sum_j c_ij s_j: each term's inputs times the pull-back of s through its kernel."""
    parts = []
    for inputs, kernel in terms:
        repeated = per_row(inputs, scaled)
        parts.append(repeated * _transposed(applied, kernel, repeated, scaled))
    return tf.add_n(parts)


def _transposed(applied: Applied, kernel: tf.Tensor, inputs: tf.Tensor, scaled: tf.Tensor) -> tf.Tensor:
    """Return sum_j w_ij s_j; of the inputs only the shape counts, and the forward pass is never computed."""
    return pull_back(lambda tensors: applied.map.apply(tensors[0], kernel), [inputs], scaled)[0]


def _part(tensor: tf.Tensor, sign: int) -> tf.Tensor:
    """Return the positive or the negative part."""
    return tf.maximum(tensor, 0.0) if sign > 0 else tf.minimum(tensor, 0.0)


def _signed(inputs: tf.Tensor, is_nonnegative: bool) -> list[tuple[tf.Tensor, int]]:
    """Return the parts of the inputs with their sign; half the work where they are not negative."""
    if is_nonnegative:
        return [(inputs, 1)]
    return [(_part(inputs, 1), 1), (_part(inputs, -1), -1)]
