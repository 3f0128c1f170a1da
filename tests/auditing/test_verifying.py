"""Explanations of an audit that are checked by training again."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import InfluenceModel, audit
from deel_dualview.auditing.verifying import _severity, _summary, _title
from deel_dualview.report import Severity, VerifiedPredictions
from deel_dualview.report.tiles import tile_of
from deel_dualview.report.verdict import find_verdict
from deel_dualview.verification import Removal, State, Verification

NAMES = ["red", "green", "blue"]


def examples(number, seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    return (generator.normal(size=(number, 3)) + 1.5 * np.eye(3)[labels]).astype("float32"), labels


@pytest.fixture(scope="module")
def sets():
    return tuple(tf.data.Dataset.from_tensor_slices(examples(*own)).batch(16) for own in ((60, 0), (24, 1)))


@pytest.fixture(scope="module")
def model():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    network.layers[0].set_weights([2 * np.eye(3), np.zeros(3)])
    return network


@pytest.fixture(scope="module")
def report(model, sets):
    return audit(model, *sets, k=3, method="first-order", class_names=NAMES, verify=8, progress=False)


@pytest.fixture(scope="module")
def finding(report) -> VerifiedPredictions:
    return report.finding("verified-predictions")


def test_the_explained_predictions_come_first_and_others_make_up_the_number(report, finding):
    explained = [item.example.index for item in report.finding("wrong-predictions").predictions]
    checked = [item.example.index for item in finding.predictions]
    assert 0 < len(explained) < 8 and checked[: len(explained)] == explained
    assert len(set(checked)) == finding.count == 8


def test_the_removed_are_those_that_the_page_names(report, finding):
    for item, own in zip(report.finding("wrong-predictions").predictions, finding.predictions, strict=False):
        groups = {removal.group: removal for removal in own.removals}
        assert groups["proponents"].removed == tuple(one.example.index for one in item.proponents)
        assert groups["opponents"].removed == tuple(one.example.index for one in item.opponents)
        np.testing.assert_allclose(
            groups["proponents"].predicted, sum(one.value for one in item.proponents), rtol=1e-4
        )
        assert own.prediction == item.prediction


def test_influence_functions_hold_for_the_last_layer(finding):
    assert finding.severity is Severity.FINE and finding.rank_correlation > 0.8
    assert (finding.num_above_random, finding.num_compared) == (8, 8)
    assert finding.title.startswith("8 of 8 predictions lose more without the proponents than without random")
    assert f"rank correlation of {finding.rank_correlation:.2f}" in finding.summary
    assert "over the proponents alone" in finding.summary
    assert tile_of(finding).number == "8 of 8"


def verification(above, total):
    """A real result's shape: proponents that lose 1 nat, random examples that lose 0 or 2."""
    start, middle, low = (State(0.0, value, 0) for value in (0.0, -1.0, -2.0))
    removals = []
    for query in range(total):
        removals.append(Removal(query, "proponents", (0,), 0, 1.0, start, middle))
        removals.append(Removal(query, "random", (1,), 0, 0.1, start, start if query < above else low))
    return Verification(tuple(removals), 1, "DualView", "last layer", 0.1, 1.0, 0.0, 2 * total + 1, 1.0, 60)


@pytest.mark.parametrize(
    ("above", "total", "severity"),
    [
        (0, 0, Severity.CANNOT_TELL),
        (1, 1, Severity.CANNOT_TELL),
        (0, 1, Severity.LOOK),
        (4, 4, Severity.CANNOT_TELL),  # 1 / 16 by chance
        (5, 5, Severity.FINE),  # 1 / 32
        (6, 8, Severity.CANNOT_TELL),
        (7, 8, Severity.FINE),  # 9 / 256
        (4, 8, Severity.LOOK),
        (14, 20, Severity.CANNOT_TELL),
        (15, 20, Severity.FINE),
    ],
)
def test_the_severity_is_that_of_a_sign_test(above, total, severity):
    found = verification(above, total)
    assert _severity(found.above_random) is severity
    assert ("Only" in _title(found)) == (severity is Severity.LOOK and total > 1)
    assert ("do not rely" in _summary(found)) == (severity is Severity.LOOK)
    assert ("may be chance" in _summary(found)) == (severity is Severity.CANNOT_TELL and total > 0)


def test_page_data_and_table_have_predicted_and_actual_changes(report, finding, tmp_path):
    page = report.to_html(tmp_path / "audit").read_text(encoding="utf-8")
    assert finding.predictions[0].sentence in page and 'id="verified-predictions"' in page
    found = json.loads((tmp_path / "audit" / "audit.json").read_text(encoding="utf-8"))
    own = next(item for item in found["findings"] if item["name"] == "verified-predictions")
    assert own["predictions"][0]["removals"][0]["actual"] == finding.predictions[0].removals[0].actual
    frame = report.to_frames()["verified-predictions"]
    assert len(frame) == sum(len(item.removals) for item in finding.predictions)
    assert set(frame.predicted_label) <= set(NAMES)
    assert any(name in finding.predictions[0].sentence for name in NAMES)


def test_it_makes_no_verdict_on_the_data(finding):
    verdict = find_verdict([finding], num_train=60, num_test=24)
    assert verdict.severity is Severity.FINE and verdict.strong == "No problem was found"


def test_an_audit_of_a_regression_has_numbers_and_too_few_cannot_tell(sets):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    network.compile(loss="mse")
    train, test = (own.map(lambda x, y: (x, tf.cast(y, tf.float32) + x[:, 0])) for own in sets)
    report = audit(network, train, test, k=2, method="first-order", verify=2, relevance=None, progress=False)
    finding = report.finding("verified-predictions")
    assert finding.severity in (Severity.CANNOT_TELL, Severity.LOOK) and tile_of(finding).number.endswith(
        " of 2"
    )
    assert not finding.is_probability and finding.agreement is None
    assert np.isnan(finding.rank_correlation) and "rank correlation" not in finding.summary


@pytest.mark.parametrize("verify", [-1, 1.5, "3"])
def test_a_bad_number_is_refused(model, sets, verify):
    with pytest.raises((TypeError, ValueError), match="verify"):
        audit(model, *sets, verify=verify, progress=False)


def test_a_model_without_a_linear_last_layer_is_refused_with_the_name_of_the_argument(sets):
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(3, name="hidden")(inputs)
    network = keras.Model(inputs, keras.layers.Lambda(lambda z: z**3)(hidden))
    with pytest.raises(ValueError, match=r"audit\(verify=\).*linear last layer"):
        audit(InfluenceModel(network, "hidden"), *sets, method="feature-similarity", verify=1, progress=False)
