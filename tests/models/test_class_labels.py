"""Labels as class indices: what is refused, and what is said about it."""

import numpy as np
import pytest

from deel_dualview.models.labels import to_classes


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog"]),
        np.array([b"cat", b"dog"]),
        np.array(["cat", "dog"], dtype=object),
        np.array([["cat"], ["dog"]]),
    ],
)
def test_names_are_refused_with_ways_to_number_them(labels):
    with pytest.raises(ValueError, match=r"pd.factorize.*np.unique.*StringLookup.*num_oov_indices=0.*cat"):
        to_classes(labels, 2)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0.0, np.nan, 1.0]),
        np.array([0, None, 1], dtype=object),
        np.array(["cat", float("nan"), "dog"], dtype=object),
    ],
)
def test_missing_labels_are_named_by_their_row(labels):
    with pytest.raises(ValueError, match=r"1 label\(s\) are missing.*rows=\[1\]"):
        to_classes(labels, 2)


def test_labels_that_count_from_one_are_recognised():
    with pytest.raises(ValueError, match="numbered from 1"):
        to_classes(np.array([1, 2, 3]), 3)


def test_labels_beyond_the_classes_do_not_look_counted_from_one():
    with pytest.raises(ValueError) as error:
        to_classes(np.array([0, 2, 3]), 3)
    assert "from 1" not in str(error.value)
