"""The files that tell of a benchmark: a page, a table in Markdown and its figures."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from deel_dualview import _files, plots
from deel_dualview._checks import require
from deel_dualview.evaluation.attribution_tasks import TASKS
from deel_dualview.evaluation.results import FOLDER, read_results
from deel_dualview.evaluation.tables import MEASURES, REFERENCES, Benchmark
from deel_dualview.plots.benchmark import plot_detection, plot_rank_against_time, short_name
from deel_dualview.plots.comparison import plot_costs
from deel_dualview.plots.formatting import format_seconds, visible
from deel_dualview.report.html import make_environment, read_style

PAGE, TABLE, FIGURES = "index.html", "table.md", "figures"
NAMES = (PAGE, TABLE, FIGURES)
"""What lies in a dataset's folder beside the results."""

_DOTS = 160
_MOST_TILES = 4
_SCORES = {
    "label-poisoning": "summed influence",
    "label-errors-self": "self-influence",
    "label-errors": "own score",
}


def read_benchmark(output: str | os.PathLike[str], data: str, num_test: int | None = None) -> Benchmark:
    """Return all results of a dataset in an output folder.

    Args:
        output: folder of the results.
        data: name of the dataset.
        num_test: results of another number of test examples are left out; None for that of the most results.

    Raises:
        FileNotFoundError: there are no results of this dataset.
        ValueError: a file that is no result, or no result of that number of test examples.
    """
    cells = read_results(pathlib.Path(output), data)
    if not cells:
        raise FileNotFoundError(_nothing_in(pathlib.Path(output), data))
    numbers = [cell.identity.asked["num_test"] for cell in cells]
    if num_test is None:
        num_test = max(set(numbers), key=numbers.count)
    require(
        num_test in numbers,
        f"The results in {pathlib.Path(output) / data} are of other numbers of test examples: "
        f"{', '.join(map(str, sorted(set(numbers))))}.",
        {"num_test": num_test},
    )
    kept = [cell for cell, number in zip(cells, numbers, strict=True) if number == num_test]
    return Benchmark(data, num_test, tuple(kept), pathlib.Path(output) / data)


def write_pages(benchmark: Benchmark, title: str | None = None) -> None:
    """Write page, table and figures of a benchmark into its folder."""
    if not benchmark.cells:
        return
    drawn = draw(benchmark)
    folder = benchmark.folder / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        with _files.written_aside(folder / f"{name}.png") as aside:
            figure.savefig(aside, dpi=_DOTS, facecolor="white", metadata={"Software": None})
    _files.write_file(benchmark.folder / TABLE, _encoded(benchmark.to_markdown()))
    _files.write_file(benchmark.folder / PAGE, _encoded(render(benchmark, drawn, title=title)))


def draw(benchmark: Benchmark) -> dict[str, Figure]:
    """Return the figures of a benchmark that there are results for, by name."""
    drawn = {}
    curves = _curves(benchmark)
    if curves:
        drawn["detection"] = plot_detection(curves)
    seconds = {method: benchmark.run_seconds(method) for method in benchmark.methods}
    known = {method: value for method, value in seconds.items() if value is not None and value > 0}
    if len(known) > 1 and benchmark.average_ranks:
        drawn["rank-time"] = plot_rank_against_time(benchmark.average_ranks, known)
    timed = [method for method in known if benchmark.cost(method, "seconds_per_query")]
    if timed:
        costs = {
            title: [benchmark.cost(method, name) or 0.0 for method in timed]
            for title, name in (("Set-up", "setup_seconds"), ("A query", "seconds_per_query"))
        }
        drawn["cost"] = plot_costs([short_name(name) for name in timed], costs, write=format_seconds)
    return drawn


def render(benchmark: Benchmark, drawn: Mapping[str, Figure], *, title: str | None = None) -> str:
    """Return the page; it holds its style and drawings, runs no script and loads nothing."""
    environment = make_environment((), {})
    environment.filters["duration"] = lambda value: "–" if value is None else format_seconds(value)
    drawings = {name: Markup(plots.to_inline_svg(figure, name)) for name, figure in drawn.items()}
    contexts = [cell.context for cell in benchmark.cells]
    return environment.get_template("benchmark.html.j2").render(
        benchmark=benchmark,
        title=title,
        measures=MEASURES,
        references=REFERENCES,
        tiles=_tiles(benchmark),
        models=_models(benchmark),
        style=read_style(),
        drawings=drawings,
        created=max((context.get("created", "") for context in contexts), default=""),
        context=contexts[-1],
    )


def _tiles(benchmark: Benchmark) -> list[tuple[str, str, str, str]]:
    """Return what the page says first: where it is shown, a word, a number and a sentence."""
    tiles = []
    ranks = benchmark.average_ranks
    if ranks:
        first = min(ranks, key=lambda method: ranks[method])
        tiles.append(("quality", "first in mean rank", f"{ranks[first]:.1f}", first))
    for name in benchmark.ranked_measures[:_MOST_TILES]:
        best = sorted(benchmark.best(name))
        if best:
            value = benchmark.summaries[best[0], name].value
            tiles.append(("quality", MEASURES[name].title, f"{value:.2f}", f"best: {', '.join(best)}"))
    return tiles


def _nothing_in(output: pathlib.Path, data: str) -> str:
    others = sorted(path.parent.name for path in output.glob(f"*/{FOLDER}"))
    found = f"only of {', '.join(others)}" if others else "`benchmark` writes them there"
    return f"{output} holds no results of this dataset, {found}. Received: data={data!r}."


def _curves(benchmark: Benchmark) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    curves = {}
    for method in benchmark.methods:
        found = {title: benchmark.mean_curve(method, name) for name, title in _SCORES.items()}
        of_method = {title: curve for title, curve in found.items() if curve is not None}
        own, self_influence = of_method.get("own score"), of_method.get("self-influence")
        if own and self_influence and np.array_equal(own["found"], self_influence["found"]):
            del of_method["own score"]
        if of_method:
            curves[method] = of_method
    return curves


def _models(benchmark: Benchmark) -> list[tuple[str, int, float, float]]:
    """Return (kind, seed, test accuracy, seconds of training) of every model that results are of."""
    found = {}
    for cell in benchmark.cells:
        key = TASKS[cell.identity.protocol].kind, cell.identity.seed
        found[key] = (*key, cell.model["test_accuracy"], cell.model["training_seconds"])
    return [found[key] for key in sorted(found)]


def _encoded(text: str) -> bytes:
    return visible(text, keep="\n\t").encode()
