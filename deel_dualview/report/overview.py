"""What was audited, with which settings, how surely, how long: the head of a report."""

from __future__ import annotations

from dataclasses import dataclass

from deel_dualview.report.output_words import OutputWords


@dataclass(frozen=True)
class Setting:
    """A named setting or version, as text."""

    name: str
    value: str


@dataclass(frozen=True)
class Certificate:
    """How near the surrogate is to the exact minimiser, proven by the duality gap.

    `weight_error_bound` is sqrt(2 gap), an upper bound of the Frobenius distance of its weights from the
    exact ones.
    """

    relative_gap: float
    tolerance: float | None
    converged: bool
    num_iterations: int
    K: float
    scale_free_K: float
    weight_error_bound: float


@dataclass(frozen=True)
class ClassCounts:
    """Of a class: training examples, test predictions, and support vectors (that can influence it)."""

    label: int
    num_train: int
    num_predicted: int
    num_support_vectors: int | None


@dataclass(frozen=True)
class StepTime:
    """Wall-clock seconds of one step."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Overview:
    """The head of a report. Memory is None where the operating system does not tell.

    `method` made the influence values, of which `value_meaning` says what they are. Certificate and numbers
    of support vectors are None for any other method than DualView.

    `peak_memory_bytes` is the peak resident memory of the process, `added_memory_bytes` what the audit added
    to the peak that stood before it. `relevance_rule` is how heatmaps of pairs were made; where they were asked for
    and are not shown, `relevance_missing` says why. `relevance_input` names the one of several inputs that they are of.
    """

    model_name: str
    model_fingerprint: str
    feature_layer: str
    num_features: int
    num_train: int
    num_test: int
    class_names: tuple[str, ...]
    test_accuracy: float | None
    certificate: Certificate | None
    classes: tuple[ClassCounts, ...]
    num_support_vectors: int | None
    mean_nonzero_attributions: float
    settings: tuple[Setting, ...]
    versions: tuple[Setting, ...]
    steps: tuple[StepTime, ...]
    seconds: float
    peak_memory_bytes: int | None
    added_memory_bytes: int | None
    created: str
    method: str = "DualView"
    value_meaning: str = "part of a logit of the surrogate"
    relevance_rule: str | None = None
    relevance_missing: str | None = None
    relevance_input: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutputsOverview(Overview):
    """The same of a model that is no classifier: `class_names` are names of its outputs, and no class is counted.

    `facts` stand at the top of the page, in the place of the accuracy.
    """

    outputs: OutputWords
    facts: tuple[Setting, ...] = ()
