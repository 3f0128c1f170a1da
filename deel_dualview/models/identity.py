"""Fingerprints of models, and records of their weights: whether two are the same, or one has changed."""

from collections.abc import Callable, Iterator, Set
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.data.hashing import checksum
from deel_dualview.models import splits, tracing
from deel_dualview.models.architecture import Architecture, digest
from deel_dualview.typing import Inputs

_PROBE_ROWS = 8
# Length of axes of unknown size, first what most models take.
_UNKNOWN_SIZES = (32, 8)
# Values of a probe are kept in steps of 1/1000 of the largest, far above what the order of additions changes:
# the same model gives them on another number of threads.
_PROBE_STEPS = 1000
_NUM_PROBED = 4
# A checksum of so much takes about a millisecond, which no batch feels.
_GLANCED_BYTES = 2**20


def fingerprint(
    model: keras.Model,
    split: splits.Split,
    forward: Callable[[Inputs], tuple[tf.Tensor, tf.Tensor]],
    seen: Inputs | None,
    changing: Set[int],
) -> str:
    """Return a hash of what a model computes: architecture, weights, split and, for code not Keras' own, outputs.

    Args:
        model: built.
        split: where its features are.
        forward: from inputs to features and outputs, eagerly.
        seen: some inputs, where any have been seen.
        changing: ids of weights that the model changes by itself, which are left out.
    """
    architecture = Architecture(model)
    place = f"{tracing.place_of(model, split.layer)} {split.takes_input}"
    parts = [architecture.text.encode(), place.encode()]
    for _, value in _weights(model, changing):
        parts += [f"{value.dtype}{value.shape}".encode(), value.tobytes()]
    if not architecture.is_complete:
        parts.append(_probed(model, forward, seen))
    return digest(parts)


class WeightsRecord:
    """Record of the weights of a model at one time.

    Args:
        model: built.
        changing: ids of weights that the model changes by itself, which are left out.
    """

    def __init__(self, model: keras.Model, changing: Set[int]) -> None:
        self._model, self._changing = model, changing
        self._checksums = self._current()

    def check(self, user: str) -> None:
        """Refuse weights that have changed since.

        Args:
            user: name of the object that was computed from them, for the message.

        Raises:
            ValueError: they have.
        """
        current = self._current()
        paths = [path for key, (path, value) in current.items() if self._checksums.get(key) != (path, value)]
        # Layer and weight: a message shortens long names in their middle.
        names = ["/".join(path.split("/")[-2:]) for path in paths]
        require(
            current == self._checksums,
            f"The model's weights have changed since the {user} was built (by `fit`, `load_weights` or an assignment), "
            f"and it holds what it computed from the earlier ones: build another {user}.",
            {"model": self._model.name, "changed": names, "of": f"{len(current)} weights"},
        )

    def glance(self, user: str) -> None:
        """As `check`, of a few weights that the last layers have, which any training changes: cheap at every batch."""
        num_bytes = 0
        for weight in reversed(self._model.weights):
            if id(weight) in self._changing or num_bytes > _GLANCED_BYTES:
                continue
            value = _array(weight)
            num_bytes += value.nbytes
            if self._checksums.get(id(weight)) != (weight.path, checksum(value)):
                self.check(user)

    def _current(self) -> dict[int, tuple[str, int]]:
        return {
            id(weight): (weight.path, checksum(value))
            for weight, value in _weights(self._model, self._changing)
        }


def weights_that_change(model: keras.Model, call: Callable[[], Any]) -> frozenset[int]:
    """Return the ids of the weights that a call of the model in inference mode changes, such as counters."""

    def current() -> dict[int, int]:
        return {id(weight): checksum(_array(weight)) for weight in model.non_trainable_weights}

    before = current()
    call()
    return frozenset(key for key, value in current().items() if before.get(key) != value)


def _weights(model: keras.Model, left_out: Set[int]) -> Iterator[tuple[keras.Variable, np.ndarray]]:
    for weight in model.weights:
        if id(weight) not in left_out:
            yield weight, _array(weight)


def _array(weight: keras.Variable) -> np.ndarray:
    return np.ascontiguousarray(tf.convert_to_tensor(weight).numpy())


def _probed(
    model: keras.Model, forward: Callable[[Inputs], tuple[tf.Tensor, tf.Tensor]], seen: Inputs | None
) -> bytes:
    """Return a few numbers that depend on all features and outputs of a fixed batch, rounded."""
    specs = tracing.input_specs(model)
    if specs is None and seen is not None:
        specs = tf.nest.map_structure(tracing.relaxed_spec, seen)
    for batch in _probes(specs, seen):
        try:
            # On a processor: an accelerator may take another algorithm the next time.
            with tf.device("CPU:0"):
                found = forward(batch)
        except Exception:  # The model does not take such inputs, for instance tokens that it does not know.
            continue
        return b" ".join(_rounded(part.numpy()) for part in found)
    return b"no probe"


def _probes(specs: Inputs | None, seen: Inputs | None) -> Iterator[Inputs]:
    if specs is not None:
        for size in _UNKNOWN_SIZES:
            for largest in (255.0, 2.0):
                make = partial(_values, size, largest, np.random.default_rng(0))
                yield tf.nest.map_structure(make, specs)
    if seen is not None:
        yield seen


def _values(size: int, largest: float, random: np.random.Generator, spec: tf.TensorSpec) -> tf.Tensor:
    shape = (_PROBE_ROWS, *(length or size for length in spec.shape[1:]))
    dtype = tf.as_dtype(spec.dtype)
    if dtype == tf.string:
        return tf.constant(random.choice(["a", "b c", "1"], shape))
    # Half of the rows as large as pixels; all above -1, so that tokens given as floats are not negative.
    scale = np.where(np.arange(_PROBE_ROWS) % 2, largest, 2.0).reshape(-1, *[1] * (len(shape) - 1))
    values = random.uniform(0.0, 1.0, shape) * scale
    return tf.cast(values - 0.9 if dtype.is_floating else np.floor(values), dtype)


def _rounded(values: np.ndarray) -> bytes:
    rows = np.nan_to_num(values.reshape(len(values), -1).astype(np.float64))
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (rows.shape[1], _NUM_PROBED))
    sums = rows @ signs
    # A power of two, which rounding errors of the largest hardly ever change.
    exponents = np.ceil(np.log2(np.maximum(np.abs(sums).max(axis=1, keepdims=True), 1e-30)))
    return np.rint(sums / 2.0**exponents * _PROBE_STEPS).astype(np.int64).tobytes() + exponents.tobytes()
