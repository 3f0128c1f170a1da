"""The page as a place to work: label issues are filtered, sorted, marked by keyboard and exported."""

import csv
import dataclasses
import io
import pathlib
import re

import pytest
from browsing import CHROMIUM, IS_NO_WIDER, OUTSIDE, PHONE, SCREEN, visit
from report_cases import NUM_ISSUES, NUM_TRAIN, make_full_report

from deel_dualview.labels.correction_files import Correction, read_corrections
from deel_dualview.report.review import content_hash, read_script

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium found; apt-get install chromium")
SHOWN = "[...document.querySelectorAll('#suspects > li')].filter(item => !item.hidden)"
TALLEST, MOST_PRINTED = 8000, 12


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {kind: make_full_report(kind).to_html(folder / kind) for kind in ("images", "texts", "table")}


@pytest.fixture
def seen(browser, paths):
    seen = visit(browser, paths["images"], SCREEN)
    yield seen
    assert seen.messages == []
    seen.page.close()


def shown(page, what: str) -> list:
    return page.evaluate(f"{SHOWN}.map(item => {what})")


def export(page) -> tuple[str, list[list[str]]]:
    with page.expect_download() as download:
        page.click("#export")
    text = pathlib.Path(download.value.path()).read_bytes().decode("utf-8")
    return download.value.suggested_filename, list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("kind", ["images", "texts", "table"])
def test_a_page_is_not_taller_than_a_reader_bears_and_prints_on_few_sheets(browser, paths, kind):
    seen = visit(browser, paths[kind], SCREEN)
    assert seen.page.evaluate("document.documentElement.scrollHeight") <= TALLEST
    assert len(re.findall(rb"/Type\s*/Page\b", seen.page.pdf(format="A4"))) <= MOST_PRINTED
    seen.page.close()


def test_what_is_not_found_takes_two_lines_and_what_is_good_to_know_less_than_what_is_to_do(seen):
    heights = seen.page.evaluate(
        """Object.fromEntries([...document.querySelectorAll('main > section')].map(own =>
        [own.className + ' ' + own.id, own.querySelector('header').getBoundingClientRect().height]))"""
    )
    assert heights["is-fine duplicates-conflicting"] <= 60
    assert "is-know leaks" in heights and heights[" outliers"] > 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["images", "texts", "table"])
def test_nothing_is_cut_on_a_phone(browser, paths, kind, scheme):
    seen = visit(browser, paths[kind], PHONE, scheme)
    assert seen.messages == []
    assert seen.page.evaluate(IS_NO_WIDER)
    assert seen.page.evaluate(OUTSIDE) == []
    assert seen.page.locator(".row .est", has_text="about 12").bounding_box()["height"] < 24  # one line
    seen.page.close()


def test_without_scripts_every_label_issue_stands_in_the_page_and_no_control_does(browser, paths):
    seen = visit(browser, paths["images"], SCREEN, java_script_enabled=False)
    page = seen.page
    assert page.locator("li[data-position]").count() == NUM_ISSUES
    assert page.locator("#suspects > li").count() == 24
    page.locator("#rest > summary").click()
    assert page.locator("#rest li").last.is_visible()
    assert not page.locator("#tools").is_visible() and page.locator(".marks").count() == 0
    assert page.locator("button.row:not(:disabled)").count() == 0
    page.close()


def test_the_list_comes_in_pages(seen):
    assert len(shown(seen.page, "item.id")) == 24
    seen.page.click("#more")
    assert len(shown(seen.page, "item.id")) == 48
    assert seen.page.evaluate(f"document.activeElement === {SHOWN}[24]")


def test_a_pair_of_classes_filters_the_list_and_a_second_click_shows_all_again(seen):
    row = seen.page.locator("button.row").first
    row.click()
    assert set(shown(seen.page, "item.dataset.given + '-' + item.dataset.suggested")) == {
        row.get_attribute("data-pair")
    }
    assert row.get_attribute("aria-pressed") == "true"
    assert len(shown(seen.page, "1")) == int(row.locator(".n").inner_text())
    row.click()
    assert len(shown(seen.page, "1")) == 24


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("position", "Number(item.dataset.position)"),
        ("pair", "[Number(item.dataset.given), Number(item.dataset.suggested)]"),
    ],
)
def test_the_list_is_sorted(browser, paths, order, key):
    report = make_full_report("images")
    labels = report.findings[0]
    issues = (*labels.issues[::-1],)
    mixed = dataclasses.replace(
        report, findings=[dataclasses.replace(labels, issues=issues), *report.findings[1:]]
    )
    page = visit(browser, mixed.to_html(paths["images"].parent.parent / f"mixed-{order}"), SCREEN).page
    as_read = shown(page, key)
    page.select_option("select[name=sort]", order)
    assert shown(page, key) == sorted(shown(page, key)) != as_read
    page.select_option("select[name=sort]", "score")
    assert shown(page, key) == as_read
    page.close()


