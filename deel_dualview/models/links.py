"""Link functions: how the outputs of a model (logits, softmax, sigmoid) follow from its logits."""

import numpy as np
import tensorflow as tf

# Relative error to expect between outputs of a model and those of its head on traced features. Where any layer computes
# in 16 bits, a trace joins layers and rounds less often than an eager call, before a head of 32 bits too.
TOLERANCE, TOLERANCE_IN_HALF = 1e-3, 5e-2


def as_logits(outputs: tf.Tensor, link: str) -> tf.Tensor:
    """Return outputs of the model as two or more logits a row."""
    if link == "softmax":
        return log_softmax(outputs)
    if link == "sigmoid":
        outputs = inverse_sigmoid(outputs)
    if outputs.shape[1] == 1:
        return tf.concat([-outputs, outputs], axis=1) / 2.0
    return outputs


def native_of(logits: tf.Tensor, link: str) -> tf.Tensor:
    """Return what the model gives for outputs of its last layer before the activation, of the same dtype."""
    if link in ("logits", "log-softmax"):
        return logits
    return {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "relu": tf.nn.relu, "exponential": tf.exp}.get(
        link, tf.math.softplus
    )(logits)


def inverse_sigmoid(probabilities: tf.Tensor) -> tf.Tensor:
    """Return the logits of probabilities, finite for 0 and 1 too."""
    return log_softmax(probabilities) - log_softmax(1.0 - probabilities)


def log_softmax(probabilities: tf.Tensor) -> tf.Tensor:
    """Return the logarithms of probabilities, finite for 0 too."""
    return tf.math.log(tf.maximum(probabilities, tf.constant(np.finfo(np.float32).tiny)))


def finite_rows(native: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the examples for which the model computes numbers: only those can show how it ends."""
    finite = np.isfinite(native).all(axis=1) & np.isfinite(logits).all(axis=1)
    if not finite.any():
        raise ValueError(
            "The model's outputs are NaN or infinite for every example of the first batch; check its weights and "
            f"inputs. Received: {len(finite)} examples."
        )
    return native[finite], logits[finite]


def link_of(native: np.ndarray, logits: np.ndarray, tolerance: float) -> str | None:
    """Name the function that turns `logits` into the model's `native` outputs, None if there is none."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    with np.errstate(over="ignore"):
        candidates = {
            "logits": logits,
            "softmax": shifted / shifted.sum(axis=1, keepdims=True),
            "log-softmax": logits
            - logits.max(axis=1, keepdims=True)
            - np.log(shifted.sum(axis=1, keepdims=True)),
            "sigmoid": 1.0 / (1.0 + np.exp(-logits)),
        }
    for name, values in candidates.items():
        scale = max(1.0, float(np.abs(values).max(initial=0.0)))
        if values.shape == native.shape and np.allclose(
            values, native, rtol=tolerance, atol=tolerance * scale
        ):
            return name
    return None


def guess_link(native: np.ndarray) -> str:
    """Tell probabilities from logits where no linear head gives the logits."""
    if native.min() < 0 or native.max() > 1:
        return "logits"
    if native.shape[1] > 1 and np.allclose(native.sum(axis=1), 1.0, atol=1e-2):
        return "softmax"
    return "sigmoid"
