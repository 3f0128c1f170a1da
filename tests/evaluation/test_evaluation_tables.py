"""Tables and pages of a benchmark, from results that nobody ran."""

import itertools
import re

import numpy as np
import pytest
from evaluation_cases import CURVE, cell, made, two_seeds
from pages import Page

from deel_dualview.evaluation import pages
from deel_dualview.plots import benchmark


def test_means_are_over_seeds_and_the_range_is_theirs():
    summary = two_seeds().summaries["dualview", "identical-class"]
    assert (summary.value, summary.low, summary.high, summary.num_seeds) == pytest.approx(
        (0.975, 0.95, 1.0, 2)
    )


def test_the_range_of_one_seed_is_its_interval():
    summary = made(cell("random", "normal", identical_class=0.5)).summaries["random", "identical-class"]
    assert (summary.low, summary.high) == pytest.approx((0.4, 0.6))


def test_ranks_are_averaged_ties_share_and_a_failure_comes_last():
    """Identical class: 1.5, 1.5, 3. Label errors: DualView 1, random 2, GradCos failed."""
    assert two_seeds().average_ranks == {"dualview": 1.25, "random": 2.5, "gradcos": 2.25}


def test_a_method_that_only_failed_has_no_rank_and_changes_none():
    benchmark = made(*two_seeds().cells, cell("dualview?K=-1", "normal", error="bad"))
    assert benchmark.average_ranks == two_seeds().average_ranks
    assert "dualview?K=-1" in benchmark.methods


def test_a_metric_that_not_all_were_asked_about_is_not_ranked():
    benchmark = made(*two_seeds().cells, cell("dualview", "superclass", identical_subclass=1.0))
    assert benchmark.ranked_measures == ["identical-class", "label-errors"]
    assert "identical-subclass" in benchmark.measures


def test_of_losses_the_lower_is_better():
    benchmark = made(
        cell("random", "core-set", core_set=2.0, pruning=1.0),
        cell("dualview", "core-set", core_set=1.0, pruning=1.0),
    )
    assert benchmark.best("core-set") == {"dualview"} and benchmark.best("pruning") == {"dualview", "random"}
    assert benchmark.average_ranks == {"dualview": 1.25, "random": 1.75}


def test_methods_are_in_their_order_with_settings_after_those_without_and_random_last():
    names = ["random", "own", "dualview?K=1", "first-order", "dualview"]
    benchmark = made(*(cell(name, "normal", identical_class=0.5) for name in names))
    assert benchmark.methods == ["dualview", "dualview?K=1", "first-order", "own", "random"]


def test_run_time_is_set_up_and_all_queries_of_the_normal_model():
    benchmark = made(
        cell("dualview", "poisoned", seconds=7.0, label_errors=0.5),
        cell("dualview", "normal", seconds=1.0, identical_class=0.5),
        cell("dualview", "normal", seed=1, seconds=3.0, identical_class=0.5),
    )
    assert benchmark.run_seconds("dualview") == pytest.approx(2.0 + 0.02 * 100)


def test_the_markdown_has_a_row_a_method_and_tells_of_failures():
    text = two_seeds().to_markdown()
    rows = re.findall(r"^\| `(\S+)` .*$", text, re.M)
    assert rows == ["dualview", "gradcos", "random"]
    assert "**0.975 [0.950, 1.000]**" in text and "| failed" in text
    assert "`gradcos`, poisoned, seed 0 failed: ValueError: no <b>labels</b>" in text


def test_the_text_fits_a_terminal():
    assert max(map(len, two_seeds().to_text().splitlines())) <= 80


def test_the_page_loads_nothing_and_escapes_what_methods_say():
    benchmark = two_seeds()
    text = pages.render(benchmark, pages.draw(benchmark))
    page = Page(text)
    addresses = [value for _, name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert not page.mismatches and not page.open and "script" not in page.tags
    assert [address for address in addresses if not address.startswith(("#", "data:"))] == []
    assert "no &lt;b&gt;labels" in text and "<b>labels" not in text


def test_the_page_begins_with_the_best_of_each_column():
    text = pages.render(two_seeds(), {})
    tiles = text[text.index('class="tiles"') : text.index("<main")]
    assert "best: dualview, gradcos" in tiles and ">0.90<" in tiles


def test_a_title_names_the_page_and_is_escaped():
    text = pages.render(two_seeds(), {}, title="Shoes <b>")
    assert "<title>Shoes &lt;b&gt;</title>" in text and "<h1>Shoes &lt;b&gt;</h1>" in text


def test_page_table_and_figures_are_written(tmp_path):
    benchmark = two_seeds()
    object.__setattr__(benchmark, "folder", tmp_path)
    pages.write_pages(benchmark)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("detection", "rank-time", "cost")}
    assert written == {"index.html", "table.md", *figures}


def test_own_score_is_drawn_only_where_it_is_another():
    benchmark = made(
        cell("gradcos", "poisoned", label_poisoning=0.5, label_errors_self=0.6, label_errors=0.6),
    )
    assert list(pages._curves(benchmark)["gradcos"]) == ["summed influence", "self-influence"]


def test_names_that_differ_in_their_last_setting_stay_apart_in_figures():
    names = [f"dualview?kernel=linear&bias=True&K={K}" for K in (0.1, 1, 10)]
    short = [benchmark.short_name(name) for name in names]
    assert len(set(short)) == 3 and {len(name) for name in short} == {24}
    assert benchmark.short_name("first-order") == "first-order"


def test_titles_of_detection_panels_do_not_overlap():
    curve = {name: np.asarray(values) for name, values in CURVE.items()}
    names = [
        "sim?weights=all&projection=GaussianProjection(32)",
        "a name of twenty-eight chars",
        "c",
        "d",
        "e",
    ]
    figure = benchmark.plot_detection({name: {"self-influence": curve} for name in names})
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    boxes = [axes.get_title("left") and axes._left_title.get_window_extent() for axes in panels]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    lowest = [any(label.get_visible() for label in axes.get_xticklabels()) for axes in panels]
    assert lowest == [False, True, True, True, True]


def test_a_failure_is_told_on_a_terminal_too():
    rows = [line.split() for line in two_seeds().to_text().splitlines()[2:]]
    assert {row[0]: "failed" in row for row in rows} == {"dualview": False, "random": False, "gradcos": True}


def test_a_row_has_what_a_metric_is_compared_with_and_a_query_costs_its_row_of_values():
    one = cell("random", "leave-few-out", lds_without_1=0.25)
    one.metrics["lds-without-1"]["ceiling"] = 0.75
    one.cost.pop("seconds_per_query")
    one.cost["seconds_per_row_of_values"] = 2.0
    found = made(one)
    assert found.references == {"ceiling": {"lds-without-1": 0.75}}
    assert re.search(r"^\| \*ceiling\* +\| 0\.750 ", found.to_markdown(), re.M)
    text = found.to_text()
    assert "(ceiling)" in text and "2 s" in text
    assert "<em>ceiling</em>" in pages.render(found, {})
