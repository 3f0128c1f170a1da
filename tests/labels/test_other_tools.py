"""Label issues in the forms that other tools read; the tools themselves are not needed here."""

import json

import numpy as np
import pytest

from deel_dualview.labels import LabelCount, LabelIssues

SCORES = np.array([-2.0, 3.0, 0.5, -0.1])


def make(ids=None):
    return LabelIssues(
        given_labels=np.array([0, 1, 0, 1]),
        suggested_labels=np.array([1, 2, 2, 0]),
        scores=SCORES,
        flagged=np.array([False, True, False, False]),
        count=LabelCount("counted", 1, 1, 2),
        class_pairs=(),
        training_accuracy=1.0,
        test_accuracy=1.0,
        deviations_easier=0.0,
        heads=(),
        ids=ids,
        class_names=("cat", "dog", "owl"),
    )


@pytest.fixture(scope="module")
def frame():
    pytest.importorskip("pandas", reason="pandas is an extra")
    return make().to_cleanlab()


@pytest.fixture(scope="module")
def samples():
    return make(np.array([b"a", b"b", b"c", b"d"], dtype=object)).to_fiftyone([f"{n}.png" for n in range(4)])


def test_the_frame_has_cleanlabs_columns_in_the_order_of_the_dataset(frame):
    assert list(frame.columns) == ["is_label_issue", "label_score", "given_label", "predicted_label"]
    assert frame["is_label_issue"].tolist() == [False, True, False, False]
    assert frame["given_label"].tolist() == ["cat", "dog", "cat", "dog"]


def test_cleanlabs_score_is_low_for_likely_wrong_labels(frame):
    np.testing.assert_allclose(frame["label_score"], 1 / (1 + np.exp(SCORES)))


def test_the_given_label_is_predicted_unless_another_is_likelier(frame):
    assert frame["predicted_label"].tolist() == ["cat", "owl", "owl", "dog"]


def test_a_sample_has_both_labels_as_classifications(samples):
    assert samples[1]["ground_truth"] == {"_cls": "Classification", "label": "dog"}
    assert samples[1]["suggested"] == {"_cls": "Classification", "label": "owl"}


def test_a_flagged_sample_has_a_tag(samples):
    assert [sample["tags"] for sample in samples] == [[], ["label issue"], [], []]


def test_a_sample_has_its_file_position_and_id(samples):
    found = [(one["filepath"], one["position"], one["example_id"]) for one in samples]
    assert found == [("0.png", 0, "a"), ("1.png", 1, "b"), ("2.png", 2, "c"), ("3.png", 3, "d")]


def test_samples_are_json(samples):
    assert json.loads(json.dumps(samples)) == samples


def test_integer_ids_are_json():
    samples = make(np.array([7, 8, 9, 10])).to_fiftyone(["x.png"] * 4)
    assert json.loads(json.dumps(samples))[0]["example_id"] == 7


def test_another_number_of_files_is_refused():
    with pytest.raises(ValueError, match=r"len\(filepaths\)=1"):
        make().to_fiftyone(["0.png"])
