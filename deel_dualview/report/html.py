"""An audit as one self-contained HTML page, through Jinja2 with everything from the data escaped."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from deel_dualview import plots
from deel_dualview._summaries import probability_text
from deel_dualview.plots.formatting import brief, visible
from deel_dualview.plots.panels import Colours, cancellation_note
from deel_dualview.report import findings as kinds
from deel_dualview.report.broken import NotFiniteInputs
from deel_dualview.report.data_findings import InputScale, NumbersNotLearned, Outliers, WeakClasses
from deel_dualview.report.group_findings import WeakGroups
from deel_dualview.report.heatmaps import heat_style, render_heat
from deel_dualview.report.input_findings import InputProblems
from deel_dualview.report.output_drawings import draw_outputs
from deel_dualview.report.output_findings import (
    ErrorGroups,
    InfluentialOnOutputs,
    OutputScore,
    PredictionErrors,
    SuspectLabel,
    SuspectLabels,
    WrongLabelPredictions,
)
from deel_dualview.report.output_words import OutputWords
from deel_dualview.report.overview import OutputsOverview
from deel_dualview.report.rendering import ExampleRenderer, ImageView, TableView
from deel_dualview.report.review import (
    common_prefix,
    content_hash,
    exact,
    read_script,
    review_of,
    short_id,
)
from deel_dualview.report.tiles import tile_of
from deel_dualview.report.verdict import ABOUT_METHOD, find_verdict
from deel_dualview.report.verified import VerifiedPredictions
from deel_dualview.report.wording import MUCH_UNSEEN, describe_influences, describe_sums

if TYPE_CHECKING:
    from deel_dualview.report.audit_report import AuditReport

_FOLDER = pathlib.Path(__file__).parent
_SECTIONS: dict[type[kinds.Finding], str] = {
    kinds.Faithfulness: "faithfulness",
    kinds.WrongPredictions: "predictions",
    kinds.UncertainPredictions: "predictions",
    kinds.LabelErrors: "labels",
    kinds.InfluentialExamples: "influential",
    kinds.Leaks: "pairs",
    kinds.ConflictingDuplicates: "pairs",
    kinds.Duplicates: "pairs",
    kinds.SparsityPath: "path",
    NotFiniteInputs: "broken",
    InputScale: "scale",
    NumbersNotLearned: "scale",
    Outliers: "outliers",
    WeakClasses: "classes",
    InputProblems: "inputs",
    WeakGroups: "groups",
    InfluentialOnOutputs: "influential",
    PredictionErrors: "errors",
    WrongLabelPredictions: "errors",
    SuspectLabels: "suspects",
    ErrorGroups: "error_groups",
    VerifiedPredictions: "verified",
}
_SHADES = 4


class _CompiledTemplates(jinja2.BytecodeCache):
    """Code of templates, by name and content: every page has an environment of its own, and compiling takes 0.3 s."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        self._codes[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _CompiledTemplates()


def render_page(report: AuditReport, colours: Colours = "orange-blue", *, title: str | None = None) -> str:
    """Return the page of a report.

    The page holds its style, pictures and drawings and at most one script, that of its label issues. Its content
    security policy lets the browser run no other one and load nothing from anywhere.

    Args:
        report: what to write.
        colours: of positive and negative relevance.
        title: what the page is called; by the name of the model where there is none.
    """
    renderer = ExampleRenderer(report.shown.values(), report.input_names)
    views = {key: renderer.render(example) for key, example in report.shown.items()}
    labels = next(
        (own for own in report.findings if isinstance(own, kinds.LabelErrors | SuspectLabels)), None
    )
    head = report.overview
    outputs = head.outputs if isinstance(head, OutputsOverview) else None
    ids = report.label_issues.ids
    prefix = common_prefix(None if ids is None else ids.tolist())
    has_pictures = any(isinstance(view, ImageView) for view in views.values())
    environment = make_environment(head.class_names, views, id_prefix=prefix, outputs=outputs)
    environment.globals |= _links(labels)
    environment.globals |= _beside(report, renderer)
    environment.globals["id_prefix"] = prefix
    issues: Sequence[Any] = labels.issues if labels else ()
    environment.globals["first_issue"] = {item.example.index: item for item in reversed(issues)}
    environment.globals["has_pictures"] = has_pictures
    environment.globals["rows"] = _aligned_issues(report, renderer, labels)
    environment.globals["review_of"] = partial(review_of, has_pictures=has_pictures, id_prefix=prefix)
    environment.globals["colour_names"] = colours.split("-")
    environment.globals["heat_of"] = lambda item: render_heat(
        item, report.relevance, colours=colours, names=report.input_names
    )
    script = read_script() if labels is not None and labels.issues else ""
    return environment.get_template("page.html.j2").render(
        overview=report.overview,
        verdict=find_verdict(
            report.findings, num_train=report.overview.num_train, num_test=report.overview.num_test
        ),
        data_findings=[own for own in report.findings if not isinstance(own, ABOUT_METHOD)],
        method_findings=[own for own in report.findings if isinstance(own, ABOUT_METHOD)],
        faithfulness=next((own for own in report.findings if isinstance(own, kinds.Faithfulness)), None),
        training_accuracy=labels.training_accuracy if isinstance(labels, kinds.LabelErrors) else None,
        facts_of_outputs=head.facts if isinstance(head, OutputsOverview) else (),
        tile_of=tile_of,
        know=kinds.Severity.KNOW,
        changes=None if report.changes is None else str(report.changes),
        title=title,
        script=script,
        style=read_style() + Markup(heat_style(colours)),
        drawings=_draw(report),
        created=report.overview.created,
    )


