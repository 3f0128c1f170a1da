"""The steps of a training as pure functions of the weights, and their derivatives, backwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.models import tracing
from deel_dualview.models.inputs import arranged, structure_of
from deel_dualview.models.keras_graph import takes_training
from deel_dualview.models.optimizer_steps import OptimizerStep
from deel_dualview.typing import Inputs

Augment = Callable[[Any, tf.Tensor], Any]
"""From the inputs of one example and a seed, two integers (2,), to its inputs of an epoch."""
SEED_STATE = "seed_generator_state"
"""How Keras calls the variable of a `SeedGenerator`."""
_MATRIX_PRODUCTS = frozenset(
    {
        keras.layers.Activation,
        keras.layers.Add,
        keras.layers.Concatenate,
        keras.layers.Dense,
        keras.layers.Dropout,
        keras.layers.Flatten,
        keras.layers.InputLayer,
        keras.layers.LayerNormalization,
        keras.layers.LeakyReLU,
        keras.layers.ReLU,
        keras.layers.Rescaling,
        keras.layers.Reshape,
        keras.layers.Softmax,
    }
)


class Plan(NamedTuple):
    """What each of T steps reads, fixed before the first.

    Attributes:
        rows: positions of the examples of a step, shape (T, batch size), int32; 0 after those of a smaller batch.
        sizes: numbers of examples, shape (T,), int32: the denominators of the losses.
        rates: learning rates, shape (T,), in the type of the weights.
        seeds: states of the model's seed generators, shape (T, generators, 2), int64.
        epochs: the seeds of the epoch that a step is of, shape (T,), int32.
    """

    rows: tf.Tensor
    sizes: tf.Tensor
    rates: tf.Tensor
    seeds: tf.Tensor
    epochs: tf.Tensor


class TrainingSteps:
    """The map from initial weights, and from the weights of the examples, to trained weights: T steps.

    All trainable weights are one row of p numbers, in the order of `model.trainable_variables`; the state of a
    training is (1 + slots, p), with what the optimizer keeps. The loss of a step is

        sum_i w_i loss_i / (number of examples in the batch) + penalties of the layers,

    whose denominator the weights do not change. Random layers draw from the seeds of the step.

    Args:
        model: built.
        loss: with its reduction, a mean or a sum over the batch.
        optimizer: its step.
        inputs: of all n examples.
        labels: of all n examples.
        plan: of the steps.
        augment: changes the inputs of an example by a seed of example and epoch; None for nothing.
        lock: held while the model is traced.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: keras.losses.Loss,
        optimizer: OptimizerStep,
        inputs: Inputs,
        labels: tf.Tensor,
        plan: Plan,
        augment: Augment | None,
        lock: threading.RLock,
    ) -> None:
        self._model, self.loss, self._optimizer = model, loss, optimizer
        self._inputs, self.labels, self.plan = inputs, labels, plan
        self._augment, self._lock = augment, lock
        self._structure = structure_of(model)
        self._is_vectorised = has_only_matrix_products(model)
        self._shapes = [tuple(variable.shape) for variable in model.trainable_variables]
        self.dtype = tf.as_dtype(model.trainable_variables[0].dtype)
        self.num_rows, self.num_parameters = 1 + optimizer.num_slots, sum(map(_size, self._shapes))
        number, state = (
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([self.num_rows, self.num_parameters], self.dtype),
        )
        weights = tf.TensorSpec([None], self.dtype)
        adjoints = tf.TensorSpec([None, *state.shape], self.dtype)
        sums = tf.TensorSpec([None, None], self.dtype)
        self._run = tf.function(self._segment, input_signature=[state, number, number, weights])
        self._run_back = tf.function(
            self._segment_back, input_signature=[state, number, number, weights, adjoints, sums]
        )

    def __len__(self) -> int:
        return len(self.plan.sizes)

    def start(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the state before the first step, of the values of the trainable variables."""
        row = tf.concat([tf.reshape(tf.convert_to_tensor(value), [-1]) for value in values], 0)[tf.newaxis]
        return tf.concat([row, tf.zeros((self._optimizer.num_slots, self.num_parameters), self.dtype)], 0)

    def values(self, parameters: tf.Tensor) -> list[tf.Tensor]:
        """Return a row of all weights (p,) as the values of the trainable variables."""
        parts = tf.split(parameters, [_size(shape) for shape in self._shapes])
        return [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def run(self, state: tf.Tensor, first: int, stop: int, weights: tf.Tensor) -> tf.Tensor:
        """Return the state after the steps from `first` to before `stop`, which it was before."""
        with self._lock:
            run = self._run.get_concrete_function()
        return run(state, tf.constant(first), tf.constant(stop), weights)

    def pull_back(self, state: tf.Tensor, weights: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
        """Return the derivatives of m functions of the trained weights by the weight of every example, (m, n).

        The training runs once to keep a state every sqrt(T) steps, then backwards from one to the one before, each
        stretch forwards once more.

        Args:
            state: before the first step.
            weights: of the examples, shape (n,), at which the derivatives are taken.
            gradients: of the functions in the trained weights, shape (m, p).

        Source: Engstrom et al. (2025), Optimizing ML training with metagradient descent, section 2; Griewank and
        Walther (2000) for the checkpoints.
        """
        # Each stretch holds as many states as there are kept ones: the least memory for one more forward pass.
        length = max(1, round(len(self) ** 0.5))
        starts = range(0, len(self), length)
        states = [state]
        for first in starts[:-1]:
            states.append(self.run(states[-1], first, first + length, weights))
        with self._lock:
            run_back = self._run_back.get_concrete_function()
        slots = tf.zeros((len(gradients), self.num_rows - 1, self.num_parameters), self.dtype)
        adjoints = tf.concat([gradients[:, tf.newaxis], slots], axis=1)
        sums = tf.zeros((len(weights), len(gradients)), self.dtype)
        for first in reversed(starts):
            stop = min(first + length, len(self))
            adjoints, sums = run_back(
                states.pop(), tf.constant(first), tf.constant(stop), weights, adjoints, sums
            )
        return tf.transpose(sums)

    def call(
        self, parameters: tf.Tensor, number: tf.Tensor | int, inputs: Inputs
    ) -> tuple[Any, list[tf.Tensor], list[tf.Tensor]]:
        """Return outputs, other variables and penalties of the model in training mode at a step."""
        outputs, others, penalties = self._model.stateless_call(
            self.values(parameters),
            self._other_values(number),
            self.arranged(inputs),
            return_losses=True,
            **({"training": True} if takes_training(self._model) else {}),
        )
        return outputs, others, penalties

    def arranged(self, inputs: Inputs) -> Inputs:
        """Return inputs nested as the model's call wants them."""
        return arranged(self._structure, inputs)

    def as_compared(self, labels: tf.Tensor, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return labels and outputs in the type in which the loss compares them."""
        return tf.cast(labels, self.loss.dtype), tf.cast(outputs, self.loss.dtype)

    def plain_batch(self, number: tf.Tensor | int) -> tuple[tf.Tensor, Inputs, tf.Tensor]:
        """Return positions (b,), inputs and labels of the examples of a step, not augmented."""
        rows = self.plan.rows[number, : self.plan.sizes[number]]
        inputs, labels = tf.nest.map_structure(
            lambda tensor: tf.gather(tensor, rows), (self._inputs, self.labels)
        )
        return rows, inputs, labels

    def batch(self, number: tf.Tensor | int) -> tuple[tf.Tensor, Inputs, tf.Tensor]:
        """Return positions (b,), inputs and labels of the examples of a step."""
        rows, inputs, labels = self.plain_batch(number)
        if self._augment is not None:
            seeds = tf.stack([tf.fill(tf.shape(rows), self.plan.epochs[number]), rows], axis=1)
            augment = self._augment
            signature = tf.nest.map_structure(lambda one: tf.TensorSpec(one.shape[1:], one.dtype), inputs)
            inputs = tf.map_fn(lambda pair: augment(*pair), (inputs, seeds), fn_output_signature=signature)
        return rows, inputs, labels

    def _other_values(self, number: tf.Tensor | int) -> list[Any]:
        """Return the values of the variables that are not trained: seeds of the step, the others as they are."""
        found, generator = [], 0
        for variable in self._model.non_trainable_variables:
            if is_seed(variable):
                found.append(tf.cast(self.plan.seeds[number, generator], variable.dtype))
                generator += 1
            else:
                found.append(variable.value)
        return found

    def _losses(
        self, parameters: tf.Tensor, number: tf.Tensor, inputs: Inputs, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        outputs, _, penalties = self.call(parameters, number, inputs)
        # One weight for all positions of an example.
        shaped = tf.reshape(weights, [-1] + [1] * (outputs.shape.rank - 2))
        mean = tf.cast(self.loss(labels, outputs, sample_weight=shaped), self.dtype)
        return tf.add_n([mean, *(tf.cast(penalty, self.dtype) for penalty in penalties)])

    def _gradient(
        self, parameters: tf.Tensor, number: tf.Tensor, inputs: Inputs, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        """Return the gradient of the loss of a step on a batch, whose examples have these weights (b,), (p,)."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            loss = self._losses(parameters, number, inputs, labels, weights)
        return tf.convert_to_tensor(tape.gradient(loss, parameters))

    def _step(
        self, state: tf.Tensor, number: tf.Tensor, inputs: Inputs, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        """Return the state after a step."""
        gradient = self._gradient(state[0], number, inputs, labels, weights)
        return self._optimizer(state, gradient, self.plan.rates[number], number + 1)

    def _segment(self, state: tf.Tensor, first: tf.Tensor, stop: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        for number in tf.range(first, stop):
            rows, inputs, labels = self.batch(number)
            state = self._step(state, number, inputs, labels, tf.gather(weights, rows))
        return state

    def _segment_back(
        self,
        state: tf.Tensor,
        first: tf.Tensor,
        stop: tf.Tensor,
        weights: tf.Tensor,
        adjoints: tf.Tensor,
        sums: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return adjoints (m, rows, p) before the steps, and the sums (n, m) with what the steps add to them."""
        states = tf.TensorArray(self.dtype, stop - first, element_shape=state.shape, clear_after_read=True)
        for number in tf.range(first, stop):
            states = states.write(number - first, state)
            if number < stop - 1:
                rows, inputs, labels = self.batch(number)
                state = self._step(state, number, inputs, labels, tf.gather(weights, rows))
        for number in tf.range(stop - 1, first - 1, -1):
            rows, inputs, labels = self.batch(number)
            adjoints, found = self._step_back(
                states.read(number - first), number, inputs, labels, tf.gather(weights, rows), adjoints
            )
            sums = tf.tensor_scatter_nd_add(sums, rows[:, tf.newaxis], tf.transpose(found))
        return adjoints, sums

    def _step_back(
        self,
        state: tf.Tensor,
        number: tf.Tensor,
        inputs: Inputs,
        labels: tf.Tensor,
        weights: tf.Tensor,
        adjoints: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return adjoints (m, rows, p) before a step, and the derivatives by its examples' weights (m, b)."""
        parameters = state[0]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as of_model:
            of_model.watch([parameters, weights])
            gradient = self._gradient(parameters, number, inputs, labels, weights)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as of_optimizer:
            of_optimizer.watch([state, gradient])
            after = self._optimizer(state, gradient, self.plan.rates[number], number + 1)
        # Entry by entry, so that all adjoints go together at no cost, whatever the model is.
        kept, adjoints_of_gradient = tf.vectorized_map(
            lambda adjoint: _pulled_back(of_optimizer, after, [state, gradient], adjoint), adjoints
        )

        def back(adjoint: tf.Tensor) -> list[tf.Tensor]:
            return _pulled_back(of_model, gradient, [parameters, weights], adjoint)

        if self._is_vectorised:
            through, found = tf.vectorized_map(back, adjoints_of_gradient)
        else:
            signature = [tf.TensorSpec(parameters.shape, self.dtype), tf.TensorSpec([None], self.dtype)]
            through, found = tf.map_fn(
                back, adjoints_of_gradient, fn_output_signature=signature, parallel_iterations=1
            )
        first = kept[:, :1] + through[:, tf.newaxis]
        return tf.concat([first, kept[:, 1:]], axis=1), found


def is_seed(variable: keras.Variable) -> bool:
    """Return whether a variable is the state of a `SeedGenerator`."""
    return variable.path.split("/")[-1] == SEED_STATE


def has_only_matrix_products(model: keras.Model) -> bool:
    """Return whether products with the Hessian of a model are those of matrices: all its layers are known ones.

    Several such products with different vectors are one product of batches of matrices. Convolutions whose kernels
    differ are none: they would run one after the other all the same, and take more memory.
    """
    parts = [model, *tracing.all_layers(model)]
    graphs = [part for part in parts if isinstance(part, keras.Model) and structure_of(part) is not None]
    return model in graphs and all(type(part) in _MATRIX_PRODUCTS for part in parts if part not in graphs)


def as_plan(
    orders: Sequence[np.ndarray],
    batch_size: int,
    rates: np.ndarray,
    num_generators: int,
    seed: int,
    dtype: tf.DType,
) -> Plan:
    """Return the plan of a training.

    Args:
        orders: of the examples, one permutation (n,) for each epoch.
        batch_size: of a step; the last of an epoch may be smaller.
        rates: learning rates (T,).
        num_generators: seed generators of the model.
        seed: of the states of these.
        dtype: of the weights.
    """
    batches = [
        order[start : start + batch_size] for order in orders for start in range(0, len(order), batch_size)
    ]
    per_epoch = len(batches) // len(orders)
    padded = [np.pad(batch, (0, batch_size - len(batch))) for batch in batches]
    seeds = np.random.default_rng([seed, 1]).integers(0, 2**31, (len(batches), num_generators, 2))
    epochs = np.random.default_rng([seed, 2]).integers(0, 2**31, len(orders), np.int32)
    return Plan(
        tf.constant(np.stack(padded), tf.int32),
        tf.constant([len(batch) for batch in batches], tf.int32),
        tf.constant(rates, dtype),
        tf.constant(seeds, tf.int64),
        tf.constant(np.repeat(epochs, per_epoch), tf.int32),
    )


def _pulled_back(
    tape: tf.GradientTape, result: tf.Tensor, sources: list[tf.Tensor], adjoint: tf.Tensor
) -> list[tf.Tensor]:
    """Return the adjoints of sources by that of what a persistent tape saw made of them."""
    found = tape.gradient(
        result, sources, output_gradients=adjoint, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return [tf.convert_to_tensor(one) for one in found]


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
