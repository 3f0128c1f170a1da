"""InfluenceModel: a Keras model seen as penultimate features, a linear head, outputs and their loss."""

import copy
import threading
import warnings
from collections.abc import Mapping
from typing import cast

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.models import determinism, heads, identity, links, recording, splits, tracing
from deel_dualview.models.class_weights import ClassWeights
from deel_dualview.models.ensembles import TreeEnsembleModel
from deel_dualview.models.forward import Forward
from deel_dualview.models.heads import Head, LinearHead
from deel_dualview.models.inputs import structure_of, used
from deel_dualview.models.keras_losses import LossFunction, check_loss_function, find_objective
from deel_dualview.models.named_outputs import find_output
from deel_dualview.models.objectives import Objective, SoftmaxCrossEntropy
from deel_dualview.models.parts import Composed
from deel_dualview.models.positions import Position, check_position, rows_at
from deel_dualview.models.replicas import strategy_of
from deel_dualview.models.takes_labels import TakesLabels
from deel_dualview.models.workers import workers_of
from deel_dualview.typing import Inputs

# Examples of the first batch that are kept, for models that take no made-up ones.
_NUM_KEPT = 4


class InfluenceModel(TakesLabels):
    """A Keras model split at its penultimate features, with its objective: the loss of an example.

    The features are the input of the last Dense layer that the model calls (of a last convolution whose outputs are
    averaged: its mean patch), or the output of `feature_layer` (flattened). A fixed affine step after that layer, such
    as a temperature or a logit adjustment, is part of the head. The model always runs in inference mode and its
    weights are only read. On the first batch that it sees, the split is verified: the head must give the model's
    own outputs. Where it does not, named features go without a linear head.

    Explained are class logits (of one output z two, (-z / 2, z / 2)), those of independent labels, or numbers.

    Args:
        model: any Keras 3 model: Sequential, Functional, subclassed or nested, ending in logits, softmax, sigmoid or
            linear outputs.
        feature_layer: name of the layer whose output is taken as the features, or the layer itself. Needed
            where no Dense layer makes the logits; its features then come without a linear head.
        loss_function: the loss that the model was trained with: an `Objective`, a Keras loss or its name, or a function
            of labels and outputs without a reduction over the batch. By default the one that it was compiled with,
            where that is of a regression or of independent labels; else the cross-entropy of a classifier. `objective`
            says which was found.
        output: name (key of a dict) or index of the one to explain of several outputs, by its own last layer, compiled
            loss and labels: datasets yield a dict of labels by name, a tuple in this order, or those of this output.
        position: of a model with an output at each position (b, steps, c) or (b, rows, columns, c) the one of evaluated
            examples to explain: a step, or (row, column). Training examples are at all positions. See `at`.
        class_weight: of a classifier, weights of classes in the training objective, as in `model.fit`; 1 if not named.
            Keras does not keep them, so that they are never found.

    Attributes:
        model: the Keras model; of several outputs one that makes `output` only, of the same layers and weights.
        strategy: whose devices share each batch: the mirrored one in whose scope this, or the Keras model, was made.
        workers: the processes of this strategy, which share passes and searches; None where there is only this one.

    Raises:
        TypeError: `model` is not a Keras model, `loss_function` no loss, or `class_weight` no mapping.
        ValueError: a negative weight, no Dense head or such layer, none named of several outputs, a head called twice.
    """

    def __init__(
        self,
        model: keras.Model,
        feature_layer: str | keras.Layer | None = None,
        *,
        loss_function: LossFunction | None = None,
        output: str | int | None = None,
        position: Position | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(
                "InfluenceModel needs a Keras 3 model; load a file with `keras.models.load_model`, and wrap XGBoost, "
                f"LightGBM and forests: TreeEnsembleModel(model). Received: model of type {type(model).__name__}."
            )
        check_loss_function(loss_function)
        if isinstance(model, TreeEnsembleModel):
            feature_layer = model.feature_layer if feature_layer is None else feature_layer
            loss_function = model.loss_function if loss_function is None else loss_function
        self.strategy = strategy_of(model)
        self.workers = workers_of(self.strategy)
        self._output = None if output is None else find_output(model, output)
        self.model = model if self._output is None else self._output.alone()
        self._position = check_position(position)
        self.class_weights = ClassWeights(class_weight)
        self._loss_function = loss_function
        self._objective: Objective | None = None
        self._requested_layer = feature_layer
        self._lock = recording.lock_of(model)
        self._split: splits.Split | None = None
        self._link: str | None = None
        self._forward: Forward | None = None
        self._seen: Inputs | None = None
        self._changing: frozenset[int] = frozenset()
        tracing.named_layer(self.model, feature_layer)
        specs = tracing.input_specs(self.model)
        # The head of parts may have no weights yet, which no trace may create.
        if specs is not None and not isinstance(self.model, Composed):
            self._split = self._find_split(specs)

    @classmethod
    def from_parts(
        cls,
        feature_extractor: keras.Model,
        head: keras.Layer,
        *,
        loss_function: LossFunction | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> "InfluenceModel":
        """Build from a feature extractor and a head, where no single Keras model can be split.

        Args:
            feature_extractor: maps inputs to features, shape (b, d).
            head: maps features to logits or probabilities, for instance a Dense layer.
            loss_function: see `InfluenceModel`.
            class_weight: see `InfluenceModel`.
        """
        for name, part in (("feature_extractor", feature_extractor), ("head", head)):
            if not isinstance(part, keras.Layer):
                raise TypeError(
                    f"`{name}` must be a Keras model or layer. Received: {name} of type {type(part).__name__}."
                )
        return cls(
            Composed(feature_extractor, head),
            feature_layer=feature_extractor,
            loss_function=loss_function,
            class_weight=class_weight,
        )

    def __repr__(self) -> str:
        if self._split is None:
            return f"InfluenceModel({self.model.name!r}, not built)"
        weights = f", {self.class_weights}" if self.class_weights else ""
        return (
            f"InfluenceModel({self.model.name!r}, objective={self.objective}{weights}, "
            f"features={self.feature_layer!r})"
        )

    def at(self, position: Position) -> "InfluenceModel":
        """Return the same model, of which another position of evaluated examples is explained."""
        other = copy.copy(self)
        other._position = check_position(position)
        return other

    @property
    def num_axes(self) -> int:
        """Number of axes of positions that have an output each: 0 of most models, 1 of sequences, 2 of images."""
        return self._known_split().num_axes

    @property
    def objective(self) -> Objective:
        """The loss of an example as a function of the outputs."""
        if self._objective is None:
            split = self._known_split()
            self._objective = find_objective(
                self._loss_function, self._compiled_loss, split.num_outputs, split.ending
            )
        return self._objective

    @property
    def num_outputs(self) -> int:
        """Number c of outputs that can be explained: classes (two of a binary classifier), labels or numbers."""
        return self.objective.num_outputs(self._known_split().num_outputs)

    @property
    def is_binary(self) -> bool:
        """Whether the logits of two classes follow from a single output."""
        return self.is_classifier and self._known_split().num_outputs == 1

    @property
    def num_features(self) -> int:
        """Number of penultimate features d."""
        return self._known_split().num_features

    @property
    def num_leaves_of_example(self) -> int | None:
        """Number T of features that are 1, the others being 0, of every example of a tree ensemble; else None."""
        model, split = self.model, self._known_split()
        if not isinstance(model, TreeEnsembleModel) or model.leaves.kind != "leaves":
            return None
        return model.leaves.num_trees if split.layer in (model.leaves, model.head) else None

    @property
    def feature_layer(self) -> str:
        """Where the features are taken: a layer's name, or `input of NAME` for the input of the head."""
        split = self._known_split()
        return f"input of {split.layer.name}" if split.takes_input else split.layer.name

    @property
    def split(self) -> splits.Split:
        """Where the model is split: the layer of the features, and the Dense layer that they feed, if any."""
        return self._known_split()

    @property
    def feature_extractor(self) -> keras.Layer | None:
        """The part before the head where the model was built from parts, else None."""
        return self.model.feature_extractor if isinstance(self.model, Composed) else None

    @property
    def link(self) -> str:
        """Kind of the outputs of a model without a linear head: `"logits"`, `"softmax"` or `"sigmoid"`."""
        return self._link or "logits"

    @property
    def is_prepared(self) -> bool:
        """Whether the split has been verified on a batch."""
        return self._link is not None

    @property
    def lock(self) -> threading.RLock:
        """Held while something traces the model: two traces at once would mix their layers' calls."""
        return self._lock

    @property
    def head(self) -> LinearHead | None:
        """The linear head that gives the outputs, or None where the features do not feed the last Dense layer."""
        head = self._known_split().head
        if head is None:
            return None
        return head.linear(is_binary=self.is_binary)

    @property
    def fingerprint(self) -> str:
        """Hash of what the model computes; stored vectors of another model are rejected by it.

        It covers weights, settings, wiring and the split, whatever the layers are called; of code that is not Keras'
        own (custom layers, Lambda, subclassed models) the features and outputs of a fixed batch.
        """
        with self._lock:
            found = identity.fingerprint(
                self.model, self._known_split(), self._passes.eager, self._seen, self._changing
            )
        # The plain objective of a classifier is left out, so that its stores of former releases stay valid.
        if self.objective != SoftmaxCrossEntropy():
            found = f"{found} {self.objective.describe()}"
        return f"{found} {self.class_weights}" if self.class_weights else found

    def record_weights(self) -> identity.WeightsRecord:
        """Return a record of the weights as they are now, which finds out later whether they have changed."""
        return identity.WeightsRecord(self.model, self._changing)

    def features(self, inputs: Inputs) -> tf.Tensor:
        """Return the penultimate features, shape (b, d), float32."""
        return self.features_and_logits(inputs)[0]

    def logits(self, inputs: Inputs) -> tf.Tensor:
        """Return the outputs, shape (b, c), float32; log-probabilities of a classifier without a linear head."""
        return self.features_and_logits(inputs)[1]

    def features_and_logits(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor]:
        """Return features (b, d) and outputs (b, c) of one forward pass, float32: those at `position`, if any.

        Raises:
            ValueError: an output at each position and none of them chosen.
            RowsError: the position is one of padding.
        """
        features, outputs, *mask = self.forward(inputs)
        outputs = self.objective.from_native(outputs, self.link)
        if not mask:
            return features, outputs
        rows = rows_at(self._position, mask[0])
        return tf.gather(features, rows), tf.gather(outputs, rows)

    def forward(self, inputs: Inputs) -> tuple[tf.Tensor, ...]:
        """Return features and native outputs; and with a mask (b, *positions), of rows for all positions."""
        self.prepare(inputs)
        return self._passes(inputs)

    def logits_of_features(self, features: tf.Tensor) -> tf.Tensor:
        """Return the outputs (b, c) of features (b, d) by the linear head: those of the model, bit for bit.

        Raises:
            ValueError: the model has no linear head.
        """
        head = self._known_split().head
        require(
            head is not None,
            "Logits follow from the features only where these feed a linear last layer.",
            {"feature_layer": self.feature_layer},
        )
        return self.objective.from_native(cast(Head, head).of_features(features), self.link)

    def losses(self, inputs: Inputs, labels: tf.Tensor) -> tf.Tensor:
        """Return the loss of every example, shape (b,)."""
        outputs = self.logits(inputs)
        return self.objective.loss(outputs, tf.convert_to_tensor(self.to_targets(self.query_labels(labels))))

    def example_weights(
        self, targets: np.ndarray | None, sample_weight: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Return the weights of training examples, (b,), None if all are 1; see `ClassWeights.of_examples`."""
        if not self.class_weights:
            return sample_weight
        return self.class_weights.of_examples(targets, sample_weight, self.num_classes)

    def check_inputs(self, specs: Inputs, name: str) -> None:
        """Refuse inputs of a structure or shape that the model does not take, where it tells which it takes.

        Args:
            specs: the inputs' part of a dataset's element_spec.
            name: the argument the dataset came by, for the message.
        """
        used(structure_of(self.model), specs, name)

    def prepare(self, inputs: Inputs) -> None:
        """Find the split and verify it on one batch; a prepared model returns immediately.

        Raises:
            TypeError: inside of a `tf.function`, or where functions are run eagerly.
            ValueError: the head applied to the features does not give the model's outputs, or the model is random
                at inference.
        """
        determinism.check_eager()
        with self._lock:
            if self._link is not None:
                return
            # The first call of a model that is not built creates its variables, which no trace may do.
            known = tracing.variable_ids(self.model)
            own_outputs = tracing.call_model(self.model, inputs)
            if tracing.variable_ids(self.model) - known:
                warnings.warn(
                    "The model was not built: its weights were created just now, at random. Train it, or load "
                    f"its weights, before asking what it has learned. Received: model={self.model.name!r}.",
                    UserWarning,
                    stacklevel=2,
                )
            splits.check_one_output(self.model, own_outputs)
            self._check_repeatable(inputs, own_outputs)
            if self._split is None:
                self._split = self._find_split(tf.nest.map_structure(tracing.relaxed_spec, inputs))
            native = tf.cast(own_outputs, tf.float32).numpy().reshape(-1, self._split.num_outputs)
            outputs = self._passes(inputs)[1]
            head = self._split.head
            tolerance = links.TOLERANCE_IN_HALF if determinism.is_half(self.model) else links.TOLERANCE
            if head is not None and not head.gives(native, outputs.numpy(), self._split.ending, tolerance):
                self._leave_head(self._split, head)
                head = None
            self._link = self._link_of(native) if head is None else "logits"
            self._seen = tf.nest.map_structure(lambda part: part[:_NUM_KEPT], inputs)

    def _link_of(self, native: np.ndarray) -> str:
        """Return how the model's outputs follow from the outputs to explain where there is no linear head."""
        if self.is_classifier:
            return links.guess_link(native)
        ending = self._known_split().ending
        return "logits" if ending == "log-softmax" else ending

    def _check_repeatable(self, inputs: Inputs, first: tf.Tensor) -> None:
        second: list[tf.Tensor] = []
        self._changing = identity.weights_that_change(
            self.model, lambda: second.append(tracing.call_model(self.model, inputs))
        )
        determinism.check_repeatable(self.model, inputs, first, second[0])

    def _leave_head(self, split: splits.Split, head: Head) -> None:
        """Go on with the features that the user named and no linear head.

        Raises:
            ValueError: none were named.
        """
        if self._requested_layer is None:
            raise heads.not_the_head(head)
        self._split = split._replace(head=None)
        self._forward = None

    def _known_split(self) -> splits.Split:
        if self._split is None:
            raise ValueError(
                "The model has not been called yet, so its layers are unknown. Call it on one batch, or hand the "
                f"InfluenceModel to a calculator, which does. Received: model={self.model.name!r} (not built)."
            )
        return self._split

    @property
    def _passes(self) -> Forward:
        if self._forward is None:
            self._forward = Forward(self.model, self._known_split(), self._lock, self.strategy)
        return self._forward

    def _find_split(self, specs: Inputs) -> splits.Split:
        with self._lock:
            found = splits.find_split(self.model, self._requested_layer, specs)
        require(
            found.num_axes > 0 or self._position is None,
            "`position` is of models with an output at each of several positions; this one has one output an example.",
            {"position": self._position},
        )
        return found
