"""Layers that turn words, categories and numbers into codes: there the token, or the column, receives all of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from deel_dualview.lrp.calls import Call, Rule, per_row
from deel_dualview.models.inputs import in_place
from deel_dualview.models.keras_graph import Graph, Ref, encode_words, split_words
from deel_dualview.typing import Inputs

layers = keras.layers

DISCRETE = (
    layers.TextVectorization,
    layers.StringLookup,
    layers.IntegerLookup,
    layers.Hashing,
    layers.HashedCrossing,
    layers.Discretization,
    layers.CategoryEncoding,
)
"""Layers whose inputs are looked up, so that they have no gradient."""

Encode = Callable[[tf.Tensor], tf.Tensor]
"""From a place among the tokens to the codes of the tokens there, (b, n)."""


@dataclass(frozen=True)
class LookUp(Rule):
    """A token receives the relevance of its code, whatever that is: a number, a one-hot row, its part of a bag.

    Tokens that are alike in a bag (`multi_hot`, `count`, `tf_idf`) share equally, as do the columns of a crossing.
    What the codes of absent tokens received belongs to no token and is lost: nothing under rules that share by
    contribution, for there these codes are 0.

    Attributes:
        by_words: whether a text receives one number for each of its words, (b r, words), instead of their sum.
    """

    by_words: bool = False

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        layer, (first, *others) = call.step.operation, call.inputs
        if isinstance(layer, layers.HashedCrossing):
            own = _summed(relevance) / len(call.inputs)
            return [_like(tensor, own) for tensor in call.inputs]
        is_bag = layer.get_config()["output_mode"] in ("multi_hot", "count", "tf_idf")
        if isinstance(layer, layers.TextVectorization):
            words = split_words(layer, first)
            found = _of_bag(_words_at(layer, words), words, relevance) if is_bag else relevance
            own = found if self.by_words else _like(first, _summed(found))
        elif first.shape[1:].num_elements() == 1:
            own = _like(first, _summed(relevance))
        elif is_bag:
            own = _of_bag(
                lambda place: call.step.call([part[:, place, None] for part in call.inputs]), first, relevance
            )
        else:
            own = relevance if relevance.shape.rank == first.shape.rank else tf.reduce_sum(relevance, axis=-1)
        return [own, *(tf.zeros(tf.shape(per_row(other, relevance))) for other in others)]


def uncast_refs(graph: Graph) -> frozenset[Ref]:
    """Return the tensors that are looked up: strings, and integers that a floating-point number might not hold."""
    found: set[Ref] = set()
    for step in reversed(graph.steps):
        if isinstance(step.operation, DISCRETE) or found.intersection(step.outputs):
            found.update(step.inputs)
    return frozenset(found)


def text_inputs(graph: Graph) -> dict[Ref, keras.layers.TextVectorization]:
    """Return the inputs of a graph whose words receive relevance: those that one TextVectorization reads, and no other.

    Of any other input of strings an entry is what receives relevance.
    """
    users = graph.users()
    return {
        ref: users[ref][0].operation
        for ref in graph.inputs
        if len(users.get(ref, ())) == 1 and isinstance(users[ref][0].operation, layers.TextVectorization)
    }


def are_texts(graph: Graph, inputs: Inputs) -> Any:
    """Return in the structure of the inputs, or of their specs, which are texts whose words receive relevance."""
    texts = text_inputs(graph)
    return in_place(graph.structure, inputs, [ref in texts for ref in graph.inputs], False)


def words_of(graph: Graph, inputs: Inputs) -> Any:
    """Return in the structure of the inputs the words (b, words) of texts, () of what is no text."""
    texts = text_inputs(graph)
    given = zip(graph.inputs, graph.flatten(inputs), strict=True)
    words = [split_words(texts[ref], tf.convert_to_tensor(own)) if ref in texts else () for ref, own in given]
    return in_place(graph.structure, inputs, words, ())


def _summed(relevance: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(relevance, axis=list(range(1, relevance.shape.rank)))


def _like(tensor: tf.Tensor, relevance: tf.Tensor) -> tf.Tensor:
    """Return relevance (b r,) in the shape of a tensor with one entry an example."""
    return tf.reshape(relevance, (-1, *[1] * (tensor.shape.rank - 1)))


def _words_at(layer: keras.layers.TextVectorization, words: tf.Tensor) -> Encode:
    def encode(place: tf.Tensor) -> tf.Tensor:
        own = words[:, place, None]
        codes = tf.cast(encode_words(layer, own), tf.float32)
        return codes * tf.cast(own != "", tf.float32)

    return encode


def _of_bag(encode: Encode, tokens: tf.Tensor, relevance: tf.Tensor) -> tf.Tensor:
    """Share the relevance of a bag (b r, n) among the tokens (b, t) in it: (b r, t).

    One token at a time, twice: codes of all tokens together would be t times as large as the bag.
    """

    def codes(place: tf.Tensor) -> tf.Tensor:
        return tf.cast(encode(place), tf.float32)

    places = tf.range(tf.shape(tokens)[1])
    none = tf.zeros((tf.shape(tokens)[0], relevance.shape[-1]))
    total = tf.foldl(lambda sums, place: sums + codes(place), places, none)
    shares = tf.math.divide_no_nan(relevance, per_row(total, relevance))
    found = tf.map_fn(
        lambda place: tf.reduce_sum(per_row(codes(place), relevance) * shares, axis=-1),
        places,
        fn_output_signature=tf.TensorSpec([None], tf.float32),
    )
    return tf.transpose(found)
