"""AuditCallback: reports of the model as it is at an epoch, and at the end."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import AuditCallback, DualView, load_digits

(IMAGES, LABELS), (TEST_IMAGES, TEST_LABELS) = load_digits()
TRAIN, TEST = (IMAGES[:150], LABELS[:150]), (TEST_IMAGES[:40], TEST_LABELS[:40])
SETTINGS = {"relevance": None, "k": 2, "method": "graddot"}


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network


@pytest.fixture
def trained(model, tmp_path):
    callback = AuditCallback(
        TRAIN, TEST, tmp_path / "audits", every=2, settings=SETTINGS, log_dir=tmp_path / "board"
    )
    model.fit(*TRAIN, epochs=3, verbose=0, callbacks=[callback])
    return callback


def test_reports_are_written_after_epochs_and_at_the_end(trained, tmp_path):
    assert sorted(path.name for path in (tmp_path / "audits").iterdir()) == ["end", "epoch-2"]
    assert list(trained.reports) == [2, 3]
    for name, epoch in (("epoch-2", 2), ("end", 3)):
        overview = json.loads((tmp_path / "audits" / name / "audit.json").read_text())["overview"]
        assert overview["model_fingerprint"] == trained.reports[epoch].overview.model_fingerprint
    first, last = trained.reports.values()
    assert first.overview.model_fingerprint != last.overview.model_fingerprint


def test_tensorboard_gets_pictures(trained, tmp_path):
    events = [str(path) for path in (tmp_path / "board").iterdir()]
    found = set()
    for record in tf.data.TFRecordDataset(events):
        event = tf.compat.v1.Event.FromString(record.numpy())
        found |= {(value.tag, event.step) for value in event.summary.value}
    assert {("audit/likeliest wrong labels", 2), ("audit/likeliest wrong labels", 3)} <= found


def test_a_second_training_replaces_the_reports(model, trained, tmp_path):
    model.fit(
        *TRAIN,
        epochs=1,
        verbose=0,
        callbacks=[AuditCallback(TRAIN, TEST, tmp_path / "audits", settings=SETTINGS)],
    )
    assert (tmp_path / "audits" / "end" / "index.html").exists()


def test_a_folder_of_other_files_is_refused_before_training(tmp_path):
    (tmp_path / "end").mkdir()
    (tmp_path / "end" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="notes.txt"):
        AuditCallback(TRAIN, TEST, tmp_path)


def test_settings_cannot_name_the_model_or_the_data(tmp_path):
    with pytest.raises(ValueError, match="besides model and data"):
        AuditCallback(TRAIN, TEST, tmp_path, settings={"train": TRAIN})


def test_settings_that_audit_does_not_take_are_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="methd"):
        AuditCallback(TRAIN, TEST, tmp_path, settings={"methd": "graddot"})


def test_the_strongest_examples_become_a_frame():
    rng = np.random.default_rng(0)
    inputs, ids = rng.normal(size=(20, 4)).astype("float32"), np.arange(20) + 50
    labels = np.arange(20) % 3
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    train = tf.data.Dataset.from_tensor_slices((inputs, labels, ids)).batch(8)
    (found,) = DualView(model, train).top_k(tf.data.Dataset.from_tensors(inputs[:3]), k=4)
    frame = found.to_frame()
    assert frame.shape == (12, 6)
    np.testing.assert_array_equal(frame["training_index"].to_numpy().reshape(3, 4), found.training_indices)
    np.testing.assert_array_equal(frame["influence_value"].to_numpy().reshape(3, 4), found.influence_values)
    np.testing.assert_array_equal(frame["training_label"], labels[frame["training_index"]])
    np.testing.assert_array_equal(frame["training_id"], ids[frame["training_index"]])
    np.testing.assert_array_equal(frame["rank"].to_numpy().reshape(3, 4), [[1, 2, 3, 4]] * 3)
