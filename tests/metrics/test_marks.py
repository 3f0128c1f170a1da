"""Which examples are marked: flags and positions, read by one function in an audit and in metrics."""

import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import audit
from deel_dualview.metrics import LabelErrorDetection
from deel_dualview.metrics.flags import checked_marks, marks_to_flags

MASK = np.array([True, False, False, True, False])


@pytest.mark.parametrize(
    "marks",
    [
        MASK, MASK.tolist(), MASK.astype(int), MASK.astype(np.float32), tf.constant(MASK), [0, 3], (3, 0), [3.0, 0.0],
        np.array([0, 3], np.uint8), tf.constant([0, 3]),
    ],
    ids=repr,
)  # fmt: skip
def test_flags_and_positions_mark_the_same_examples(marks):
    np.testing.assert_array_equal(marks_to_flags("known", marks, 5), MASK)


@pytest.mark.parametrize(
    "marks, expected", [([], []), ([0, 1], [0, 1]), ([1], [1]), ([0], [0]), (range(2, 4), [2, 3])]
)
def test_few_numbers_are_positions(marks, expected):
    assert np.flatnonzero(marks_to_flags("known", marks, 5)).tolist() == expected


@pytest.mark.parametrize(
    "marks, message",
    [
        ([3.7], r"known\[0\]=.*3\.7"),
        ([0, -1], r"known\[1\]=.*-1"),
        ([2, np.nan], r"known\[1\]"),
        ([2, np.inf], r"known\[1\]"),
        ([2, 4, 2], "given twice"),
        (["2"], "flags"),
        ([True, 3], "flags"),
        ([None], "flags"),
        (3, "shape"),
        ([[0], [1]], "shape"),
        ({1, 2}, "shape"),
        ([1 + 2j], "flags"),
        (np.ma.masked_array([2, 3], [True, False]), "masked"),
    ],
)
def test_what_is_neither_flags_nor_positions_is_refused_without_the_number_of_examples(marks, message):
    with pytest.raises(ValueError, match=message):
        checked_marks("known", marks)


@pytest.mark.parametrize(
    "marks, message",
    [
        (MASK[:4], "one flag for each of the 5"),
        (np.append(MASK, True), "one flag"),
        ([5], "0..4"),
        ([1, 1, 0], "twice"),
    ],
)
def test_what_does_not_fit_the_number_of_examples_is_refused(marks, message):
    with pytest.raises(ValueError, match=message):
        marks_to_flags("known", marks, 5)


def test_an_audit_refuses_bad_marks_before_it_looks_at_the_model():
    with pytest.raises(ValueError, match=r"known_label_errors.*3\.7"):
        audit(None, None, None, known_label_errors=[3.7])


def test_metrics_refuse_positions_and_take_the_flags_of_an_audit():
    assert LabelErrorDetection(marks_to_flags("known", [0, 3], 5)).is_poisoned.tolist() == MASK.tolist()
    with pytest.raises(ValueError, match="positions become flags"):
        LabelErrorDetection([0, 3])
