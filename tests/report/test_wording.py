"""Influence values in words: equal ones are said once, shares only where they mean something."""

import pytest

from deel_dualview.report import ExampleReference, Influence, PairShares
from deel_dualview.report.review import common_prefix, short_id
from deel_dualview.report.wording import describe_influences, describe_sums


def influences(values, shares=None):
    shares = shares or [None] * len(values)
    return [
        Influence(ExampleReference("train", place, None, 0), value, share)
        for place, (value, share) in enumerate(zip(values, shares, strict=True))
    ]


def test_equal_values_are_said_once():
    words = describe_influences(influences([0.0595] * 5))
    assert words.spread == "five equally strong, +0.0595 each"
    assert words.values == ()


def test_nearly_equal_values_are_said_as_a_range():
    words = describe_influences(influences([-0.198, -0.196, -0.195]))
    assert words.spread == "three nearly equally strong, −0.195 to −0.198"
    assert words.values == ()


def test_values_that_differ_have_the_same_digits():
    words = describe_influences(influences([1.5, 0.75, 0.0321]))
    assert words.spread == ""
    assert words.values == ("+1.50", "+0.75", "+0.03")


def test_a_single_value_is_no_tie():
    assert describe_influences(influences([0.25])).values == ("+0.250",)


@pytest.mark.parametrize("values", [[0.0], [1e-12, 5e-13], [1e9, 1.0], [float("inf")]])
def test_extreme_values_are_written(values):
    words = describe_influences(influences(values))
    assert words.spread or len(words.values) == len(values)


def test_shares_that_add_up_to_more_than_the_logit_are_left_out():
    assert describe_influences(influences([1.0] * 5, [0.35] * 5)).together == ""


def test_shares_that_are_parts_of_the_logit_are_added_up():
    assert describe_influences(influences([1.0, 0.5], [0.2, 0.1])).together == "together 30% of the logit"


def test_no_influences_are_no_words():
    assert describe_influences([]) == ("", (), "")


def with_sums(*shares):
    """Influences of 1 whose heatmaps add up to these shares, in training; in test to all of it."""
    return [
        Influence(
            ExampleReference("train", place, None, 0), 1.0, None, relevance=PairShares(0.0, 1 - share, 0.0)
        )
        for place, share in enumerate(shares)
    ]


def test_what_the_colours_of_all_pairs_add_up_to_is_said_once():
    words = describe_sums(with_sums(0.7, 0.5, 0.6))
    assert words.of_all == "colours add up to 50% to 100% of it"
    assert words.of_each == ("", "", "")


def test_of_some_pairs_it_is_said_for_each():
    words = describe_sums(with_sums(0.7, 1.0))
    assert words.of_all == ""
    assert words.of_each == ("colours add up to 70% of it in training, 100% in test", "")


def test_of_a_single_pair_it_is_said_there():
    assert describe_sums(with_sums(0.7)).of_each[0].startswith("colours add up to 70%")


def test_colours_that_add_up_to_the_influence_need_no_words():
    assert describe_sums(with_sums(1.0, 0.9)) == ("", ("", ""))


@pytest.mark.parametrize(
    ("ids", "prefix"),
    [
        (["fashion-train-1", "fashion-train-22"], "fashion-train-"),
        ([b"fashion-train-1", b"fashion-train-22"], "fashion-train-"),
        (["a1", "a2"], ""),
        ([1, 2], ""),
        (["fashion-train-1"], ""),
        (["fashion-train-", "fashion-train-1"], ""),
        (None, ""),
    ],
)
def test_what_all_long_ids_begin_with_is_said_once(ids, prefix):
    assert common_prefix(ids) == prefix


@pytest.mark.parametrize(
    ("own", "shown"), [("fashion-train-7", ""), ("fashion-train-x", "x"), (None, ""), (12, "12")]
)
def test_an_id_is_shown_where_it_says_more_than_the_position(own, shown):
    assert short_id(ExampleReference("train", 7, own, 0), "fashion-train-") == shown
