"""Functions of a batch that the devices of a process compute together, each for a part of the examples."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf


def strategy_of(model: keras.Model) -> tf.distribute.Strategy | None:
    """Return the mirrored strategy in whose scope a model was built, or this is called; None where there is none."""
    strategy = model.distribute_strategy
    mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy if isinstance(strategy, mirrored) else None


class ReplicatedFunction:
    """A traced function of b examples, of which every device of a strategy in this process takes a part.

    Parts are consecutive, and their results joined in order: each example is computed once. A batch of fewer examples
    than devices is left to one of them, since not all layers take a batch of none.

    Args:
        function: from nests of tensors (b, ...) to a nest of tensors whose first axis is that of the examples.
        strategy: whose devices; None for the one that TensorFlow chooses.
    """

    def __init__(self, function: Callable[..., Any], strategy: tf.distribute.Strategy | None) -> None:
        self._num_devices = 1 if strategy is None else len(strategy.extended.worker_devices)
        self._alone = tf.function(function, autograph=False, reduce_retracing=True)
        self._together = self._alone
        if self._num_devices > 1:
            shared = partial(_shared, strategy, self._num_devices, function)
            self._together = tf.function(shared, autograph=False, reduce_retracing=True)

    def for_batch(self, nest: Any) -> Any:
        """Return the `tf.function` for a batch of this size.

        Args:
            nest: of tensors (b, ...).
        """
        is_small = self._num_devices > 1 and len(tf.nest.flatten(nest)[0]) < self._num_devices
        return self._alone if is_small else self._together


def _shared(
    strategy: tf.distribute.Strategy, num_devices: int, function: Callable[..., Any], *nests: Any
) -> Any:
    def of_part() -> Any:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group % num_devices
        # On the processor, so that a device gets no more than its part.
        with tf.device("CPU:0"):
            size = tf.shape(tf.nest.flatten(nests)[0])[0]
            rows = slice(number * size // num_devices, (number + 1) * size // num_devices)
            part = tf.nest.map_structure(lambda tensor: tensor[rows], nests)
        return function(*part)

    def joined(value: Any) -> tf.Tensor:
        return tf.concat(strategy.experimental_local_results(value), axis=0)

    return tf.nest.map_structure(joined, strategy.run(of_part))