def _aligned_issues(
    report: AuditReport, renderer: ExampleRenderer, labels: kinds.LabelErrors | SuspectLabels | None
) -> dict[int, TableView]:
    """Return the label issues as rows of one table, by position; empty where they are no rows of numbers."""
    indices = list(dict.fromkeys(item.example.index for item in labels.issues)) if labels else []
    found = renderer.render_aligned([report.shown[("train", index)] for index in indices])
    return dict(zip(indices, found, strict=True)) if found else {}


def _beside(report: AuditReport, renderer: ExampleRenderer) -> dict[str, Callable[..., Any]]:
    """Return how a training example is shown beside the test example that it explains, for the templates."""

    def of_both(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        def shown(example: kinds.ExampleReference, test: kinds.ExampleReference) -> Any:
            found = [report.shown.get((own.split, own.index)) for own in (example, test)]
            return None if any(own is None for own in found) else function(*found)

        return shown

    return {"view_beside": of_both(renderer.render_beside), "agreeing": of_both(renderer.agreeing)}


def _links(labels: kinds.LabelErrors | SuspectLabels | None) -> dict[str, Callable[..., Any]]:
    """Return what leads from a training example to the label issue that it is, for the templates."""
    issues: Sequence[Any] = labels.issues if labels else ()
    suggested = {
        item.example.index: item if isinstance(item, SuspectLabel) else item.suggested_label
        for item in reversed(issues)
        if item.flagged
    }

    def issue_of(example: kinds.ExampleReference) -> int | SuspectLabel | None:
        return suggested.get(example.index) if example.split == "train" else None

    def num_issues(item: kinds.ExplainedPrediction) -> int:
        return sum(issue_of(own.example) is not None for own in (*item.proponents, *item.opponents))

    def by_issues(items: Sequence[kinds.ExplainedPrediction]) -> list[kinds.ExplainedPrediction]:
        return sorted(items, key=lambda item: num_issues(item) == 0)

    return {"issue_of": issue_of, "num_issues": num_issues, "by_issues": by_issues}


def make_environment(
    class_names: Sequence[str],
    views: Mapping[tuple[str, int], Any],
    *,
    id_prefix: str = "",
    outputs: OutputWords | None = None,
) -> jinja2.Environment:
    """Return what every page is rendered with.

    Args:
        class_names: of the classes.
        views: how examples are shown, by split and index.
        id_prefix: what is left out of ids, since they all begin with it.
        outputs: how labels of a model that is no classifier are written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
        bytecode_cache=_COMPILED,
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "integer": lambda value: f"{value:,}",
        "number": lambda value: f"{value:.3g}",
        "memory": _memory,
        "seconds": lambda value: f"{value:.1f} s",
        "share": lambda value: f"{value:.0%}".replace("-", "\u2212"),
        "brief": brief,
        "signed": lambda value: f"{value:+.3g}".replace("-", "\u2212"),
        "label": lambda label: _label(label, class_names, outputs),
        "given": lambda example: (
            outputs.labels(getattr(example, "labels", None))
            if outputs
            else _label(example.label, class_names)
        ),
        "has_label": lambda example: (
            example.label is not None or getattr(example, "labels", None) is not None
        ),
        "exactly": lambda value: f"{value:.9g}",
        "raw": lambda value, output: f"{value:.{outputs.decimals[output] if outputs else 0}f}",
        "probability": probability_text,
        "measure_names": _measure_names,
        "measure": lambda score, name: next((own.text for own in score.measures if own.name == name), "–"),
        "slug": lambda severity: severity.value.replace(" ", "-"),
        "short_id": lambda example: short_id(example, id_prefix),
        "exact": exact,
        "source": lambda text: Markup(content_hash(_finalize(text))),
    }
    environment.filters.update(filters)
    environment.globals["view_of"] = lambda example: views.get((example.split, example.index))
    environment.globals["outputs"] = outputs
    environment.globals["in_words"] = describe_influences
    environment.globals |= _links(None)
    environment.globals["sums_of"] = describe_sums
    environment.globals["cancelling"] = cancelling
    environment.globals["shade"] = shade
    environment.globals["much_unseen"] = MUCH_UNSEEN
    environment.globals["section_of"] = lambda finding: f"section_{_SECTIONS[type(finding)]}.html.j2"
    return environment


def _label(label: Any, class_names: Sequence[str], outputs: OutputWords | None = None) -> str:
    """Write a class or an output, or what a label issue suggests."""
    if isinstance(label, SuspectLabel) and outputs:
        return outputs.value(label.output, label.suggested_label)
    return "unknown" if label is None else class_names[label]


def _measure_names(scores: Sequence[OutputScore]) -> list[str]:
    """Return the names of all measures, of which some outputs may lack a few."""
    return list(dict.fromkeys(measure.name for score in scores for measure in score.measures))


def _finalize(value: Any) -> Any:
    """Write what is unseen, in names and texts of the user's, so that it is seen; line breaks are blanks in a page."""
    return type(value)(visible(value, keep="\n\t")) if isinstance(value, str) else value


def shade(finding: kinds.WrongPredictions, count: int) -> int:
    """Return how dark a cell of the confusion matrix is, from 1 to 4, beside the most frequent confusion."""
    most = max(
        number
        for label, row in enumerate(finding.matrix)
        for prediction, number in enumerate(row)
        if label != prediction
    )
    return max(1, round(_SHADES * count / most))


def cancelling(item: kinds.Influence) -> str:
    """Return how much of a pair's colours cancels, beside gradients times inputs; empty where it is little."""
    own = item.relevance
    if own is None:
        return ""
    return cancellation_note(
        (own.train_cancellation, own.test_cancellation),
        (own.train_gradient_cancellation, own.test_gradient_cancellation),
    )


def read_style() -> Markup:
    """Return the style sheet of every page."""
    return Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))


