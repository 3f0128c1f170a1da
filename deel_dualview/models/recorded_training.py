"""Trainings that can be repeated bit for bit, with other weights of the examples, and differentiated by these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_count, check_seed, describe, require
from deel_dualview.models.checkpoints import Checkpoints
from deel_dualview.models.determinism import check_eager
from deel_dualview.models.influence_model import InfluenceModel
from deel_dualview.models.keras_graph import assign_slots, takes_training
from deel_dualview.models.optimizer_steps import learning_rates, step_of
from deel_dualview.models.recording import lock_of
from deel_dualview.models.training_checks import check_augment, check_repeatable, check_weights_of, loss_of
from deel_dualview.models.training_steps import Augment, TrainingSteps, as_plan, is_seed
from deel_dualview.typing import Inputs


class RecordedTraining:
    """A training of which everything is fixed but the weights of the examples; made by `record_training`.

    "What if these five examples had not been there?" is then five weights of 0: initial weights, batches, their
    order, dropout and augmentation stay as they were, and so does the denominator of each mean. All trainings share
    one trace. On one machine, with as many threads, equal weights give equal bits; on GPUs call
    `tf.config.experimental.enable_op_determinism()` first.

    Attributes:
        model: the trained Keras model.
        hashes: of the training examples, in their order, shape (n,), uint64.
        weights: of the examples in the training that `model` comes from, shape (n,).
        parameters: all trainable weights of `model`, shape (p,), in the order of `model.trainable_variables`.
    """

    def __init__(
        self, model: keras.Model, steps: TrainingSteps, weights: np.ndarray, hashes: np.ndarray
    ) -> None:
        self.model, self.hashes, self.weights = model, hashes, weights
        self._steps, self._is_own_optimizer = steps, False
        self._start = steps.start([variable.value for variable in model.trainable_variables])
        self._end = self._trained(weights)
        self.parameters: np.ndarray = self._end[0].numpy()

    @property
    def num_train(self) -> int:
        """Number of training examples n."""
        return len(self.hashes)

    @property
    def num_steps(self) -> int:
        """Number of steps T."""
        return len(self._steps)

    @property
    def bytes_per_function(self) -> int:
        """Bytes that `derivatives` holds for each function at most: about four states of weights and optimizer."""
        return 4 * self._steps.num_rows * self._steps.num_parameters * self._steps.dtype.size

    @property
    def initial_parameters(self) -> np.ndarray:
        """All trainable weights before the first step, shape (p,)."""
        found: np.ndarray = self._start[0].numpy()
        return found

    def without(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the weights of the examples, shape (n,), with 0 for those at some positions.

        Raises:
            ValueError: a position that there is not.
        """
        positions = np.asarray(indices)
        is_known = positions.size == 0 or (
            positions.dtype.kind in "iu" and positions.min() >= 0 and positions.max() < self.num_train
        )
        require(
            is_known,
            f"`indices` must be positions of training examples, 0..{self.num_train - 1}.",
            {"indices": indices},
        )
        weights = self.weights.copy()
        weights[positions.astype(np.int64)] = 0
        return weights

    def retrain(self, weights: np.ndarray) -> np.ndarray:
        """Train again with other weights of the examples; `model` stays as it is.

        Args:
            weights: shape (n,); see `without`.

        Returns:
            All trainable weights, shape (p,), for `outputs` and `model_with`.

        Raises:
            ValueError: weights of another shape or not finite, or a training that ends in NaN or infinity.
        """
        found: np.ndarray = self._trained(weights)[0].numpy()
        return found

    def parameters_after(self, num_steps: int) -> np.ndarray:
        """Return all trainable weights after the first steps, shape (p,), as a checkpoint for `TracIn`.

        Raises:
            ValueError: less than 1 or more than there are.
        """
        found: np.ndarray = self._state_after(num_steps)[0].numpy()
        return found

    def model_after(self, num_steps: int) -> keras.Model:
        """Return a copy of the model as it was after the first steps, as a checkpoint for `TracIn`.

        Where the model was compiled with the optimizer of the training, so is the copy, with the state that it had.

        Raises:
            ValueError: less than 1 or more than there are.
        """
        state = self._state_after(num_steps)
        copy = self.model_with(state[0].numpy())
        if self._is_own_optimizer:
            self._leave_optimizer(copy, state, num_steps)
        return copy

    def checkpoints(self) -> Checkpoints:
        """Return the model after every epoch, with the learning rate at which the epoch began, for `TracIn`."""
        per_epoch = -(-self.num_train // self._steps.plan.rows.shape[1])
        ends = range(per_epoch, self.num_steps + 1, per_epoch)
        earlier = [InfluenceModel(self.model_after(end)) for end in ends[:-1]]
        rates = self._steps.plan.rates.numpy()[::per_epoch].tolist()
        return Checkpoints([*earlier, InfluenceModel(self.model)], rates, list(range(1, len(ends) + 1)))

    def outputs(self, inputs: Inputs, parameters: np.ndarray | None = None) -> np.ndarray:
        """Return the outputs of the model in inference mode, shape (m, ...).

        Args:
            inputs: of m examples, as the model takes them.
            parameters: from `retrain`; those of `model` by default.

        Raises:
            TypeError: a dataset.
            ValueError: parameters of another shape.
        """
        if isinstance(inputs, tf.data.Dataset):
            raise TypeError(
                describe("`inputs` must be arrays, not a dataset: give each batch.", {"inputs": inputs})
            )
        values = self._values(self.parameters if parameters is None else parameters)
        others = [variable.value for variable in self.model.non_trainable_variables]
        settings = {"training": False} if takes_training(self.model) else {}
        found, _ = self.model.stateless_call(values, others, self._steps.arranged(inputs), **settings)
        return tf.convert_to_tensor(found).numpy()

    def model_with(self, parameters: np.ndarray, into: keras.Model | None = None) -> keras.Model:
        """Return a copy of the model with the weights of another training.

        Args:
            parameters: from `retrain`.
            into: a built model of the same class that is given the weights and returned, for models that Keras cannot
                copy: a subclassed one without `get_config`.

        Raises:
            ValueError: parameters of another shape, a model that Keras cannot copy, or another model.
        """
        values = self._values(parameters)
        copy = self._copy() if into is None else into
        shapes = [[tuple(weight.shape) for weight in model.weights] for model in (copy, self.model)]
        require(
            shapes[0] == shapes[1],
            "The model must have the weights of the recorded one: build it, by a call on one batch.",
            {"shapes": shapes[0], "recorded": shapes[1]},
        )
        copy.set_weights(self.model.get_weights())
        _assign(copy, values)
        return copy

    def _copy(self) -> keras.Model:
        try:
            return keras.models.clone_model(self.model)
        except (
            Exception
        ) as error:  # Whatever the user's constructor raises on a configuration that it does not take.
            needed = (
                "Keras cannot copy this model: define `get_config`, or give another built instance, "
                "model_with(parameters, into=MODEL). `outputs(inputs, parameters)` needs no copy."
            )
            raise ValueError(describe(needed, {"model": type(self.model).__name__})) from error

    def _values(self, parameters: np.ndarray) -> list[tf.Tensor]:
        """Return all trainable weights as the values of the variables."""
        array = np.asarray(parameters)
        require(
            array.shape == self.parameters.shape and array.dtype.kind == "f",
            f"`parameters` must be {len(self.parameters)} numbers, all trainable weights, as `retrain` returns them.",
            {"shape": array.shape, "dtype": array.dtype},
        )
        return self._steps.values(tf.constant(array, self._steps.dtype))

    def derivatives(self, gradients: np.ndarray | tf.Tensor) -> np.ndarray:
        """Return the exact derivatives of m functions of the trained weights by the weight of each example, (m, n).

        All functions share one replay of the training: two trainings, and about one to three more for each function.
        It keeps 2 sqrt(T) states of the training and, for each function, `bytes_per_function`; networks of `Dense`
        layers alone, whose functions go through each step together, also the activations of a batch.

        Args:
            gradients: of the functions in all trainable weights, at `parameters`, shape (m, p).

        Raises:
            ValueError: gradients of another width, or derivatives that are NaN or infinite.
        """
        rows = tf.cast(gradients, self._steps.dtype)
        require(
            rows.shape.rank == 2 and rows.shape[1] == len(self.parameters),
            f"`gradients` must have one column for each of {len(self.parameters)} trainable weights.",
            {"shape": tuple(rows.shape)},
        )
        found: np.ndarray = self._steps.pull_back(self._start, self._checked(self.weights), rows).numpy()
        require(
            bool(np.isfinite(found).all()),
            "Derivatives through the training are NaN or infinite: it amplifies small changes too much. Lower the "
            "learning rate, train for fewer steps, or give Adam a larger epsilon.",
            {"steps": self.num_steps},
        )
        return found

    def _leave_trained(self, optimizer: Any) -> None:
        """Assign the trained weights to the model, and to its own optimizer what it keeps, as `fit` does."""
        _assign(self.model, self._steps.values(self._end[0]))
        self._is_own_optimizer = optimizer is getattr(self.model, "optimizer", None)
        if self._is_own_optimizer:
            self._leave_optimizer(self.model, self._end, self.num_steps)

    def _leave_optimizer(self, model: keras.Model, state: tf.Tensor, num_steps: int) -> None:
        slots = [value for row in tf.unstack(state[1:]) for value in self._steps.values(row)]
        assign_slots(model.optimizer, model.trainable_variables, slots, num_steps)

    def _trained(self, weights: np.ndarray) -> tf.Tensor:
        state = self._steps.run(self._start, 0, self.num_steps, self._checked(weights))
        require(
            bool(np.isfinite(state[0]).all()),
            "The training diverged: weights of the model are NaN or infinite. Lower the learning rate.",
            {"steps": self.num_steps},
        )
        return state

    def _state_after(self, num_steps: int) -> tf.Tensor:
        check_count("num_steps", num_steps)
        require(num_steps <= self.num_steps, "The training has fewer steps.", {"num_steps": num_steps})
        return self._steps.run(self._start, 0, num_steps, self._checked(self.weights))

    def _checked(self, weights: np.ndarray) -> tf.Tensor:
        array = np.asarray(weights)
        require(
            array.shape == (self.num_train,)
            and array.dtype.kind in "biuf"
            and bool(np.isfinite(array).all()),
            f"`weights` must be one finite number for each of {self.num_train} training examples.",
            {"shape": array.shape, "dtype": array.dtype},
        )
        return tf.constant(array, self._steps.dtype)


def record_training(
    model: keras.Model,
    train_set: tf.data.Dataset,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss_function: keras.losses.Loss | str | Any = None,
    weights: np.ndarray | None = None,
    augment: Augment | None = None,
) -> RecordedTraining:
    """Train a model from the weights that it has, so that the training can be repeated without some examples.

    As `model.fit`, it leaves the model trained, and the optimizer that it was compiled with in the state that training
    led to, where that is the one. It reads `train_set` once and keeps all examples in memory.

    Args:
        model: a built Keras model with its initial weights.
        train_set: batched, elements `(inputs, labels)`, with ids or sample weights or without. Its batches do not
            matter.
        epochs: passes over the training set, each in an order of its own.
        batch_size: of a step.
        seed: of the orders, of dropout and other random layers, and of augmentation; not of the initial weights.
        optimizer: `SGD` (with momentum), `Adam` or `AdamW`, with a learning rate or schedule; by default the one
            that the model was compiled with. Its settings are read, its state is not.
        loss_function: a Keras loss, its name, or a function of labels and outputs to one number an example; by
            default the one that the model was compiled with. Labels, ignored classes and `reduction="sum"` are
            treated as `fit` does.
        weights: of the examples, shape (n,); those of `train_set` by default, else 1.
        augment: `augment(inputs, seed)` changes the inputs of one example; `seed`, two integers of epoch and example,
            is for the stateless functions of TensorFlow, such as `tf.image.stateless_random_flip_left_right`.
            It is traced twice and must repeat.

    Raises:
        TypeError: no Keras model, another optimizer, no loss, or a call inside of a `tf.function`.
        ValueError: a model that is not built; one that draws random numbers by other means than layers' seed
            generators; one whose layers change variables while it trains, such as `BatchNormalization` that is not
            frozen, and so depends on examples in ways that weights do not take out; labels that do not fit the loss;
            an augmentation that does not repeat; or a training that diverges.

    Example:
        >>> training = record_training(model, train_set, epochs=5, batch_size=32, seed=0)
        >>> trained = training.retrain(training.without([3, 14]))
        >>> changed = training.outputs(test_inputs, trained) - training.outputs(test_inputs)
    """
    check_eager()
    epochs, batch_size, seed = (
        check_count("epochs", epochs),
        check_count("batch_size", batch_size),
        check_seed("seed", seed),
    )
    if not isinstance(model, keras.Model):
        raise TypeError(describe("`model` must be a Keras model.", {"model": model}))
    chosen = getattr(model, "optimizer", None) if optimizer is None else optimizer
    step = step_of(chosen)
    check_weights_of(model)
    loss = loss_of(model, loss_function)
    data.check_batched(train_set, "train_set")
    data.check_bounded(train_set, "train_set")
    inputs, labels, own_weights, hashes = _read(train_set)
    batch_size = min(batch_size, len(hashes))
    rates = learning_rates(chosen, epochs * -(-len(hashes) // batch_size))
    orders = [np.random.default_rng([seed, 0, epoch]).permutation(len(hashes)) for epoch in range(epochs)]
    num_generators = sum(map(is_seed, model.non_trainable_variables))
    dtype = tf.as_dtype(model.trainable_variables[0].dtype)
    plan = as_plan(orders, batch_size, rates, num_generators, seed, dtype)
    steps = TrainingSteps(model, loss, step, inputs, labels, plan, augment, lock_of(model))
    check_augment(augment, steps)
    check_repeatable(model, steps)
    training = RecordedTraining(model, steps, own_weights if weights is None else np.asarray(weights), hashes)
    training._leave_trained(chosen)
    return training


def _read(train_set: tf.data.Dataset) -> tuple[Inputs, tf.Tensor, np.ndarray, np.ndarray]:
    """Return inputs, labels, weights (n,) and hashes (n,) of all examples."""
    parts, weights, hashes = [], [], []
    for _, own_hashes, element in data.compared_examples(train_set, "train_set"):
        batch = data.unpack(element)
        require(
            batch.labels is not None,
            "The training set needs labels.",
            {"element_spec": train_set.element_spec},
        )
        own = data.sample_weights(batch)
        parts.append((batch.inputs, batch.labels))
        weights.append(np.ones(len(own_hashes), np.float32) if own is None else own)
        hashes.append(own_hashes)
    require(bool(parts), "`train_set` is empty: at least one example is needed.", {"num_examples": 0})
    inputs, labels = tf.nest.map_structure(lambda *tensors: tf.concat(tensors, 0), *parts)
    return inputs, labels, np.concatenate(weights), np.concatenate(hashes)


def _assign(model: keras.Model, values: Sequence[tf.Tensor]) -> None:
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)
