"""The real report of the demo, opened in a real browser."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import pytest
from browsing import CHROMIUM, IS_NO_WIDER, OUTSIDE, PHONE, SCREEN, Visit, contrasts, visit

from deel_dualview import audit, compare
from deel_dualview.cli.demo import Demo, make_demo
from deel_dualview.report import AuditReport
from deel_dualview.report.verdict import ABOUT_METHOD

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium found; apt-get install chromium")


@pytest.fixture(scope="module")
def demo() -> Demo:
    return make_demo()


@pytest.fixture(scope="module")
def report(demo: Demo) -> AuditReport:
    return audit(
        demo.model,
        demo.train,
        demo.test,
        class_names=demo.class_names,
        known_label_errors=demo.swapped_indices,
        progress=False,
    )


@pytest.fixture(scope="module")
def page_path(report: AuditReport, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return report.to_html(tmp_path_factory.mktemp("browser") / "audit")


@pytest.fixture(scope="module")
def comparison_path(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    methods = ("graddot", "feature-similarity")
    found = compare(demo.model, demo.train, demo.test, methods=methods, num_queries=8, progress=False)
    return found.to_html(tmp_path_factory.mktemp("browser") / "compare")


@pytest.fixture(
    scope="module", params=[(PHONE, "light"), (PHONE, "dark"), (SCREEN, "light"), (SCREEN, "dark")], ids=str
)
def visited(request: pytest.FixtureRequest, browser, page_path) -> Iterator[Visit]:
    seen = visit(browser, page_path, *request.param)
    yield seen
    seen.page.close()


def test_the_page_renders_without_a_word_in_the_console(visited):
    assert visited.messages == []
    assert visited.page.locator("h1").inner_text() == "digits"


def test_the_page_asks_for_nothing_but_itself(visited, page_path):
    assert [url for url in visited.requests if not url.startswith("data:")] == [page_path.as_uri()]


def test_the_page_is_no_wider_than_the_window(visited):
    assert visited.page.evaluate(IS_NO_WIDER)
    assert visited.page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, SCREEN], ids=str)
def test_a_comparison_fits_the_window_and_asks_for_nothing(browser, comparison_path, size, scheme):
    seen = visit(browser, comparison_path, size, scheme)
    assert seen.messages == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [comparison_path.as_uri()]
    assert seen.page.evaluate(IS_NO_WIDER)
    assert seen.page.locator("svg text", has_text="feature-similarity").count() >= 4
    seen.page.close()


def test_every_picture_is_decoded_and_has_a_text(visited):
    pictures = "[...document.images].map(image => [image.naturalWidth, image.alt])"
    for width, text in visited.page.evaluate(pictures):
        assert width == 8
        assert re.fullmatch(
            r"(relevance in )?(train|test) example \d+(, labelled \d(, (suggested|predicted) \d)?)?", text
        )


def test_swapped_labels_are_seen_on_the_page(visited, demo):
    section = visited.page.locator("section#label-errors")
    shown = {int(text) for text in re.findall(r"train #(\d+)", section.inner_text())}
    assert len(shown & set(demo.swapped_indices.tolist())) >= 0.8 * len(demo.swapped_indices)


def test_each_label_issue_shows_its_given_and_its_suggested_label(visited, report):
    issue = report.finding("label-errors").issues[0]
    first = visited.page.locator("section#label-errors .suspects li").first.inner_text()
    assert f"train #{issue.example.index}" in first
    assert re.search(rf"{issue.example.label}\s*→\s*{issue.suggested_label}", first)


def test_every_finding_about_the_data_has_a_tile_that_leads_to_its_section(visited, report):
    page = visited.page
    about_data = [finding for finding in report.findings if not isinstance(finding, ABOUT_METHOD)]
    assert page.locator(".tile").count() == len(about_data)
    for finding in about_data:
        tile = page.locator(f'.tile[href="#{finding.name}"]')
        assert tile.inner_text().split()[0] == finding.severity.value.split()[0]
        assert page.locator(f"section#{finding.name} h2").inner_text() == finding.title


def test_findings_about_the_method_come_last_and_folded(visited, report):
    folded = [finding.title for finding in report.findings if isinstance(finding, ABOUT_METHOD)]
    method = visited.page.locator("main > :last-child")
    assert method.get_attribute("id") == "method" and not method.locator("h2").first.is_visible()
    assert method.locator("h2").all_text_contents()[: len(folded)] == folded


def test_text_stands_out_from_its_background(visited):
    """WCAG 2.1 AA: a contrast of 4.5 for the text of the page, in both colour schemes."""
    found = contrasts(
        visited.page,
        [
            ".say",
            ".say b",
            ".next h2",
            ".go",
            ".facts dt",
            ".tile .sev",
            ".tile .small",
            ".trust p",
            ".summary",
        ]
        + [
            ".note",
            ".where",
            ".relabel s",
            ".score",
            ".proponents h4 b",
            ".opponents h4 b",
            "figcaption",
            ".keys",
        ]
        + [
            "kbd",
            ".tools label",
            ".marks button",
            "#export",
            ".row b",
            ".row s",
            "footer p",
            "caption",
            "thead th",
        ],
    )
    assert min(found.values()) >= 4.5, found


def test_headings_do_not_skip_a_level(visited):
    levels = visited.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:], strict=False))


def test_a_script_in_the_data_does_not_run(browser, report, tmp_path):
    script = "<script>document.title = 'broken in'</script><img src=x onerror=\"document.title='broken in'\">"
    overview = dataclasses.replace(report.overview, class_names=(script,) * 10, model_name=script)
    path = dataclasses.replace(report, overview=overview).to_html(tmp_path / "audit")
    seen = visit(browser, path, PHONE, "light")
    assert seen.page.title() == f"Audit of {script}"
    assert "onerror" in seen.page.locator("h1").inner_text()
    assert seen.messages == []
    assert seen.page.evaluate(IS_NO_WIDER)
    seen.page.close()


def test_scales_and_remarks_of_heatmaps_stand_out_from_their_background(visited):
    found = contrasts(
        visited.page, [".heats figcaption", ".total figcaption", ".legend .scale span", ".why .value"]
    )
    assert min(found.values()) >= 4.5, found


def test_every_pair_shows_two_heatmaps_of_one_size_within_its_card(visited):
    sizes = visited.page.evaluate(
        """[...document.querySelectorAll('.heats')].map(heats => [...heats.querySelectorAll('img')].map(image => {
            const own = image.getBoundingClientRect(), card = heats.closest('li').getBoundingClientRect();
            return [own.width, own.height, own.left >= card.left - 1 && own.right <= card.right + 1];
        }))"""
    )
    assert sizes
    for first, second in sizes:
        assert first[2] and second[2]
        assert abs(first[0] - second[0]) < 1 and abs(first[1] - second[1]) < 1
        assert first[0] >= 30


def test_the_scale_of_heatmaps_is_written_on_the_page(visited):
    scales = visited.page.locator(".legend .scale").all_text_contents()
    assert scales
    assert all(
        re.search(r"\N{MINUS SIGN}[\d.e\N{MINUS SIGN}]+\s*\+[\d.e\N{MINUS SIGN}]+", text) for text in scales
    )
