"""DualRelevance: which parts of a training and of an evaluated example carry the influence of one on the other."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, check_k, describe, require
from deel_dualview.calculators.base import BaseInfluenceCalculator
from deel_dualview.calculators.contributions import Pairs
from deel_dualview.lrp import Composite
from deel_dualview.models.ensembles import TreeEnsembleModel
from deel_dualview.relevance.back_ends import Named, to_back_end
from deel_dualview.relevance.base import BackEnd, Side
from deel_dualview.relevance.cancellation import GradientCancellation, cancellation, is_worse
from deel_dualview.relevance.layerwise import Texts
from deel_dualview.relevance.pair_influence import PairInfluence, Varied
from deel_dualview.search import ORDER, TopK
from deel_dualview.typing import Inputs

_OF_GRADIENTS = ("train_gradient_cancellation", "test_gradient_cancellation")


class PairRelevance(NamedTuple):
    """For each of m evaluated examples and k training examples, what carries the influence in both.

    In the unit of the influence value, positive where it supports the explained output. On either side the relevance
    of a pair, its `leak` and its `bias_share` add up to `top.influence_values`.

    Attributes:
        train_relevance: of the training examples' inputs, each tensor (m, k, ...), float32.
        test_relevance: of the evaluated examples' inputs in view of each training example, each tensor (m, k, ...).
        top: the examples and their influence values, as from `top_k`.
        classes: which class, or other output, is explained, shape (m,), int64; -1 where `target="label"` explains all
            outputs of a regression, or all labels, together.
        bias_share: of the constant feature that stands for a bias, shape (m, k).
        train_leak: value - bias share - sum of the heatmap on the training side, shape (m, k). Of the value's sign, the
            heatmap shows too little of it; of the other sign, too much. Under relevance propagation it is what biases
            (also the shifts of batch normalisation) and stabilisers of the feature extractor took (+) or gave (-),
            and, under alpha-beta rules, what neurons whose contributions have one sign only add or lose: alpha R or
            -beta R arrive there in place of R. Under integrated gradients it is the baseline's influence, under other
            gradients what is not linear.
        test_leak: the same on the evaluated side.
        train_gradient_cancellation: that of gradients times inputs on the training side, beside `train_cancellation`,
            shape (m, k). NaN where it was not needed (little cancellation) or cannot be had (tokens, several inputs).
        test_gradient_cancellation: the same on the evaluated side.
        train_words: of the training examples where the model takes texts and splits them itself (TextVectorization):
            strings (m, k, words), each of which has one number in `train_relevance`. In the structure of the inputs; ()
            in the place of inputs that are no texts.
        test_words: of the evaluated examples, strings (m, words).
    """

    train_relevance: Any
    test_relevance: Any
    top: TopK
    classes: Any
    bias_share: Any
    train_leak: Any
    test_leak: Any
    train_gradient_cancellation: Any
    test_gradient_cancellation: Any
    train_words: Any = ()
    test_words: Any = ()

    @property
    def train_cancellation(self) -> np.ndarray:
        """Sum of |relevance| over what it should add up to, |value - bias share|, on the training side, shape (m, k).

        1 where nothing cancels and nothing leaks. A large one says that the colours are those of large numbers of both
        signs, of which the influence is a small difference: places cannot be compared by their strength.
        """
        return cancellation(self.train_relevance, 2, self._explained())

    @property
    def test_cancellation(self) -> np.ndarray:
        """The same on the evaluated side, shape (m, k)."""
        return cancellation(self.test_relevance, 2, self._explained())

    @property
    def is_worse_than_gradients(self) -> np.ndarray:
        """Whether on either side the heatmap has much cancellation, and more than gradients times inputs: (m, k)."""
        return is_worse(self.train_cancellation, self.train_gradient_cancellation) | is_worse(
            self.test_cancellation, self.test_gradient_cancellation
        )

    def _explained(self) -> np.ndarray:
        return np.asarray(self.top.influence_values, np.float64) - np.asarray(self.bias_share)

    def __repr__(self) -> str:
        return f"PairRelevance of\n{self.top!r}"

    def _repr_html_(self) -> str:
        return self.top._repr_html_()

    def of_input(self, name: Any) -> "PairRelevance":
        """Return the relevance of one input of a model of several; its leaks have what the others received.

        Args:
            name: key of the input in the dict, or its place in the tuple, of inputs.

        Raises:
            ValueError: there is no such input, or the model has only one.
        """
        sides = (self.train_relevance, self.test_relevance)
        names = list(sides[0]) if isinstance(sides[0], dict) else list(range(len(tf.nest.flatten(sides[0]))))
        is_known = isinstance(sides[0], (dict, tuple)) and name in names
        require(is_known, f"`name` must be an input of a model of several, one of {names}.", {"name": name})
        train, test = (side[name] for side in sides)
        others = [_pair_sums(side) - _pair_sums(side[name]) for side in sides]
        samples, training_samples = (
            _with_inputs(element, lambda inputs: inputs[name])
            for element in (self.top.samples, self.top.training_samples)
        )
        return self._replace(
            train_relevance=train,
            test_relevance=test,
            top=self.top._replace(samples=samples, training_samples=training_samples),
            train_leak=self.train_leak + others[0],
            test_leak=self.test_leak + others[1],
            train_words=self.train_words[name],
            test_words=self.test_words[name],
            **dict.fromkeys(_OF_GRADIENTS, np.full(np.shape(self.train_leak), np.nan, np.float32)),
        )


class DualRelevance:
    """Relevance of training and test pixels to the influence of a pair.

    An influence that is a sum over penultimate features, alpha <phi_i, phi(x)>, gives feature k the relevance
    alpha phi_ik phi_k(x) (a factor that makes features of unit length is taken as given). From there it is propagated
    through the feature extractor, once for the training and once for the test example: the two heatmaps show what in
    either makes the pair alike, where alpha is positive, or what speaks against the explained class.

    Works with `DualView`, `RepresenterPointL2`, `FeatureSimilarity` (cosine, dot), and `GradDot` and `GradCos` in the
    last layer. Inputs may be images, sequences, tables or (through an Embedding) tokens.

    Args:
        calculator: whose influence values are explained.
        rule: how relevance is found. By layer-wise relevance propagation: a composite of `deel_dualview.lrp`, or its
            name (`"epsilon-gamma"`, `"epsilon-plus-flat"`, ...). Or from the influence as a function of one side's
            inputs: `"gradients-inputs"`, `"integrated-gradients"`, `"smoothgrad"`, `"grad-cam"` (these four need the
            extra `tf-explain`) or `"occlusion"`. Or a `BackEnd` of `deel_dualview.relevance` with settings of its own.
        batch_size: at most how many pairs are propagated at once.

    Raises:
        TypeError: `calculator` is not a calculator.
        ValueError: its influence is no sum over features, or the rule cannot explain its model: for relevance
            propagation one that is subclassed (it has no graph to walk), a layer without a rule, or features that are
            not reached by one call of their layer; for gradients inputs that are integers.
        ImportError: the rule needs tf-explain, which is not installed.

    Source: Yolcu et al. (2024), DualView, section 6, equation 7.
    """

    def __init__(
        self,
        calculator: BaseInfluenceCalculator,
        rule: Named | Composite | BackEnd = "epsilon-gamma",
        *,
        batch_size: int = 64,
    ) -> None:
        if not isinstance(calculator, BaseInfluenceCalculator):
            raise TypeError(
                describe(
                    "DualRelevance explains a calculator, for instance DualView(model, train).",
                    {"calculator": calculator},
                )
            )
        calculator.check_feature_contributions()
        calculator.model.refuse_positions("Relevance of pairs")
        require(
            not isinstance(calculator.model.model, TreeEnsembleModel),
            "Relevance follows a model that varies smoothly in its inputs; a tree is constant but for its thresholds. "
            "Compare the columns of the two rows, as `top_k` returns them; FeatureSimilarity gives the share of trees "
            "in which they end in one leaf.",
            {"model": calculator.model.model.name},
        )
        self.calculator = calculator
        self.batch_size = check_count("batch_size", batch_size)
        self._explain = to_back_end(rule).prepare(calculator.model)
        self._texts = Texts(calculator.model)
        self._gradient_cancellation = GradientCancellation(calculator.model)

    def explain(
        self, dataset: tf.data.Dataset, k: int = 5, order: ORDER | str = ORDER.DESCENDING
    ) -> tf.data.Dataset:
        """Return the relevance of the k most influential pairs of every evaluated example, lazily.

        Args:
            dataset: batched examples to evaluate.
            k: how many training examples for each.
            order: `ORDER.DESCENDING` or `"descending"` for proponents, `"ascending"` for opponents.

        Returns:
            A dataset of `PairRelevance`, one for each batch.

        Raises:
            ValueError: k out of range, examples that are not batched or that the model does not take.
        """
        check_k(k, self.calculator.num_train)
        tops = self.calculator.top_k(dataset, k=k, order=order)
        return data.lazy_dataset(
            lambda: (self.of_pairs(top) for top in tops), _signature(tops.element_spec, k, self._texts)
        )

    def of_pairs(self, top: TopK) -> PairRelevance:
        """Return the relevance of pairs that are known: one element of a calculator's `top_k`."""
        num_queries, k = top.training_indices.shape
        step = max(1, self.batch_size // k)
        parts = [
            self._propagate(_rows(top, slice(start, start + step))) for start in range(0, num_queries, step)
        ]
        train, test, *others = (_concatenated(part) for part in zip(*parts, strict=True))
        return PairRelevance(train, test, top, *others)

    def _propagate(self, top: TopK) -> tuple[Any, ...]:
        num_queries, k = top.training_indices.shape
        test, train = data.unpack(top.samples), data.unpack(top.training_samples)
        train_inputs = tf.nest.map_structure(lambda tensor: _merged(tensor), train.inputs)
        features, classes = self.calculator.explained_features(test)
        pairs = Pairs(
            tf.repeat(features, k, axis=0),
            np.repeat(classes, k, axis=0),
            self.calculator.model.features(train_inputs),
            self.calculator.model.to_targets(_merged(self.calculator.model.own_labels(train.labels))),
            np.asarray(top.training_indices).reshape(-1),
        )
        contributions = self.calculator.feature_contributions(pairs)
        start, train_start = contributions.features, contributions.train_features
        varied: tuple[tuple[Inputs, tf.Tensor, Varied], ...] = (
            (train_inputs, start if train_start is None else train_start, "train_features"),
            (test.inputs, start, "features"),
        )
        sides = [
            Side(inputs, own_start, PairInfluence(self.calculator, pairs, field))
            for inputs, own_start, field in varied
        ]
        maps = [self._explain(side) for side in sides]
        values = np.asarray(top.influence_values, np.float64)
        bias_share = np.reshape(contributions.constant, (num_queries, k))
        leaks = [values - bias_share - _sums(own).reshape(num_queries, k) for own in maps]
        explained = (values - bias_share).reshape(-1)
        of_gradients = [
            self._gradient_cancellation(side, cancellation(own, 1, explained), explained)
            for side, own in zip(sides, maps, strict=True)
        ]
        train_relevance, test_relevance = (
            tf.nest.map_structure(lambda part: _split(part, num_queries, k), own) for own in maps
        )
        return (
            train_relevance,
            test_relevance,
            classes if classes.ndim == 1 else np.full(len(classes), -1, np.int64),
            bias_share,
            *(leak.astype(np.float32) for leak in leaks),
            *(own.reshape(num_queries, k) for own in of_gradients),
            tf.nest.map_structure(lambda part: _split(part, num_queries, k), self._texts.words(train_inputs)),
            self._texts.words(test.inputs),
        )


def _signature(spec: TopK, k: int, texts: Texts) -> PairRelevance:
    def relevance(inputs: tf.TensorSpec, is_text: bool, lead: int) -> tf.TensorSpec:
        return tf.TensorSpec([None, k, *([None] if is_text else inputs.shape[lead:])], tf.float32)

    def words(*lead: int | None) -> Any:
        own = tf.TensorSpec([*lead, None], tf.string)
        return tf.nest.map_structure(lambda is_text: own if is_text else (), are_texts)

    train, test = data.unpack(spec.training_samples).inputs, data.unpack(spec.samples).inputs
    are_texts = texts.among(test)
    pair = tf.TensorSpec([None, k], tf.float32)
    return PairRelevance(
        tf.nest.map_structure(lambda part, is_text: relevance(part, is_text, 2), train, are_texts),
        tf.nest.map_structure(lambda part, is_text: relevance(part, is_text, 1), test, are_texts),
        spec,
        tf.TensorSpec([None], tf.int64),
        *(pair, pair, pair, pair, pair),
        train_words=words(None, k),
        test_words=words(None),
    )


def _with_inputs(element: Any, change: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return an element of a dataset with other inputs."""
    inputs, *others = data.unpack(element)
    return (change(inputs), *(part for part in others if part is not None))


def _pair_sums(relevance: Inputs) -> np.ndarray:
    """Return the sum over all inputs of the relevance of every pair, (m, k, ...) to (m, k), float32."""
    parts = [np.asarray(part, np.float64) for part in tf.nest.flatten(relevance)]
    return sum(part.reshape(*part.shape[:2], -1).sum(axis=2) for part in parts).astype(np.float32)


def _rows(top: TopK, rows: slice) -> TopK:
    return tf.nest.map_structure(lambda tensor: tensor[rows], top)


def _merged(tensor: tf.Tensor) -> tf.Tensor:
    """Return (m, k, ...) as (m k, ...)."""
    shape = tf.shape(tensor)
    merged = tf.reshape(tensor, tf.concat([[shape[0] * shape[1]], shape[2:]], axis=0))
    return tf.ensure_shape(merged, [None, *tensor.shape[2:]])


def _split(tensor: tf.Tensor, num_queries: int, k: int) -> tf.Tensor:
    return tf.reshape(tensor, (num_queries, k, *tensor.shape[1:]))


def _sums(relevance: Inputs) -> np.ndarray:
    """Return the sum of the relevance of every pair, shape (b,), float64."""
    parts: Iterator[np.ndarray] = (np.asarray(part, np.float64) for part in tf.nest.flatten(relevance))
    return sum((part.reshape(len(part), -1).sum(axis=1) for part in parts), np.zeros(1))


def _concatenated(parts: tuple[Any, ...]) -> Any:
    return tf.nest.map_structure(lambda *rows: tf.concat(_of_one_length(rows), axis=0), *parts)


def _of_one_length(rows: tuple[Any, ...]) -> list[Any]:
    """Pad texts of other numbers of words, along the last axis, to the longest."""
    if len(rows[0].shape) == 1:
        return list(rows)
    longest = max(row.shape[-1] for row in rows)
    return [
        row
        if row.shape[-1] == longest
        else tf.pad(
            row,
            [[0, 0]] * (len(row.shape) - 1) + [[0, longest - row.shape[-1]]],
            constant_values="" if row.dtype == tf.string else 0,
        )
        for row in rows
    ]
