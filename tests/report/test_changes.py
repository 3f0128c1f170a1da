"""The changes since an earlier audit, by its audit.json."""

import dataclasses
import json

import pytest
from report_cases import make_full_report

from deel_dualview.report import LabelErrors
from deel_dualview.report.changes import Change, Changes, find_changes, read_earlier
from deel_dualview.report.html import render_page


@pytest.fixture(scope="module")
def report():
    return make_full_report("table")


@pytest.fixture
def file(report, tmp_path):
    report.to_html(tmp_path / "first")
    return tmp_path / "first" / "audit.json"


def with_labels(report, **changes):
    findings = [
        dataclasses.replace(own, **changes) if isinstance(own, LabelErrors) else own
        for own in report.findings
    ]
    return dataclasses.replace(report, findings=findings)


def test_counts_of_then_and_now_stand_side_by_side(report, file):
    later = with_labels(report, count=4, share=4 / 240)
    changes = find_changes(read_earlier(file), later.findings)
    by_name = {item.name: (item.before, item.after) for item in changes.items}
    before = {own.name: own.count for own in report.findings}
    assert by_name["label-errors"] == (before["label-errors"], 4) and before["label-errors"] != 4
    assert by_name["wrong-predictions"] == (before["wrong-predictions"],) * 2
    assert changes.created == report.overview.created


def test_what_cannot_be_told_is_no_zero(report, file):
    unknown = with_labels(report, status="cannot tell", count=0, share=float("nan"))
    changes = find_changes(read_earlier(file), unknown.findings)
    (item,) = [item for item in changes.items if item.name == "label-errors"]
    assert item.after is None and "→ cannot tell" in str(changes)


def test_an_earlier_audit_that_could_not_tell_is_no_zero_either(report, tmp_path):
    with_labels(report, status="cannot tell", count=0, share=float("nan")).to_html(tmp_path / "first")
    assert read_earlier(tmp_path / "first" / "audit.json").counts["label-errors"] is None


def test_page_and_json_say_what_has_changed(report, file, tmp_path):
    later = with_labels(report, count=4, share=4 / 240)
    later = dataclasses.replace(later, changes=find_changes(read_earlier(file), later.findings))
    assert "wrong training labels" in str(later.changes) and str(later.changes) in render_page(later)
    later.to_html(tmp_path / "second")
    content = json.loads((tmp_path / "second" / "audit.json").read_text(encoding="utf-8"))
    assert {"name": "label-errors", "after": 4}.items() <= content["changes"][0].items()
    assert "Since the audit" not in render_page(report)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"findings": [{"name": "leaks"}], "overview": {}}', "\x00"]
)
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(ValueError, match=r"audit.json of an earlier audit"):
        read_earlier(tmp_path / "audit.json")


def test_an_upper_bound_is_no_zero(report, file):
    bounded = with_labels(report, status="at most", count=0, share=0.0, at_most=12)
    changes = find_changes(read_earlier(file.parent), bounded.findings)
    assert "→ at most 12" in str(changes)


def test_an_audit_of_other_classes_is_refused(report, file):
    with pytest.raises(ValueError, match="same classes"):
        read_earlier(file).check_classes(["cat", "dog"])


def test_classes_without_names_in_one_of_both_audits_are_the_same(report, file):
    read_earlier(file).check_classes([str(number) for number in range(6)])


def test_the_same_classes_in_another_order_are_refused(report, file):
    with pytest.raises(ValueError, match="same order"):
        read_earlier(file).check_classes(report.overview.class_names[::-1])


def changes(accuracy, **counts):
    items = [Change(name.replace("_", "-"), *both) for name, both in counts.items()]
    return str(Changes("today", tuple(items), accuracy, 800))


def test_the_accuracy_of_then_and_now_is_compared_in_words(report, file):
    earlier = read_earlier(file)
    assert earlier.accuracy == report.overview.test_accuracy and earlier.num_test == report.overview.num_test
    now = find_changes(earlier, report.findings, accuracy=0.5, num_test=earlier.num_test)
    assert now.accuracy == (earlier.accuracy, 0.5)
    assert find_changes(earlier, report.findings, accuracy=0.5, num_test=3).accuracy is None
    assert "right on 60.0% → 80.0% of the test labels (better)" in changes((0.6, 0.8))
    assert "(worse)" in changes((0.8, 0.6))
    assert "(better, but chance may make as much)" in changes((0.8125, 0.83))
    assert "right on 80.0% of the test labels, as before" in changes((0.8, 0.8))


def test_findings_are_grouped_by_what_has_become_of_them():
    assert changes(None, label_errors=(158, 115), leaks=(12, 12), outliers=(3, 5), weak_groups=(None, 2)) == (
        "Since the audit of today: fewer: wrong training labels 158 → 115; more: outliers 3 → 5; "
        "changed: weak groups cannot tell → 2; as before: leaks 12."
    )


def test_duplicates_that_a_correction_made_are_no_new_fault():
    assert "no new fault" in changes(None, duplicates_conflicting=(12, 10), duplicates=(0, 2))
    assert "no new fault" not in changes(None, duplicates_conflicting=(12, 12), duplicates=(0, 2))
