"""The markup of a page as large as real ones: whole, linked, and nothing in it that its policy would block."""

import dataclasses

import pytest
from pages import Page
from report_cases import NUM_ISSUES, make_full_report

from deel_dualview.report import ExampleReference, Severity, SimilarPair
from deel_dualview.report.html import render_page


@pytest.fixture(scope="module", params=["images", "texts", "table"])
def page(request) -> Page:
    return Page(render_page(make_full_report(request.param)))


def values(page: Page, name: str, tag: str | None = None) -> list[str | None]:
    return [value for own, key, value in page.attributes if key == name and tag in (None, own)]


def test_every_element_is_closed_in_order(page):
    assert page.mismatches == [] and page.open == []


def test_no_id_occurs_twice_and_every_link_has_its_target(page):
    ids = values(page, "id")
    assert len(ids) == len(set(ids))
    links = [link[1:] for link in values(page, "href", "a")]
    assert links and set(links) <= set(ids)


def test_every_label_issue_has_its_place_its_classes_and_its_position(page):
    assert values(page, "data-position") == [str(position) for position in range(NUM_ISSUES)]
    assert len(values(page, "data-given")) == len(values(page, "data-suggested")) == NUM_ISSUES


def test_nothing_has_a_style_or_a_handler_of_its_own(page):
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]
    assert page.tags.count("style") == page.tags.count("script") == 1


def test_controls_do_nothing_before_the_script_has_run(page):
    forms = [name for tag, name, _ in page.attributes if tag == "form"]
    assert "hidden" in forms
    rows = [
        value
        for tag, name, value in page.attributes
        if tag == "button" and name == "class" and value == "row"
    ]
    disabled = [name for tag, name, _ in page.attributes if tag == "button" and name == "disabled"]
    assert len(disabled) == len(rows) > 0


def test_every_severity_has_a_shape(page):
    shapes = {value for value in values(page, "id") if value and value.startswith("sev-")}
    assert {link[1:] for link in values(page, "href", "use")} <= shapes


@pytest.mark.parametrize(("count", "is_said"), [(4, False), (5, True)])
def test_pairs_that_are_all_there_are_not_called_the_first(count, is_said):
    report = make_full_report("table")
    pairs = tuple(
        SimilarPair(
            *(ExampleReference("train", index, None, label) for label, index in enumerate(ends)), 1.0, True
        )
        for ends in ((3, 4), (7, 9))
    )
    findings = [
        dataclasses.replace(own, count=count, pairs=pairs, severity=Severity.ACT)
        if own.name == "duplicates-conflicting"
        else own
        for own in report.findings
    ]
    shown = {("train", index): report.shown["train", 0] for index in (3, 4, 7, 9)}
    report = dataclasses.replace(report, findings=findings, shown={**report.shown, **shown})
    section = render_page(report).split('id="duplicates-conflicting"')[1].split("</section>")[0]
    assert ("pairs are on this page" in section) == is_said
