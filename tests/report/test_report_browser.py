"""The real report of the demo, opened in a real browser (Debian's chromium, driven by playwright)."""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Iterator

import pytest

from deel_dualview import audit, compare
from deel_dualview.cli.demo import Demo, make_demo
from deel_dualview.report import AuditReport

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, SCREEN = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium found; apt-get install chromium")


@dataclasses.dataclass
class Visit:
    """A page as it stands in the browser, and what it said and asked for while it was loading."""

    page: object
    messages: list[str]
    requests: list[str]


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
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra [test]")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def comparison_path(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    methods = ("graddot", "feature-similarity")
    found = compare(demo.model, demo.train, demo.test, methods=methods, num_queries=8, progress=False)
    return found.to_html(tmp_path_factory.mktemp("browser") / "compare")


def visit(browser, path: pathlib.Path, size: dict[str, int], scheme: str) -> Visit:
    page = browser.new_page(viewport=size, color_scheme=scheme)
    seen = Visit(page, [], [])
    page.on("console", lambda message: seen.messages.append(message.text))
    page.on("pageerror", lambda error: seen.messages.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(path.as_uri())
    return seen


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
    assert visited.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    outside = """[...document.querySelectorAll('body *')].filter(
        element => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest('.scroll')
    ).map(element => element.outerHTML.slice(0, 80))"""
    assert visited.page.evaluate(outside) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, SCREEN], ids=str)
def test_a_comparison_fits_the_window_and_asks_for_nothing(browser, comparison_path, size, scheme):
    seen = visit(browser, comparison_path, size, scheme)
    assert seen.messages == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [comparison_path.as_uri()]
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert seen.page.locator("svg text", has_text="feature-similarity").count() >= 4
    seen.page.close()


def test_every_picture_is_decoded_and_has_a_text(visited):
    pictures = "[...document.images].map(image => [image.naturalWidth, image.alt])"
    for width, text in visited.page.evaluate(pictures):
        assert width == 8
        assert re.fullmatch(r"(relevance in )?(train|test) example \d+", text)


def test_swapped_labels_are_seen_on_the_page(visited, demo):
    section = visited.page.locator("section#label-errors")
    shown = {int(text) for text in re.findall(r"train #(\d+)", section.inner_text())}
    assert len(shown & set(demo.swapped_indices.tolist())) >= 0.8 * len(demo.swapped_indices)


def test_each_label_issue_shows_its_given_and_its_suggested_label(visited, report):
    issue = report.finding("label-errors").issues[0]
    first = visited.page.locator("section#label-errors .suspects li").first.inner_text()
    assert f"train #{issue.example.index}" in first
    assert re.search(rf"{issue.example.label}\s*→\s*{issue.suggested_label}", first)


def test_every_finding_has_a_tile_that_leads_to_its_section(visited, report):
    page = visited.page
    assert page.locator(".tile").count() == len(report.findings)
    for finding in report.findings:
        assert page.locator(f'.tile[href="#{finding.name}"]').inner_text().endswith(finding.title)
        assert page.locator(f"section#{finding.name} h2").inner_text() == finding.title


def test_text_stands_out_from_its_background(visited):
    """WCAG 2.1 AA: a contrast of 4.5 for the text of the page, in both colour schemes."""
    pairs = visited.page.evaluate(
        """['.lead', '.summary', '.note', '.where', 'caption', 'thead th', '.tile strong', '.proponents h4',
            '.opponents h4', '.relabel b', '.warning.badge', 'figcaption'].map(name => {
            const element = document.querySelector(name);
            let behind = element;
            const clear = 'rgba(0, 0, 0, 0)';
            while (getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
            return [name, getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        })"""
    )
    contrasts = {name: contrast(text, behind) for name, text, behind in pairs}
    assert min(contrasts.values()) >= 4.5, contrasts


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


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
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    seen.page.close()


def test_scales_and_remarks_of_heatmaps_stand_out_from_their_background(visited):
    pairs = visited.page.evaluate(
        """['.heats figcaption', '.total figcaption', '.legend .scale span', '.why .value'].map(name => {
            const element = document.querySelector(name);
            let behind = element;
            const clear = 'rgba(0, 0, 0, 0)';
            while (getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
            return [name, getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        })"""
    )
    contrasts = {name: contrast(text, behind) for name, text, behind in pairs}
    assert min(contrasts.values()) >= 4.5, contrasts


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
        assert first[0] >= 40


def test_the_scale_of_heatmaps_is_written_on_the_page(visited):
    scales = visited.page.locator(".legend .scale").all_inner_texts()
    assert scales
    assert all(
        re.search(r"\N{MINUS SIGN}[\d.e\N{MINUS SIGN}]+\s*\+[\d.e\N{MINUS SIGN}]+", text) for text in scales
    )
