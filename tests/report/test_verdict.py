"""The head of the page: a verdict that follows from the findings, and a number for each of them."""

import dataclasses

import pytest
from report_cases import make_full_report

from deel_dualview.report import NotFiniteInputs, Severity
from deel_dualview.report.tiles import tile_of
from deel_dualview.report.verdict import find_verdict

LABELS, WRONG, LEAKS, OUTLIERS, WEAK, INFLUENTIAL, FAITHFUL = range(7)


@pytest.fixture(scope="module")
def findings():
    return make_full_report("table").findings


def verdict(findings):
    return find_verdict(findings, num_train=240, num_test=60)


def changed(findings, **severities):
    """Return findings with other severities, by the position of the finding."""
    return [
        dataclasses.replace(finding, severity=severities.get(f"at_{place}", finding.severity))
        for place, finding in enumerate(findings)
    ]


def test_wrong_labels_come_before_wrong_predictions(findings):
    found = verdict(findings)
    assert found.strong == "About 130" and found.target == "label-errors"
    assert "240 training labels are wrong" in found.rest


def test_test_examples_that_are_in_training_come_before_wrong_predictions(findings):
    assert verdict(changed(findings, at_0=Severity.FINE, at_2=Severity.ACT)).target == "leaks"


@pytest.mark.parametrize(("num_identical", "target"), [(30, "leaks"), (29, "label-errors")])
def test_a_test_set_of_training_examples_comes_before_wrong_labels(findings, num_identical, target):
    leaks = dataclasses.replace(findings[LEAKS], num_identical=num_identical, severity=Severity.ACT)
    assert verdict([*findings[:LEAKS], leaks]).target == target


def test_a_finding_to_act_on_comes_before_one_to_look_at(findings):
    assert verdict(changed(findings, at_0=Severity.LOOK)).target == "wrong-predictions"


def test_what_is_wrong_with_the_data_comes_before_what_is_wrong_with_the_surrogate(findings):
    first = [findings[FAITHFUL], *findings[:FAITHFUL]]
    assert verdict(changed(first, at_0=Severity.ACT)).target == "label-errors"


def test_a_surrogate_that_is_another_model_is_the_verdict_where_the_data_are_fine(findings):
    fine = changed(findings, at_0=Severity.FINE, at_1=Severity.FINE, at_2=Severity.FINE, at_6=Severity.ACT)
    assert verdict(fine).target == "method" and "surrogate" in verdict(fine).strong


@pytest.mark.parametrize("others", [Severity.FINE, Severity.KNOW, Severity.LOOK, Severity.ACT])
def test_what_cannot_be_told_is_never_a_verdict_that_looks_well(findings, others):
    unknown = dataclasses.replace(
        findings[LABELS],
        severity=Severity.CANNOT_TELL,
        status="cannot tell",
        count=0,
        reason="the network has memorised them",
    )
    rest = [
        dataclasses.replace(finding, severity=others)
        for finding in findings
        if finding.name in ("wrong-predictions", "influential-examples", "unfaithful")
    ]
    found = verdict([*rest, unknown])
    assert found.severity is Severity.CANNOT_TELL and found.strong == "Cannot tell"
    assert "the network has memorised them" in found.rest
    assert tile_of(unknown).number == "?"


@pytest.mark.parametrize("place", [OUTLIERS, WEAK, INFLUENTIAL])
def test_what_is_only_to_be_looked_at_is_no_absence_of_problems(findings, place):
    fine = [dataclasses.replace(finding, severity=Severity.FINE) for finding in findings]
    fine[place] = dataclasses.replace(fine[place], severity=Severity.LOOK)
    assert verdict(fine).target == findings[place].name and verdict(fine).severity is Severity.LOOK


def test_nothing_to_act_on_or_look_at_is_said_as_no_problem_found(findings):
    fine = [dataclasses.replace(finding, severity=Severity.FINE) for finding in findings]
    found = verdict(fine)
    assert found.severity is Severity.FINE and found.strong == "No problem was found"
    assert found.target in {finding.name for finding in findings}


@pytest.mark.parametrize("name", ["weak-classes", "weak-groups", "unfaithful"])
def test_what_too_few_test_examples_cannot_tell_is_said_beside_no_problem_found(findings, name):
    fine = [
        dataclasses.replace(item, severity=Severity.CANNOT_TELL if item.name == name else Severity.FINE)
        for item in findings
    ]
    found = verdict(fine)
    assert found.strong == "No problem was found" and "too few test examples" in found.rest


@pytest.mark.parametrize("name", ["weak-classes", "weak-groups"])
def test_what_cannot_be_told_is_no_number(findings, name):
    (item,) = [item for item in findings if item.name == name]
    assert tile_of(dataclasses.replace(item, severity=Severity.CANNOT_TELL)).number == "?"


def test_the_number_of_classes_without_a_training_example_is_shown_where_none_is_weak(findings):
    classes = [dataclasses.replace(item, num_train=0) for item in findings[WEAK].classes[:2]]
    absent = dataclasses.replace(findings[WEAK], count=0, classes=(*classes, *findings[WEAK].classes[2:]))
    assert tile_of(absent).number == "2" and "without a training example" in tile_of(absent).meaning


def test_inputs_that_are_no_numbers_come_first_where_they_stand_first(findings):
    broken = NotFiniteInputs(
        severity=Severity.ACT,
        title="",
        summary="",
        count=1,
        share=0.1,
        train_positions=(3,),
        test_positions=(),
    )
    assert verdict([broken, *findings]).strong == "1 example"


def test_the_link_of_a_verdict_leads_to_a_finding_or_to_the_method(findings):
    for finding in findings:
        alone = dataclasses.replace(finding, severity=Severity.ACT)
        assert verdict([alone]).target in {finding.name, "method"}


@pytest.mark.parametrize(
    ("at_most", "said"), [(63, "up to 63 training labels may be wrong"), (9, "nothing more urgent")]
)
def test_wrong_predictions_do_not_hide_that_many_labels_may_be_wrong(findings, at_most, said):
    bound = dataclasses.replace(
        findings[LABELS], severity=Severity.KNOW, status="at most", count=0, at_most=at_most
    )
    found = verdict([bound, findings[WRONG]])
    assert found.target == "wrong-predictions" and said in found.rest


def test_a_bound_is_written_as_a_bound_and_no_estimate(findings):
    bound = dataclasses.replace(findings[LABELS], status="at most", count=0, at_most=45)
    assert tile_of(bound).number == "≤ 45"
    assert tile_of(findings[LABELS]).number == "≈ 130"


@pytest.mark.parametrize(("place", "one"), [(OUTLIERS, "example far"), (WEAK, "group of")])
def test_one_is_no_plural(findings, place, one):
    (finding,) = [own for own in findings if own.name == ("outliers" if place == OUTLIERS else "weak-groups")]
    finding = dataclasses.replace(finding, severity=Severity.LOOK)
    assert tile_of(dataclasses.replace(finding, count=1)).meaning.startswith(one)
    assert not tile_of(dataclasses.replace(finding, count=2)).meaning.startswith(one)


def test_a_reason_that_is_a_question_gets_no_full_stop(findings):
    labels = dataclasses.replace(
        findings[LABELS], status="cannot tell", severity=Severity.CANNOT_TELL, reason="are they alike?"
    )
    assert verdict([labels]).rest.endswith("wrong: are they alike?")
