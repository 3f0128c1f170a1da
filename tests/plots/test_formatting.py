"""Numbers of a table as a reader takes them."""

import pytest

from deel_dualview.plots.formatting import name_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (101071.0, "101071"),
        (100071.4, "100071"),
        (-2500.0, "-2500"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (3e12, "3e+12"),
    ],
)
def test_numbers_of_rows_keep_their_digits(value, text):
    assert name_value(value) == text