def percent(share: float) -> str:
    """Write a share with as many digits as it needs not to become 0 % or 100 % by rounding."""
    if share in (0, 1):
        return f"{share:.0%}"
    for digits in (0, 1, 2, 3):
        text = f"{100 * share:.{digits}f}"
        if float(text) not in (0, 100) and (digits > 0 or 0.0995 <= abs(share) <= 0.9):
            break
    return f"{text}%".replace("-", "\u2212")


def _memory(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "unknown here"
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def _draw(report: AuditReport) -> dict[str, Markup]:
    """Draw what the findings have curves for."""
    overview = report.overview
    figures = draw_outputs(report.findings, report.label_issues, overview)
    if overview.certificate and overview.classes:
        figures["classes"] = plots.plot_class_counts(
            overview.class_names,
            [counts.num_support_vectors or 0 for counts in overview.classes],
            label="Support vectors that can influence each class",
        )
    for finding in report.findings:
        if isinstance(finding, kinds.LabelErrors):
            figures["scores"] = plots.plot_label_scores(finding.ranks, finding.scores, finding.count)
        if isinstance(finding, kinds.LabelErrors | SuspectLabels) and finding.detection:
            figures["detection"] = _plot_detection(finding.detection)
        if isinstance(finding, kinds.SparsityPath) and finding.points and overview.certificate:
            figures["path"] = plots.plot_path(
                [point.scale_free_K for point in finding.points],
                [point.share_support_vectors for point in finding.points],
                [point.agreement for point in finding.points],
                chosen=overview.certificate.scale_free_K,
            )
    return {name: Markup(plots.to_inline_svg(figure, name)) for name, figure in figures.items()}


def _plot_detection(curve: kinds.DetectionCurve) -> Figure:
    found = {"label score": curve.found_by_score, "self-influence": curve.found_by_self_influence}
    return plots.plot_detection(curve.inspected, found, num_known=curve.points[0].known)
