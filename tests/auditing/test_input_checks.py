"""The finding about the inputs in an audit: from the one pass over the contents, in JSON, verdict and page."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_dualview import audit
from deel_dualview.report import Severity
from deel_dualview.report.html import render_page
from deel_dualview.report.tiles import tile_of
from deel_dualview.report.verdict import find_verdict
from deel_dualview.report.writing import to_json


def audited(inputs, train, test):
    keras.utils.set_random_seed(0)
    joined = (
        keras.layers.Concatenate()(inputs) if isinstance(inputs, list) else keras.layers.Flatten()(inputs)
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(8, "relu")(joined)))
    return audit(model, train, test, method="graddot", relevance=None, k=1, progress=False)


@pytest.fixture(scope="module")
def table_report():
    """A sorted table with a row number, and with NaN in two examples."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 2, 120))
    frame = pd.DataFrame(
        {"row": np.arange(120.0), "age": rng.normal(size=120), "<b>rent": rng.normal(size=120)}
    )
    frame.loc[[3, 40], "age"] = np.nan
    test = pd.DataFrame(rng.normal(size=(30, 3)), columns=frame.columns)
    return audited(keras.Input((3,)), (frame, labels), (test, np.arange(30) % 2))


@pytest.fixture(scope="module")
def image_report():
    """Noise, two images of which are black, and one bright."""
    rng = np.random.default_rng(0)
    images = rng.random((90, 10, 10, 1), np.float32)
    images[[5, 60]] = 0
    images[17] = 1 - 0.01 * images[17]
    return audited(
        keras.Input((10, 10, 1)),
        (images[:60], rng.integers(0, 2, 60)),
        (images[60:], rng.integers(0, 2, 30)),
    )


def test_every_problem_of_a_table_is_listed_with_the_names_of_its_columns(table_report):
    finding = table_report.finding("inputs")
    assert {problem.kind: problem.columns for problem in finding.problems} == {
        "missing": ("age",),
        "identifier": ("row",),
        "order": (),
    }
    assert finding.severity is Severity.LOOK and finding.count == 3
    assert finding.title.startswith(
        "3 things are unusual about the inputs; first: 1 column has NaN or infinity"
    )


def test_problems_are_sorted_by_urgency(table_report):
    severities = [problem.severity for problem in table_report.finding("inputs").problems]
    assert severities == [Severity.LOOK, Severity.LOOK, Severity.KNOW]


def test_json_has_the_problems(table_report):
    content = json.loads(json.dumps(to_json(table_report.finding("inputs"))))
    assert content["problems"][1]["columns"] == ["row"] and content["problems"][2]["severity"] == "know"


def test_the_page_lists_the_problems_of_a_table(table_report):
    page = render_page(table_report)
    assert all(problem.title in page for problem in table_report.finding("inputs").problems)


def test_odd_images_are_shown_on_the_page(image_report):
    black, bright, _ = image_report.finding("inputs").problems
    assert (
        black.title == "2 images are of one colour"
        and bright.title == "1 image is much brighter than the rest"
    )
    assert {("train", 5), ("test", 0), ("train", 17)} <= image_report.shown.keys()
    page = render_page(image_report)
    assert black.title in page and 'alt="train example 17' in page and 'href="#inputs"' in page


def test_clean_inputs_have_nothing_unusual_about_them():
    rng = np.random.default_rng(1)
    images = rng.random((90, 10, 10, 1), np.float32)
    labels = rng.integers(0, 2, 90)
    report = audited(keras.Input((10, 10, 1)), (images[:60], labels[:60]), (images[60:], labels[60:]))
    finding = report.finding("inputs")
    assert finding.severity is Severity.FINE and finding.count == 0 == finding.share
    assert tile_of(finding).number == "0" and finding.title in render_page(report)


def test_training_inputs_that_are_all_the_same_are_said_to_be():
    labels = np.arange(60) % 2
    report = audited(keras.Input((4,)), (np.ones((60, 4)), labels), (np.ones((20, 4)), labels[:20]))
    finding = report.finding("inputs")
    assert finding.problems[0].kind == "identical" and finding.severity is Severity.ACT
    verdict = find_verdict([finding], num_train=60, num_test=20)
    assert verdict.strong == "All training examples have the same inputs" and verdict.target == "inputs"


def test_several_inputs_are_named_as_they_are_in_the_data():
    rng = np.random.default_rng(0)
    inputs = [keras.Input((1,), name="zip"), keras.Input((2,), name="area")]

    def data(num):
        values = {
            "zip": np.arange(float(num)),
            "area": np.stack([rng.normal(size=num), np.arange(num)], axis=1),
        }
        return tf.data.Dataset.from_tensor_slices((values, rng.integers(0, 2, num))).batch(40)

    keras.utils.set_random_seed(0)
    named = dict(zip(("zip", "area"), inputs, strict=True))
    model = keras.Model(named, keras.layers.Dense(2)(keras.layers.Concatenate()(inputs)))
    report = audit(model, data(80), data(60), method="graddot", relevance=None, k=1, progress=False)
    identifiers = [own for own in report.finding("inputs").problems if own.kind == "identifier"]
    assert [problem.columns for problem in identifiers] == [("area, column 1", "zip")]


@pytest.mark.parametrize("is_sorted", [False, True])
def test_a_column_of_row_numbers_makes_no_order_of_its_own(is_sorted):
    rng = np.random.default_rng(0)
    quantities = rng.normal(size=(300, 2)).astype("float32")
    if is_sorted:
        quantities = quantities[np.argsort(quantities[:, 0])] + 0.01 * rng.normal(size=(300, 2)).astype(
            "float32"
        )
    rows = np.column_stack([quantities, np.arange(300)]).astype("float32")
    train = (rows, np.arange(300) % 2)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    report = audit(
        model, train, (rows[:9], np.arange(9) % 2), method="sim", relevance=None, k=2, progress=False
    )
    kinds = [problem.kind for problem in report.finding("inputs").problems]
    assert "identifier" in kinds and ("order" in kinds) == is_sorted
