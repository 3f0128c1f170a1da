"""DualView: attributions are the dual variables of a support vector machine on the penultimate features."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast, get_args

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_choice, check_flag, check_positive, require
from deel_dualview.calculators import fidelity
from deel_dualview.calculators.contributions import FeatureContributions, Pairs, split_product
from deel_dualview.calculators.feature_maps import TEMPERED_POWER, fit_feature_map
from deel_dualview.calculators.kernel_features import all_features, kernel_features, mean_squared_norm
from deel_dualview.calculators.output_surrogate import (
    check_solver,
    default_kernel,
    default_penalty,
    fit_outputs,
    solver_of,
)
from deel_dualview.calculators.represented import Represented, RepresentedExamples
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.calculators.support_vectors import SupportVectors
from deel_dualview.calculators.targets import output_gradients
from deel_dualview.calculators.tempering import fit_tempering
from deel_dualview.linalg import spans
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.linalg.rows import LazyRows
from deel_dualview.models import InfluenceModel
from deel_dualview.search import ORDER, Best
from deel_dualview.search.faiss_index import FaissIndex, check_index
from deel_dualview.stores import NoStore, Store
from deel_dualview.svm import DualSVMSolution, DualSVMSolver, PerOutputSVMSolver
from deel_dualview.svm.progress import GapBar
from deel_dualview.typing import Kernel, Target


class Evaluation(NamedTuple):
    """Features and logits of m examples, by the model and by the surrogate.

    Attributes:
        kernel_features: phi, shape (m, d), float32.
        model_logits: shape (m, c), float32.
        surrogate_logits: shape (m, c), float64.
    """

    kernel_features: np.ndarray
    model_logits: np.ndarray
    surrogate_logits: np.ndarray


class DualView(StoredInfluenceCalculator):
    """Attributions from the dual of a support vector machine fitted to the penultimate features phi.

    The influence of training example i on output j at x is `alpha_ij <phi_i, phi(x)>`. Summed over i it is output j of
    the surrogate (plus, of a regression, `surrogate_bias`), so one unit is one unit of that output; only support
    vectors have any. `surrogate_fidelity` measures how far the surrogate agrees with the model;
    `surrogate.relative_gap` and `logit_error_bound` bound how far the solver may be from the optimum.

    Of a classifier the outputs are logits, and the surrogate one Crammer-Singer machine. Of independent labels they
    are logits too, and each has a binary machine; of a regression each number has a machine of the
    epsilon-insensitive loss, with labels standardised: examples within 0.3 standard deviations of the surrogate have
    no influence.

    Self-influence is `alpha_i,y_i ||phi_i||^2`; of independent labels and of a regression the sum over the outputs,
    with a negative sign for labels that do not hold. Labels that are likely wrong are better ranked by
    `label_issues`.

    With sample or class weights w_i, the penalty of example i is K w_i: alpha_i is bounded by it. The surrogate has no
    label smoothing: its labels are those that the examples have.

    The surrogate is fitted in the constructor: one pass over the training set for features, then the solver. Where
    that takes long, a bar shows how far the solver's gap has come (on a terminal; `store=MemoryStore(progress=False)`
    shows none). `top_k`, `top_k_indices` and `estimate_influence_values_in_batches` warn, once, of a surrogate that
    predicts what the model predicts on less than 90 % of the evaluated examples so far, of 50 or more.

    Args:
        model: the model to explain: a classifier, one of independent labels or a regression.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        K: penalty on margin violations, scale free: the solver's K times the mean of ||phi||^2, so that it means the
            same for any features. Smaller values spread the attributions over more training examples; larger values
            follow single hard examples, give sparser attributions and take longer. By default 600 / n and, for the
            tempered kernel, 30 / n or less, the further the classes are apart: then nearly all training examples keep
            influence, and training sets of any size are treated alike; 300 / n of a regression. The paper's K is
            `paper_K * mean(||phi||^2)` here.
        kernel: how features enter: `"tempered"` at a small power of their length, 0.1 or less, `"cosine"` at unit
            length, `"linear"` as they are, `"standardized"` z-scored (the paper's). The first, with its K, finds the
            training examples most like the evaluated one; `"cosine"`, with its K, is sparse and nearest to the model:
            an audit's choice. By default `"tempered"` of a classifier, `"cosine"` of independent labels and `"linear"`
            of a regression, whose outputs grow with the length of the features.
        bias: whether a constant feature 1 is appended; its share of the logits is `surrogate_bias`.
        target: which output of an evaluated example is explained: `"prediction"`, `"label"` (of a classifier) or an
            index.
        solver: settings of the solver, for instance `DualSVMSolver(tolerance=1e-6)`; of other models than classifiers
            a `PerOutputSVMSolver`.
        store: where the features are kept; in memory by default. Beyond its memory budget the solver reads them in
            blocks. With a `DiskStore` a long fit can be interrupted: its state is in the folder `fits` of the store.
        index: for millions of support vectors, see `FaissIndex`; every one is compared by default.

    Attributes:
        surrogate: a `DualSVMSolution`, or a `PerOutputSVMSolution` in the units of the outputs.

    Raises:
        TypeError: a solver of another kind of model.
        ValueError: bad settings, labels or datasets (before any long work), features that are not finite, a custom
        loss.

    Source: Yolcu et al. (2024), DualView, equations 5, 6 and 15.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        K: float | None = None,
        kernel: Kernel | None = None,
        bias: bool = False,
        target: Target = "prediction",
        solver: DualSVMSolver | PerOutputSVMSolver | None = None,
        store: Store | None = None,
        index: FaissIndex | None = None,
    ) -> None:
        if K is not None:
            check_positive("K", K)
        if kernel is not None:
            check_choice("kernel", kernel, get_args(Kernel))
        check_flag("bias", bias)
        check_solver(solver)
        check_index(index)
        self.solver: Any = solver
        super().__init__(model, train_set, target=target, store=store)
        objective = self.model.objective
        self.kernel: Kernel = kernel or default_kernel(objective)
        features = all_features(self._stored(), self.model.num_features)
        power, total = TEMPERED_POWER, default_penalty(objective)
        if self.kernel == "tempered" and self.model.is_classifier:
            classes, num_classes = self.train_labels, self.model.num_classes
            power, total = fit_tempering(features, classes, num_classes, self.train_weights)
        self.feature_map = fit_feature_map(features, self.kernel, bias, power)
        self.K = total / self.num_train if K is None else float(K)
        phi = self._kernel_features()
        self._offset = np.zeros(self.model.num_outputs)
        self.surrogate: Any
        if isinstance(self.solver, PerOutputSVMSolver):
            require(
                isinstance(phi, np.ndarray),
                "The surrogate of a model that is no classifier is fitted in memory: raise the memory budget of the "
                f"store to {16 * len(phi) * phi.shape[1]} bytes, or that of an audit to twice as many.",
                {"memory_budget": self.store.memory_budget},
            )
            absolute = self.K / mean_squared_norm(phi, self.train_weights, self.model.feature_layer)
            self.surrogate, self._offset = fit_outputs(
                objective, cast(np.ndarray, phi), self.train_labels, absolute, self.solver, self.train_weights
            )
        else:
            self.surrogate = self._fit([self.K], phi, cast(DualSVMSolver, self.solver))[0]
        # What is not stored is held, so that no query runs the network over the training set.
        rows_of = phi.__getitem__ if isinstance(self.store, NoStore) else self._kernel_rows
        self._support_vectors = SupportVectors(
            self.surrogate.coefficients, rows_of, index, self.store.memory_budget, self.model.workers
        )
        remedy = "Take a larger K." if self.kernel == "cosine" else "Take kernel='cosine', or a larger K."
        self._monitor = fidelity.AgreementMonitor({"kernel": self.kernel, "K": self.K}, remedy)

    def _check_model(self) -> None:
        super()._check_model()
        self.solver = solver_of(self.model.objective, self.solver)

    @property
    def train_ids(self) -> np.ndarray | None:
        """The user's ids of the training examples, shape (n,), integers or bytes; None if there are none."""
        return self._stored().array("ids") if "ids" in self._stored().names else None

    @cached_property
    def suggested_labels(self) -> np.ndarray:
        """Class that the surrogate puts first among those that are not the label, shape (n,), int64.

        Raises:
            ValueError: the model is no classifier.
        """
        self.model.num_classes  # noqa: B018 (raises the error)
        weights, found = self.surrogate.weights.astype(np.float32), []
        for rows, represented in self._features():
            logits = self.feature_map(represented.features).numpy() @ weights
            logits[np.arange(len(rows)), self.train_labels[rows]] = -np.inf
            found.append(logits.argmax(axis=1))
        return np.concatenate(found)

    @property
    def surrogate_bias(self) -> np.ndarray:
        """What is added to the influences for each output, shape (c,).

        It is the contribution of the constant feature and, of a regression, the mean of the labels.
        """
        constant = self.surrogate.weights[-1] if self.feature_map.has_bias else 0.0
        return self._offset + constant

    def fit_path(self, Ks: Sequence[float], *, tolerance: float | None = None) -> list[DualSVMSolution]:
        """Fit the surrogate of a classifier for several scale-free K, each from the last, in the order given.

        With a `tolerance`, to that relative gap in the place of the solver's own: 1e-3 is a preview.

        Raises:
            ValueError: the model is no classifier.
        """
        for K in Ks:
            check_positive("K", K)
        self.model.num_classes  # noqa: B018 (raises the error)
        solver = self.solver if tolerance is None else dataclasses.replace(self.solver, tolerance=tolerance)
        self.check_unchanged()
        return self._fit(Ks, self._kernel_features(), solver)

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the influence vectors, lazily: `OuterProduct(alpha_i (b, c), phi_i (b, d))` for each batch."""
        self._check_same_train_set(train_set)
        return self._lazy_dataset(
            lambda: (vectors for _, (vectors,) in self._blocks()),
            OuterProduct(
                tf.TensorSpec([None, self.model.num_outputs], tf.float32),
                tf.TensorSpec([None, self.surrogate.weights.shape[0]], tf.float32),
            ),
        )

    def compute_influence_values(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        self._check_same_train_set(train_set)
        labels = self.train_labels
        if not self.model.is_classifier:
            labels = output_gradients(self.model, labels).numpy()
        values = self._support_vectors.self_influence(labels)
        parts = np.array_split(values, -(-len(values) // 1024))
        return self._lazy_dataset(lambda: iter(parts), tf.TensorSpec([None], tf.float32))

    def evaluate(self, dataset: tf.data.Dataset | RepresentedExamples) -> Iterator[Evaluation]:
        """Yield the `Evaluation` of each batch of a dataset, labelled or not (or of `represent`)."""
        if isinstance(dataset, tf.data.Dataset):
            data.check_batched(dataset, "dataset")
        self.check_unchanged()
        yield from self._mapped(self._evaluate, dataset, "dataset")

    def surrogate_logits(self, dataset: tf.data.Dataset) -> np.ndarray:
        """Return the surrogate's logits, shape (m, c), float64."""
        return np.concatenate([batch.surrogate_logits for batch in self._evaluate_all(dataset)])

    def logit_error_bound(self, dataset: tf.data.Dataset) -> np.ndarray:
        """Return for every example how far any of its surrogate outputs can be from the exact solution's, shape (m,).

        Strong convexity turns the certified gap into `sqrt(2 gap) ||phi(x)||`.
        """
        norms = [np.linalg.norm(batch.kernel_features, axis=1) for batch in self._evaluate_all(dataset)]
        return np.max(self.surrogate.weight_error_bound) * np.concatenate(norms)

    def surrogate_fidelity(
        self, dataset: tf.data.Dataset | RepresentedExamples
    ) -> fidelity.SurrogateFidelity | fidelity.OutputFidelity:
        """Measure how far the surrogate agrees with the model on a dataset.

        Returns:
            Of a classifier agreement of decisions and logits, of another model that of the outputs.
        """
        batches = self._evaluate_all(dataset)
        phi, model_logits, logits = map(np.concatenate, zip(*batches, strict=True))
        explained = model_logits.argmax(axis=1) * self.model.is_classifier
        sums = self._support_vectors.sums(phi, explained)
        if not self.model.is_classifier:
            return fidelity.measure_outputs(model_logits, logits, sums + self.surrogate_bias[0])
        return fidelity.measure(
            model_logits=model_logits,
            surrogate_logits=logits,
            contributions=(explained, sums),
            kernel=None if self.model.head is None else self.model.head.kernel,
            weights=self.feature_map.weights_on_features(self.surrogate.weights),
        )

    def check_feature_contributions(self) -> None:
        """Allow it for every kernel: alpha_ij phi_ik phi_k(x), equation 7 of the paper."""

    def feature_contributions(self, pairs: Pairs) -> FeatureContributions:
        alpha = self.surrogate.coefficients[pairs.train_indices, pairs.repeated_classes()]
        return split_product(
            tf.constant(np.asarray(alpha).ravel(), tf.float32),
            self.feature_map(pairs.features),
            self.feature_map(pairs.train_features),
            self.model.num_features,
        )

    def _kernel_features(self) -> np.ndarray | LazyRows:
        """Return phi of all training examples, shape (n, d): rows on the disk beyond the memory budget."""
        return kernel_features(self._stored(), self.model.num_features, self.feature_map)

    def _kernel_rows(self, positions: np.ndarray) -> np.ndarray:
        """Return phi of some training examples, at increasing positions, shape (r, d)."""
        return np.asarray(self.feature_map(self._stored().rows("features", positions)))

    def _fit(
        self, Ks: Sequence[float], phi: np.ndarray | LazyRows, solver: DualSVMSolver
    ) -> list[DualSVMSolution]:
        squared_norm = mean_squared_norm(phi, self.train_weights, self.model.feature_layer)
        absolute = [K / squared_norm for K in Ks]
        with GapBar(absolute, progress=self.store.progress) as bar:
            # A callback of the user's takes the place of the bar.
            if not solver.progress:
                solver = dataclasses.replace(solver, progress=bar.update)
            if solver.memory_budget is None and self.store.memory_budget is not None:
                solver = dataclasses.replace(solver, memory_budget=max(self.store.memory_budget // 4, 1))
            if solver.checkpoints is None and (self.model.workers is None or self.model.workers.is_chief):
                solver = dataclasses.replace(solver, checkpoints=self.store.fits)
            fit = functools.partial(
                solver.fit_path,
                labels=self.train_labels,
                num_classes=self.model.num_outputs,
                Ks=absolute,
                sample_weight=self.train_weights,
            )
            if isinstance(phi, LazyRows) or not spans.is_wide(*phi.shape):
                return fit(phi)
            found = fit(self._coordinates)
            return [dataclasses.replace(one, weights=(one.coefficients.T @ phi).T) for one in found]

    @cached_property
    def _coordinates(self) -> np.ndarray:
        """Kernel features in an orthonormal basis of their span, (n, n): only their inner products matter to a fit."""
        phi = cast(np.ndarray, self._kernel_features())
        triangle = cast(np.ndarray, np.linalg.qr(phi.T, mode="r"))
        return np.ascontiguousarray(triangle.T)

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        alpha = self.surrogate.coefficients[rows].toarray().astype(np.float32)
        return (OuterProduct(tf.constant(alpha), self.feature_map(represented.features)),)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        one_hot = tf.one_hot(classes, self.model.num_outputs)
        return (OuterProduct(one_hot, self.feature_map(represented.features)),)

    def _evaluate_all(self, dataset: tf.data.Dataset | RepresentedExamples) -> list[Evaluation]:
        if isinstance(dataset, tf.data.Dataset):
            data.check_bounded(dataset, "dataset")
        return list(self.evaluate(dataset))

    def _evaluate(self, represented: Represented) -> Evaluation:
        phi = self.feature_map(represented.features).numpy()
        outputs = phi.astype(np.float64) @ self.surrogate.weights + self._offset
        return Evaluation(phi, represented.logits.numpy(), outputs)

    def _explained(self, represented: Represented) -> tuple[np.ndarray, np.ndarray]:
        """Return kernel features (m, d) and explained outputs (m,)."""
        return self.feature_map(represented.features).numpy(), self._explained_classes(represented)

    def _explained_classes(self, represented: Represented) -> np.ndarray:
        """Return the explained outputs (m,): a label (m, c) of a model that is no classifier stands for its only one.

        Raises:
            ValueError: there are several.
        """
        targets = super()._explained_classes(represented)
        if targets.ndim == 1:
            return targets
        require(
            targets.shape[1] == 1,
            "The label of an example has several numbers: say which output to explain by target=INDEX.",
            {"target": self.target, "outputs": targets.shape[1]},
        )
        return np.zeros(len(targets), np.int64)

    def _monitor_agreement(self, represented: Represented, phi: np.ndarray) -> None:
        if self.model.is_classifier:
            self._monitor.add(represented.logits.numpy(), phi @ self.surrogate.weights)

    def _top_k(self, represented: Represented, k: int, order: ORDER) -> Best:
        phi, classes = self._explained(represented)
        self._monitor_agreement(represented, phi)
        values, indices = np.empty((len(classes), k), np.float32), np.empty((len(classes), k), np.int64)
        for class_index in np.unique(classes):
            rows = np.flatnonzero(classes == class_index)
            values[rows], indices[rows] = self._support_vectors.top_k(phi[rows], int(class_index), k, order)
        return self._support_vectors.merged((values, indices), order)

    def _sparse_values(self, represented: Represented) -> scipy.sparse.csr_array:
        return self._support_vectors.values(*self._explained(represented))

    def _values(self, represented: Represented) -> np.ndarray:
        phi, classes = self._explained(represented)
        self._monitor_agreement(represented, phi)
        return self._support_vectors.values(phi, classes).toarray()
