"""Findings as DataFrames."""

import pytest
from report_cases import NUM_TRAIN, make_full_report

from deel_dualview.report import (
    ExampleReference,
    InputProblem,
    InputProblems,
    NotFiniteInputs,
    OddExample,
    Severity,
    SimilarPair,
)
from deel_dualview.report.findings import ConflictingDuplicates

pytest.importorskip("pandas", reason="pandas is an extra")


@pytest.fixture(scope="module")
def report():
    return make_full_report("table")


@pytest.fixture(scope="module")
def frames(report):
    return report.to_frames()


def test_every_finding_that_lists_something_has_a_frame(frames):
    assert set(frames) == {
        "label-errors",
        "wrong-predictions",
        "leaks",
        "outliers",
        "weak-classes",
        "influential-examples",
        "duplicates",
        "weak-groups",
    }


def test_the_frame_of_label_errors_has_every_training_label(frames):
    assert sorted(frames["label-errors"]["position"]) == list(range(NUM_TRAIN))


def test_a_wrong_prediction_has_position_classes_and_training_examples(report, frames):
    row, item = frames["wrong-predictions"].iloc[0], report.finding("wrong-predictions").predictions[0]
    assert (row["position"], row["label"], row["predicted_label"]) == (0, "cat", "dog")
    assert row["proponents"] == [own.example.index for own in item.proponents]


def test_an_outlier_has_its_split_and_its_distance(frames):
    assert set(frames["outliers"].columns) == {"split", "position", "label", "times_usual_distance"}
    assert set(frames["outliers"]["times_usual_distance"]) == {5.0}


def test_a_leak_has_the_positions_in_both_sets(report, frames):
    pairs = report.finding("leaks").pairs
    assert list(frames["leaks"]["train_position"]) == [pair.second.index for pair in pairs]
    assert list(frames["leaks"]["test_position"]) == [pair.first.index for pair in pairs]


def test_a_weak_class_has_its_name(frames):
    frame = frames["weak-classes"]
    assert list(frame.loc[frame["weak"], "label"]) == ["cat"]


def test_influential_examples_are_listed_by_predicted_class(frames):
    assert list(frames["influential-examples"]["predicted_label"].unique())[:2] == ["cat", "dog"]


def test_duplicates_of_one_label_have_the_positions_of_both(report, frames):
    pairs = report.finding("duplicates").pairs
    assert list(frames["duplicates"]["position"]) == [pair.first.index for pair in pairs]
    assert list(frames["duplicates"]["other_position"]) == [pair.second.index for pair in pairs]


def test_a_weak_group_has_its_value_class_and_proponent(frames):
    frame = frames["weak-groups"].set_index("kind")
    assert (frame.loc["column", "name"], frame.loc["column", "value"]) == ("age", "3 to 9")
    assert frame.loc["features", "label"] == "cat" and frame.loc["proponents", "proponent"] == 3
    assert set(frame["test_examples"]) == {20} and set(frame["predicted_right"]) == {8}


def test_a_problem_of_the_inputs_has_its_columns_and_the_positions_of_its_examples():
    examples = tuple(
        OddExample(ExampleReference(split, index, None, None), "dark")
        for split, index in (("train", 4), ("test", 7), ("train", 5))
    )
    problems = (
        InputProblem("identifier", Severity.LOOK, "2 columns number the examples", "", 2, columns=("a", "b")),
        InputProblem("odd-images", Severity.KNOW, "3 images are dark", "", 3, examples=examples),
    )
    frame = finding(InputProblems, problems=problems).to_frame()
    assert frame["columns"].tolist() == [["a", "b"], []] and frame["severity"].tolist() == ["look", "know"]
    assert frame["train_positions"].tolist() == [[], [4, 5]] and frame["test_positions"].tolist() == [[], [7]]


def test_classes_are_numbers_without_names(report):
    assert report.finding("wrong-predictions").to_frame()["label"].iloc[1] == 1


def test_a_finding_that_lists_nothing_has_no_rows(report):
    assert len(report.finding("unfaithful").to_frame()) == 0


def test_ids_are_a_column_where_examples_have_them():
    report = make_full_report("table", ids=[f"row-{index}" for index in range(NUM_TRAIN)])
    frame = report.to_frames()["leaks"]
    assert list(frame["train_id"][:2]) == ["row-0", "row-1"] and "test_id" not in frame.columns


def finding(kind, **given):
    return kind(severity=Severity.ACT, title="", summary="", count=1, share=0.1, **given)


def test_both_of_a_pair_of_duplicates_are_in_its_row():
    pair = SimilarPair(
        ExampleReference("train", 1, None, 0), ExampleReference("train", 5, None, 1), 1.0, True
    )
    row = finding(ConflictingDuplicates, num_identical=1, pairs=(pair,)).to_frame(["cat", "dog"]).iloc[0]
    assert (row["position"], row["other_position"], row["other_label"]) == (1, 5, "dog")


def test_inputs_that_are_no_numbers_are_listed_by_split_and_position():
    frame = finding(NotFiniteInputs, train_positions=(3,), test_positions=(0, 2)).to_frame()
    assert frame.values.tolist() == [["train", 3], ["test", 0], ["test", 2]]
