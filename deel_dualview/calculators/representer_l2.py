"""RepresenterPointL2: the last layer, retrained with a penalty, is a sum over training examples."""

from collections.abc import Iterator
from typing import Literal, cast, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_choice, check_positive, describe
from deel_dualview.calculators import fidelity
from deel_dualview.calculators.contributions import FeatureContributions, Pairs, split_outer_products
from deel_dualview.calculators.last_layer import fit_last_layer, weights_of_outputs
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.calculators.targets import output_gradients
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.models import InfluenceModel
from deel_dualview.models.heads import LinearHead
from deel_dualview.stores import Store
from deel_dualview.svm.penalised_layer import PenalisedLayer
from deel_dualview.typing import Target

FitTo = Literal["labels", "probabilities"]
"""What the last layer is retrained to predict: the training labels, or the model's own probabilities."""


class RepresenterPointL2(StoredInfluenceCalculator):
    """Representer points: alpha of a last layer that is retrained with an L2 penalty.

    The penalised last layer W minimises `mean loss + lambda ||W||^2` on the penultimate features phi, so that `W =
    sum_i alpha_i phi_i'` with `alpha_i = -w_i e_i / (2 lambda n)`, e_i the gradient of the loss in the outputs (p_i -
    y_i of cross-entropy) and w_i the weight of the example (1 without sample or class weights). The influence of
    training example i on output j at x is `alpha_ij <phi_i, phi(x)>`: positive where the example raises that output
    (the logit of a class, or a predicted number). Summed over i it is output j of the *retrained* layer, so one unit is
    one unit of that output; `surrogate_fidelity` measures how far it agrees with the model, and how stationary it is is
    in `surrogate.gradient_norm`.

    Where the model's last layer has a bias (or where there is no linear last layer), phi ends in a constant
    1, and the bias is penalised like every weight; its share of the outputs is `surrogate_bias`. A binary classifier
    with one output is retrained as such, and explained on the logits (-z / 2, z / 2).

    Self-influence, of an example on the logit of its label, is `alpha_i,y_i ||phi_i||^2`: large for an example that
    the penalised layer does not fit. (Of independent labels it is on the sum of their logits, with a negative sign
    for those that do not hold, of a regression on the sum of its outputs.) Known weakness: alpha_i ||phi_i||
    dominates, so that rankings hardly differ between queries of one class.

    The layer is retrained in the constructor: one pass over the training set for features, then Newton's
    method.

    Args:
        model: the model to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        lambda_regularization: lambda of the penalty `lambda ||W||^2` beside the mean loss.
        fit_to: of a classifier, what is retrained for: the `"labels"`, or the model's own `"probabilities"`, which
            keeps closer to the model and to Yeh et al.; alpha then compares with these and says nothing about labels.
        target: which output of an evaluated example is explained: `"prediction"`, `"label"` or an index.
        store: where the features are kept; in memory by default.

    Attributes:
        surrogate: the retrained layer, its gradient norm and its coefficients alpha, shape (n, c) or (n, 1).

    Raises:
        ValueError: bad settings, labels or datasets (before any long work), features that are not finite.

    Warns:
        ConvergenceWarning: the retrained layer is not stationary.

    Source: Yeh et al. (2018), Representer Point Selection for Explaining Deep Neural Networks, theorem 3.1.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        lambda_regularization: float = 0.003,
        fit_to: FitTo = "labels",
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        self.lambda_regularization = check_positive("lambda_regularization", lambda_regularization)
        check_choice("fit_to", fit_to, get_args(FitTo))
        super().__init__(model, train_set, target=target, store=store)
        self.fit_to = fit_to
        if fit_to == "probabilities":
            self.model.num_classes  # noqa: B018 (raises an error unless it is a classifier)
            self._check_head()
        self._has_constant_feature = self.model.head is None or self.model.head.has_bias
        self.surrogate = self._fit()

    @property
    def surrogate_weights(self) -> np.ndarray:
        """Weights of the class logits, shape (d, c), float64, the constant feature's left out."""
        return self._class_weights[: self.model.num_features]

    @property
    def surrogate_bias(self) -> np.ndarray:
        """Contribution of the constant feature to each logit, shape (c,); zeros without one."""
        return self._class_weights[-1] if self._has_constant_feature else np.zeros(self.model.num_outputs)

    def surrogate_logits(self, dataset: tf.data.Dataset) -> np.ndarray:
        """Return the retrained layer's logits, shape (m, c), float64."""
        return np.concatenate([surrogate for _, surrogate, _ in self._evaluate(dataset)])

    def surrogate_fidelity(
        self, dataset: tf.data.Dataset
    ) -> fidelity.SurrogateFidelity | fidelity.OutputFidelity:
        """Measure how far the retrained layer agrees with the model on a dataset, labelled or not.

        Returns:
            Of a classifier agreement of decisions and logits, of another model that of the outputs.
        """
        model_logits, surrogate_logits, sums = (
            np.concatenate(parts) for parts in zip(*self._evaluate(dataset), strict=True)
        )
        if not self.model.is_classifier:
            return fidelity.measure_outputs(model_logits, surrogate_logits, sums)
        return fidelity.measure(
            model_logits,
            surrogate_logits,
            contributions=(model_logits.argmax(axis=1), sums),
            kernel=None if self.model.head is None else self.model.head.kernel,
            weights=self.surrogate_weights,
        )

    def check_feature_contributions(self) -> None:
        """Allow it: alpha_ij phi_ik phi_k(x)."""

    def feature_contributions(self, pairs: Pairs) -> FeatureContributions:
        (queries,) = self._queries_of_features(pairs.features, pairs.classes)
        (vectors,) = self._vectors_of_features(pairs.train_indices, pairs.train_features)
        return split_outer_products(queries, vectors, self.model.num_features)

    def _check_head(self) -> None:
        if self.model.head is None:
            needed = (
                "The model's probabilities are found from its features by its linear last layer, and it has "
                "none: use fit_to='labels'."
            )
            raise ValueError(describe(needed, {"feature_layer": self.model.feature_layer}))

    def _fit(self) -> PenalisedLayer:
        features = self._stored().array("features")
        if self._has_constant_feature:
            features = np.hstack([features, np.ones((len(features), 1), np.float32)])
        labels = self.train_labels if self.fit_to == "labels" else self._model_probabilities(features)
        return fit_last_layer(
            self.model,
            features,
            labels,
            penalty=self.lambda_regularization,
            sample_weight=self.train_weights,
        )

    def _model_probabilities(self, features: np.ndarray) -> np.ndarray:
        head = cast(LinearHead, self.model.head)
        logits = features[:, : len(head.kernel)] @ head.kernel + head.bias
        return tf.nn.softmax(tf.constant(logits, tf.float64)).numpy()

    @property
    def _class_weights(self) -> np.ndarray:
        return weights_of_outputs(self.model, self.surrogate.weights)

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        return self._vectors_of_features(rows, represented.features)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        return self._queries_of_features(represented.features, classes)

    def _vectors_of_features(self, rows: np.ndarray, features: tf.Tensor) -> Blocks:
        return (OuterProduct(tf.constant(self.surrogate.coefficients[rows]), self._with_constant(features)),)

    def _queries_of_features(self, features: tf.Tensor, classes: np.ndarray) -> Blocks:
        return (OuterProduct(output_gradients(self.model, classes), self._with_constant(features)),)

    def _evaluate(self, dataset: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the model's and the surrogate's logits (b, c), and sums of contributions (b,)."""
        data.check_bounded(dataset, "dataset")
        self.check_unchanged()
        for represented in self._represented(dataset, "dataset"):
            logits = represented.logits.numpy()
            explained = logits.argmax(axis=1) if self.model.is_classifier else np.zeros(len(logits), np.int64)
            queries = self._queries(represented, explained)
            scores = [self._scores(queries, vectors) for _, vectors in self._blocks()]
            sums = tf.add_n([tf.reduce_sum(tf.cast(part, tf.float64), axis=1) for part in scores])
            surrogate = (
                self._with_constant(represented.features).numpy().astype(np.float64) @ self._class_weights
            )
            yield logits, surrogate, sums.numpy()