def test_keys_mark_the_label_and_go_on_to_the_next(seen):
    page = seen.page
    page.locator("#suspects > li").first.focus()
    for key in ("w", "R", "u", "w", "ArrowLeft", "Delete"):
        page.keyboard.press(key)
    assert shown(page, "item.dataset.mark ?? ''")[:5] == ["wrong", "right", "unsure", "", ""]
    assert page.locator("#reviewed").inner_text() == f"3 of {NUM_ISSUES} reviewed"
    assert re.match(r"Position \d+: not reviewed", page.locator("#said").text_content())


@pytest.mark.parametrize("clicks", [1, 2])
def test_review_the_labels_leads_to_the_first_issue_which_takes_the_keys(seen, clicks):
    page = seen.page
    for _ in range(clicks):
        page.locator("h1").click()
        page.evaluate("scrollTo(0, 0)")
        page.locator("a.go", has_text="Review the labels").click()
        page.wait_for_function(f"{SHOWN}[0] === document.activeElement")
    assert page.evaluate(f"{SHOWN}[0].getBoundingClientRect().bottom <= innerHeight")
    assert page.evaluate(f"{SHOWN}[0].getBoundingClientRect().top >= 0")
    page.keyboard.press("w")
    assert shown(page, "item.dataset.mark ?? ''")[:2] == ["wrong", ""]


def test_the_given_label_is_not_offered_as_the_new_one(seen):
    page = seen.page
    page.locator("#suspects > li .marks button[data-mark=wrong]").first.click()
    offered = (
        page.locator("#suspects > li select")
        .first.locator("option")
        .evaluate_all("all => all.map(one => Number(one.value))")
    )
    given = shown(page, "Number(item.dataset.given)")[0]
    assert sorted(offered) == [-1, *(number for number in range(6) if number != given)]


def test_arrows_move_over_the_grid_and_one_issue_is_the_tab_stop(seen):
    page = seen.page
    page.locator("#suspects > li").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    columns = page.evaluate("getComputedStyle(suspects).gridTemplateColumns.split(' ').length")
    assert page.evaluate(f"{SHOWN}.indexOf(document.activeElement)") == columns + 1
    assert page.locator("#suspects li[tabindex='0']").count() == 1
    assert page.locator("#suspects button[tabindex='0']").count() == 0


def test_a_mark_hides_nothing_until_the_status_is_chosen_again(seen):
    page = seen.page
    page.locator(".seg input[value=open]").check()
    page.locator("#suspects > li .marks button[data-mark=wrong]").first.click()
    assert shown(page, "item.dataset.mark ?? ''")[0] == "wrong"
    page.locator(".seg input[value=wrong]").check()
    assert shown(page, "item.dataset.mark") == ["wrong"]
    page.locator(".seg input[value=open]").check()
    assert "wrong" not in shown(page, "item.dataset.mark ?? ''")


def test_the_export_has_what_was_marked_with_the_label_to_use(seen):
    page = seen.page
    report = make_full_report("images")
    names, issues = report.overview.class_names, report.findings[0].issues
    assert page.locator("#export").is_disabled()
    page.locator("#suspects > li").first.focus()
    for key in "wwru":
        page.keyboard.press(key)
    other = next(
        number for number in range(6) if number not in (issues[1].example.label, issues[1].suggested_label)
    )
    page.locator("#suspects > li select").nth(1).select_option(str(other))
    name, rows = export(page)
    assert name == "corrections.csv"
    assert rows[0] == ["position", "id", "given_label", "suggested_label", "verdict", "label"]
    given, suggested = (
        [names[label] for label in labels]
        for labels in zip(*((item.example.label, item.suggested_label) for item in issues[:4]), strict=True)
    )
    use = [suggested[0], names[other], given[2], given[3]]
    assert rows[1:] == [
        [str(place), "", given[place], suggested[place], verdict, use[place]]
        for place, verdict in enumerate(["wrong", "wrong", "right", "unsure"])
    ]


def test_hostile_names_and_ids_are_exported_as_they_are_but_for_an_apostrophe(browser, tmp_path):
    names = (
        "=1+1",
        "a,b",
        'say "hi"',
        "</script><script>document.title = 'broken in'</script>",
        "eel\u200b",
        "-2",
    )
    ids = [f"@sum({index})\n" for index in range(NUM_TRAIN)]
    report = make_full_report("images", names, ids=ids)
    seen = visit(browser, report.to_html(tmp_path / "audit"), SCREEN)
    seen.page.locator("#suspects > li").first.focus()
    for _ in range(24):
        seen.page.keyboard.press("r")
    _, rows = export(seen.page)
    safe = [f"'{name}" if name[0] in "=-" else name for name in names]
    assert [row[1] for row in rows[1:]] == [f"'@sum({index})\n" for index in range(24)]
    assert [row[2] for row in rows[1:]] == [
        safe[item.example.label] for item in report.findings[0].issues[:24]
    ]
    assert seen.messages == []
    assert seen.page.title() == "Audit of animals"
    seen.page.close()


