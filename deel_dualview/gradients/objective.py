"""The scalar function of an example that is differentiated: the loss, a logit or a margin of one class."""

from typing import Literal

import tensorflow as tf

from deel_dualview._checks import check_choice

Function = Literal["loss", "logit", "margin"]
"""What is differentiated. For class y: `"loss"` the cross-entropy -log p_y; `"logit"` the logit z_y;
`"margin"` the log odds z_y - log sum_(j != y) exp(z_j) = log(p_y / (1 - p_y))."""

_FUNCTIONS = ("loss", "logit", "margin")


def check_function(function: str) -> None:
    """Refuse a function that is not known.

    Raises:
        ValueError: it is none of those in `Function`.
    """
    check_choice("function", function, _FUNCTIONS)


def evaluate(logits: tf.Tensor, classes: tf.Tensor, function: Function) -> tf.Tensor:
    """Return the function of every example, shape (b,).

    Args:
        logits: shape (b, c), two or more classes.
        classes: class of each example, shape (b,), integers.
        function: which one.
    """
    one_hot = tf.one_hot(classes, logits.shape[1], dtype=logits.dtype)
    own = tf.reduce_sum(logits * one_hot, axis=1)
    if function == "logit":
        return own
    margin = own - _log_sum_of_others(logits, one_hot)
    # TensorFlow's cross-entropy has the gradient p - 1, which loses the digits of an example well fitted.
    return margin if function == "margin" else tf.math.softplus(-margin)


def logit_gradients(logits: tf.Tensor, classes: tf.Tensor, function: Function) -> tf.Tensor:
    """Return the gradient of the function of every example with respect to its logits, shape (b, c)."""
    one_hot = tf.one_hot(classes, logits.shape[1], dtype=logits.dtype)
    if function == "loss":
        others = (1.0 - one_hot) * tf.nn.softmax(logits)
        # Not p - 1 for the own class: an example fitted exactly has no gradient, one fitted well a precise one.
        return others - one_hot * tf.reduce_sum(others, axis=1, keepdims=True)
    return one_hot if function == "logit" else one_hot - tf.nn.softmax(_without(logits, one_hot))


def _log_sum_of_others(logits: tf.Tensor, one_hot: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(_without(logits, one_hot), axis=1)


def _without(logits: tf.Tensor, one_hot: tf.Tensor) -> tf.Tensor:
    """Send the own class' logit to where its exponential is exactly zero (not -inf: 0 * inf is NaN)."""
    return tf.where(one_hot > 0, logits.dtype.min, logits)
