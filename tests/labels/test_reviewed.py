"""Labels that were reviewed as right are found again in the training set, before and after its correction."""

import numpy as np
import pandas as pd
import pytest

from deel_dualview.data import ChangedError
from deel_dualview.labels import ReviewedLabels

LABELS = np.array([0, 1, 2, 0, 1, 2])
NAMES = ["cat", "dog", "owl"]
REVIEWED = pd.DataFrame(
    {
        "position": [1, 2, 3, 5],
        "given_label": ["dog", "owl", "cat", "owl"],
        "verdict": ["drop", "right", "wrong", "right"],
        "label": ["", "owl", "dog", "owl"],
    }
)


def positions(table, labels, ids=None, names=NAMES):
    return ReviewedLabels.read(table).right_positions(labels, ids, names).tolist()


def test_labels_are_found_where_nothing_is_corrected_yet():
    assert positions(REVIEWED, LABELS) == [2, 5]


def test_labels_are_found_behind_examples_that_were_dropped():
    applied = np.delete(np.where(np.arange(6) == 3, 1, LABELS), 1)
    assert positions(REVIEWED, applied) == [1, 4]


def test_classes_may_be_numbers():
    table = REVIEWED.assign(given_label=["1", "2", "0", "2"], label=["", "2", "1", "2"])
    assert positions(table, LABELS, names=["0", "1", "2"]) == [2, 5]


@pytest.mark.parametrize(
    ("labels", "ids"),
    [(LABELS[::-1], None), (LABELS[:3], None), (LABELS, np.array(list("abcdef")))],
)
def test_reviews_of_another_set_are_refused(labels, ids):
    with pytest.raises(ChangedError, match="another set"):
        positions(REVIEWED.assign(id=["b", "x", "d", "f"]), labels, ids)


def test_reviews_of_several_outputs_are_refused():
    with pytest.raises(ValueError, match="classifier"):
        ReviewedLabels.read(REVIEWED.assign(output="price"))


def test_other_things_are_no_reviews():
    with pytest.raises(TypeError, match="CSV file, or a DataFrame"):
        ReviewedLabels.read(3)