def test_what_is_exported_is_what_apply_reads(browser, tmp_path):
    names = ("=1+1", "a,b", 'say "hi"', "@x", "eel\u200b", "-2")
    report = make_full_report("images", names, ids=[f"=id{index}" for index in range(NUM_TRAIN)])
    page = visit(browser, report.to_html(tmp_path / "audit"), SCREEN).page
    page.locator("#suspects > li").first.focus()
    for key in "wwru":
        page.keyboard.press(key)
    page.locator("#suspects > li select").nth(1).select_option("-1")
    with page.expect_download() as download:
        page.click("#export")
    first, second = report.findings[0].issues[:2]
    assert read_corrections(download.value.path()) == {
        0: Correction(names[first.suggested_label], names[first.example.label], "=id0"),
        1: Correction(None, names[second.example.label], "=id1"),
    }
    page.close()


def test_the_positions_that_match_are_copied(seen):
    page = seen.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.select_option("select[name=pair]", index=1)
    page.click("#copy")
    page.wait_for_function("said.textContent.includes('copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.split(", ") == shown(page, "item.dataset.position")


def test_a_link_from_a_prediction_shows_the_label_issue_whatever_the_filters(seen):
    page = seen.page
    page.locator("button.row").last.click()
    link = page.locator("a.flag >> visible=true").first
    target = link.get_attribute("href")
    link.click()
    page.wait_for_function(f"document.activeElement.matches('{target}')")
    assert page.locator(target).is_visible()


def test_the_policy_allows_the_script_by_its_hash_and_no_other(seen):
    policy = seen.page.locator("meta[http-equiv]").get_attribute("content")
    assert f"script-src {content_hash(read_script())};" in policy
    assert "unsafe" not in policy
    ran = seen.page.evaluate(
        """() => { const other = document.createElement('script'); other.textContent = 'window.ran = 1';
        document.body.append(other); return window.ran ?? 0; }"""
    )
    assert ran == 0
    assert "Content Security Policy" in seen.messages.pop()


def test_equal_influence_is_said_once_and_no_number_stands_under_every_picture(seen):
    group = seen.page.locator(".influences.opponents").first
    assert "five equally strong, \N{MINUS SIGN}0.0595 each" in group.locator("h4").inner_text()
    assert "0.0595" not in group.locator("ul").first.inner_text()
    assert "0.90 alike" in group.locator("li").first.inner_text()


def test_three_predictions_are_open_and_the_others_folded(seen):
    panels = seen.page.locator(".explained")
    assert [panels.nth(place).is_visible() for place in range(12)] == [True] * 3 + [False] * 9


@pytest.fixture
def marked_table(browser, paths):
    """The page of a table with its first three label issues marked wrong, right and unsure."""
    page = visit(browser, paths["table"], SCREEN).page
    page.evaluate(
        f"{SHOWN}.slice(0, 3).forEach((item, place) => item.querySelectorAll('.marks button')[place].click())"
    )
    yield page
    page.close()


def test_the_columns_of_a_table_are_aligned(marked_table):
    places = shown(
        marked_table, "[...item.querySelectorAll('dd')].map(cell => cell.getBoundingClientRect().right)"
    )
    heads = marked_table.evaluate(
        "[...document.querySelectorAll('.heads .names > span')].map(name => name.getBoundingClientRect().right)"
    )
    assert len(heads) == 8 and all(place == pytest.approx(heads, abs=1) for place in places)


def test_no_label_that_is_marked_unsure_is_struck_through(marked_table):
    lines = "[...item.querySelectorAll('.relabel s, .relabel b')].map(own => getComputedStyle(own).textDecorationLine)"
    assert shown(marked_table, lines)[2] == ["none", "none"]


@pytest.mark.parametrize("kind", ["texts", "table"])
def test_the_badge_of_a_mark_covers_nothing_that_is_read(browser, paths, kind):
    page = visit(browser, paths[kind], PHONE).page
    page.evaluate(f"{SHOWN}[0].querySelector('.marks button').click()")
    reach = page.evaluate(
        f"""(item => {{
            const badge = getComputedStyle(item, '::before');
            const text = item.querySelector('.picture > *');
            const top = text.getBoundingClientRect().top - item.getBoundingClientRect().top;
            return parseFloat(badge.top) + parseFloat(badge.height)
                - top - parseFloat(getComputedStyle(text).paddingTop);
        }})({SHOWN}[0])"""
    )
    assert reach <= 0
    page.close()
