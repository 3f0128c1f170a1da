"""Corrections of a training set: the labels that were decided on, nothing else, and only of the set that was judged."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_dualview import Correction, corrected, read_corrections
from deel_dualview.data import ChangedError

INPUTS = np.arange(10, dtype="float32")[:, None]
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
NAMES = ["cat", "dog", "=owl"]


def train(labels=LABELS, ids=None, batch_size=4):
    parts = (INPUTS, labels) if ids is None else (INPUTS, labels, ids)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch_size)


def arrays(dataset):
    return [np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True)]


@pytest.fixture
def file(tmp_path):
    def write(*rows, header="position,id,given_label,suggested_label,verdict,label"):
        path = tmp_path / "corrections.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_wrong_labels_are_replaced_and_dropped_examples_left_out(file, batch_size):
    path = file(
        "1,,dog,cat,wrong,cat",
        "2,,'=owl,cat,right,'=owl",
        "3,,cat,dog,unsure,cat",
        "4,,dog,cat,wrong,'=owl",
        "8,,'=owl,cat,drop,",
    )
    inputs, labels = arrays(corrected(train(batch_size=batch_size), path, class_names=NAMES))
    np.testing.assert_array_equal(inputs[:, 0], [0, 1, 2, 3, 4, 5, 6, 7, 9])
    np.testing.assert_array_equal(labels, [0, 0, 2, 0, 2, 2, 0, 1, 0])


def test_a_wrong_label_without_another_gets_the_suggested_one(file):
    path = file("1,,dog,cat,wrong,")
    assert arrays(corrected(train(), path, class_names=NAMES))[1][1] == 0


def test_classes_without_names_are_numbers(file):
    assert arrays(corrected(train(), file("1,,1,0,wrong,2")))[1][1] == 2


@pytest.mark.parametrize("label", [1.5, "1.5"])
def test_numbers_of_a_regression_are_not_cut_to_classes(label):
    with pytest.raises(ValueError, match="output_names"):
        corrected((INPUTS, LABELS.astype("float32")), {1: Correction(label)})


@pytest.mark.parametrize(
    "labels", [np.eye(3)[LABELS].astype("float32"), LABELS[:, None], LABELS.astype("float32")]
)
def test_labels_keep_their_form(file, labels):
    dataset = corrected(train(labels), file("1,,1,0,wrong,2", "5,,2,0,drop,"))
    _, found = arrays(dataset)
    expected = labels[[0, 1, 2, 3, 4, 6, 7, 8, 9]].copy()
    expected[1] = labels[2]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == labels.dtype == dataset.element_spec[1].dtype.as_numpy_dtype


def test_batches_of_which_nothing_is_left_are_left_out(file):
    path = file(*(f"{position},,,,drop," for position in range(4)))
    sizes = [len(inputs) for inputs, _ in corrected(train(), path)]
    assert sizes == [4, 2]


def test_a_frame_and_a_mapping_are_taken_as_the_file_is(file):
    path = file("1,,1,0,wrong,2", "5,,2,0,drop,", "6,,0,1,right,0")
    expected = arrays(corrected(train(), path))
    mapping = {1: Correction("2", "1"), 5: Correction(None)}
    for given in (
        pd.read_csv(path),
        mapping,
        {1: Correction(2, 1), 5: None},
        {1: 2, 5: None},
        read_corrections(path),
    ):
        for found, part in zip(arrays(corrected(train(), given)), expected, strict=True):
            np.testing.assert_array_equal(found, part)


def test_no_correction_changes_nothing(file):
    inputs, labels = arrays(corrected(train(), file("3,,0,1,right,0")))
    np.testing.assert_array_equal(labels, LABELS)


# Keras says so of every dataset of unknown size.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_the_corrected_set_can_be_trained_on(file):
    import keras

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fixed = corrected(train(), file("1,,1,0,wrong,2", "5,,2,0,drop,"))
    history = model.fit(fixed.unbatch().shuffle(10).batch(3), shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_a_set_with_another_label_at_the_position_is_refused(file):
    with pytest.raises(ChangedError, match=r"position=1.*corrections=2.*found=1"):
        arrays(corrected(train(), file("1,,2,0,wrong,0")))


@pytest.mark.parametrize("ids", [np.array([f"scan-{n}" for n in range(10)]), np.arange(10) + 100])
def test_a_set_with_another_id_at_the_position_is_refused(file, ids):
    own = ids[1] if ids.dtype.kind == "i" else str(ids[1])
    assert arrays(corrected(train(ids=ids), file(f"1,{own},1,0,wrong,0")))[1][1] == 0
    with pytest.raises(ChangedError, match="another id"):
        arrays(corrected(train(ids=ids), file("1,another,1,0,wrong,0")))


def test_a_set_that_ends_before_the_last_correction_is_refused(file):
    with pytest.raises(ChangedError, match=r"positions=\[10\]"):
        arrays(corrected(train(), file("10,,1,0,wrong,0")))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,,1,0,perhaps,0"], r"Row 1.*verdict must be one of"),
        (["-1,,1,0,wrong,0"], "integer from 0"),
        (["x,,1,0,wrong,0"], "integer from 0"),
        (["1,,1,0,right,1", "1,,1,0,wrong,0"], "corrected once"),
        (["1,,,,wrong,"], "needs another"),
        (["1,,1,0,right,1", "2,,1,0,wrong,1"], r"Row 2.*new label is the given one.*label='1'"),
        (["1,,1,1,wrong,"], "new label is the given one"),
    ],
)
def test_rows_that_mean_nothing_are_refused(file, rows, message):
    with pytest.raises(ValueError, match=message):
        read_corrections(file(*rows))


def test_a_file_of_other_columns_is_refused(file):
    with pytest.raises(ValueError, match="missing: verdict"):
        read_corrections(file("1,2", header="position,label"))


def test_a_class_of_another_name_is_refused_before_anything_is_read(file):
    with pytest.raises(ValueError, match="'cow'"):
        corrected(train(), file("1,,dog,cat,wrong,cow"), class_names=NAMES)
    with pytest.raises(ValueError, match="class_names"):
        corrected(train(), file("1,,dog,cat,wrong,cat"))


def test_other_things_are_no_corrections():
    with pytest.raises(TypeError, match="DataFrame"):
        corrected(train(), 3)


def test_positions_may_be_written_as_floats(file):
    assert arrays(corrected(train(), file("1.0,,1,0,wrong,2")))[1][1] == 2


def test_blanks_of_ids_and_names_count(file):
    ids = np.array([f"scan {n} " for n in range(10)])
    path = file("1,scan 1 ,dog ,cat,wrong,cat")
    assert arrays(corrected(train(ids=ids), path, class_names=["cat", "dog ", "owl"]))[1][1] == 0


def test_a_shuffled_training_set_is_refused():
    shuffled = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).shuffle(10).batch(10)
    with pytest.raises(ValueError, match="shuffle"):
        corrected(shuffled, {1: 2})


def test_a_file_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "corrections.csv").write_text("position,verdict\n1,drop\n", encoding="utf-16")
    with pytest.raises(ValueError, match="save as .CSV UTF-8"):
        read_corrections(tmp_path / "corrections.csv")


CHANGES = {1: Correction("2", "1"), 5: Correction(None), 8: Correction("0")}
KEPT, CORRECTED = np.delete(np.arange(10), 5), np.array([0, 2, 2, 0, 1, 0, 1, 0, 0])


def test_arrays_give_arrays():
    inputs, labels, ids = corrected((INPUTS, LABELS, np.arange(10) + 70), CHANGES)
    np.testing.assert_array_equal(inputs, INPUTS[KEPT])
    np.testing.assert_array_equal(labels, CORRECTED)
    np.testing.assert_array_equal(ids, KEPT + 70)
    assert isinstance(inputs, np.ndarray) and labels.dtype == LABELS.dtype


def test_the_arrays_that_are_given_stay_as_they_are():
    given = LABELS.copy()
    corrected((INPUTS, given), CHANGES)
    np.testing.assert_array_equal(given, LABELS)


def test_frames_give_frames_with_their_index():
    frame = pd.DataFrame({"a": np.arange(10), "b": np.arange(10)}, index=[f"row {n}" for n in range(10)])
    inputs, labels = corrected((frame, pd.Series(LABELS, frame.index, name="kind")), CHANGES)
    pd.testing.assert_frame_equal(inputs, frame.iloc[KEPT])
    pd.testing.assert_series_equal(labels, pd.Series(CORRECTED, frame.index[KEPT], name="kind"))


def test_nested_inputs_and_one_hot_labels_keep_their_form():
    given = ({"a": INPUTS, "b": (INPUTS, INPUTS)}, np.eye(3)[LABELS])
    inputs, labels = corrected(given, CHANGES)
    assert set(inputs) == {"a", "b"} and inputs["b"][1].shape == (9, 1)
    np.testing.assert_array_equal(labels, np.eye(3)[CORRECTED])


def test_arrays_of_other_labels_are_refused():
    with pytest.raises(ChangedError, match="another label"):
        corrected((INPUTS, np.roll(LABELS, 1)), CHANGES)


def test_a_frame_of_another_index_is_refused():
    frame = pd.DataFrame({"a": np.arange(10)}, index=np.arange(10) + 70)
    with pytest.raises(ChangedError, match="another id"):
        corrected((frame, LABELS), {1: Correction("2", "1", "70")})


def test_arrays_that_end_before_a_correction_are_refused():
    with pytest.raises(ChangedError, match="positions that `train` does not have"):
        corrected((INPUTS[:4], LABELS[:4]), CHANGES)


def test_arrays_of_several_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        corrected((INPUTS[:4], LABELS), CHANGES)


def test_a_right_label_beside_another_one_is_refused(file):
    with pytest.raises(ValueError, match=r"Row 2 .*verdict is right.*given_label='1', label='2'"):
        read_corrections(file("0,,0,1,right,0", "1,,1,2,right,2"))


@pytest.mark.parametrize("position", [-1, 4])
def test_positions_outside_of_the_training_set_are_refused(position):
    with pytest.raises(ValueError, match="positions that `train` does not have"):
        corrected((np.zeros((4, 2)), np.arange(4) % 2), {position: 1})


def test_corrections_that_are_applied_already_are_said_to_be():
    with pytest.raises(ValueError, match="applied already"):
        corrected((np.zeros((4, 2)), np.ones(4, int)), {0: Correction(1, given_label=0)})


def test_labels_that_are_names_get_the_message_of_an_audit():
    with pytest.raises(ValueError, match="names"):
        corrected((np.zeros((2, 2)), np.array(["a", "b"])), {0: 1}, class_names=["a", "b"])


@pytest.mark.parametrize("first", ["", "sep={}\n", "\ufeffsep={}\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_may_write_other_separators_and_name_them(tmp_path, delimiter, first):
    rows = [["position", "verdict", "label"], ["1", "wrong", "0"]]
    path = tmp_path / "corrections.csv"
    lines = "\n".join(delimiter.join(row) for row in rows)
    path.write_text(first.format(delimiter) + lines, encoding="utf-8")
    assert read_corrections(path) == {1: Correction("0")}


@pytest.mark.parametrize("given", ["07", "seven"])
def test_names_of_classes_are_compared_as_texts(file, given):
    assert read_corrections(file(f"1,,{given},7,wrong,7")) == {1: Correction("7", given)}


HEADER = "position,id,output,given_label,suggested_label,verdict,label"
NUMBERS = np.linspace(0, 90, 10)


@pytest.mark.parametrize("names", [["price"], None])
def test_a_number_is_replaced_by_the_one_that_was_typed(file, names):
    output = "price" if names else "0"
    path = file(
        f"1,,{output},10,40,wrong,12.5",
        f"2,,{output},20,2,right,20",
        f"4,,{output},40,2,drop,",
        header=HEADER,
    )
    inputs, labels = arrays(corrected(train(NUMBERS), path, output_names=names))
    np.testing.assert_allclose(labels, [0, 12.5, 20, 30, 50, 60, 70, 80, 90])
    np.testing.assert_allclose(inputs[:, 0], [0, 1, 2, 3, 5, 6, 7, 8, 9])


def test_several_outputs_of_one_example_are_corrected_row_by_row(file):
    rows = np.stack([NUMBERS, -NUMBERS], axis=1).astype(np.float32)
    path = file(
        "1,,b,-10,7,wrong,", "1,,a,10,4,wrong,5", "3,,a,30,4,wrong,", "3,,b,-30,4,drop,", header=HEADER
    )
    inputs, labels = corrected((INPUTS, rows), path, output_names=["a", "b"])
    np.testing.assert_allclose(labels[1], [5, 7])
    assert len(labels) == len(inputs) == 9 and 3 not in inputs


def test_numbers_are_given_by_position_where_there_are_names_of_outputs():
    _, labels = corrected((INPUTS, NUMBERS), {2: 0.5, 3: {"price": 1}, 5: None}, output_names=["price"])
    np.testing.assert_allclose(labels, [0, 10, 0.5, 1, 40, 60, 70, 80, 90])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,,price,11,40,wrong,12", "another label"),
        ("1,,prize,10,40,wrong,12", "output_names"),
        ("1,,price,10,40,wrong,dear", "must be a number"),
    ],
)
def test_corrections_of_numbers_that_do_not_fit_are_refused(file, row, said):
    with pytest.raises(ValueError, match=said):
        corrected((INPUTS, NUMBERS), file(row, header=HEADER), output_names=["price"])


def test_a_fraction_is_not_cut_off_to_fit_labels_of_whole_numbers(file):
    with pytest.raises(ValueError, match="floats"):
        corrected((INPUTS, LABELS), file("1,,0,1,0,wrong,1.5", header=HEADER))


@pytest.mark.parametrize("nest", [dict, lambda parts: tuple(value for _, value in parts)])
@pytest.mark.parametrize("as_dataset", [True, False])
def test_labels_of_one_of_several_outputs_are_corrected(nest, as_dataset):
    prices = np.arange(10, dtype="float32")
    labels = nest([("kind", LABELS), ("price", prices)])
    given = (INPUTS, labels)
    output = "kind" if isinstance(labels, dict) else 0
    changes = {1: Correction(2, given_label=1), 3: Correction(None)}
    if as_dataset:
        dataset = corrected(tf.data.Dataset.from_tensor_slices(given).batch(4), changes, output=output)
        rows = [row for _, row in dataset.unbatch().as_numpy_iterator()]
        found = [
            np.array([row[key] for row in rows]) for key in (rows[0] if isinstance(rows[0], dict) else (0, 1))
        ]
    else:
        labels = corrected(given, changes, output=output)[1]
        found = list(labels.values() if isinstance(labels, dict) else labels)
    np.testing.assert_array_equal(found[0], [0, 2, 2, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(found[1], np.delete(prices, 3))


@pytest.mark.parametrize(
    ("labels", "output"),
    [({"kind": LABELS, "other": LABELS}, None), ({"kind": LABELS}, "nope"), ((LABELS, LABELS), 2)],
)
def test_the_output_must_be_one_of_the_labels(labels, output):
    for given in ((INPUTS, labels), tf.data.Dataset.from_tensor_slices((INPUTS, labels)).batch(4)):
        with pytest.raises(ValueError, match="output"):
            corrected(given, {1: 2}, output=output)


@pytest.mark.parametrize("as_dataset", [True, False])
@pytest.mark.parametrize("third", ["weights", "ids and weights"])
def test_sample_weights_stay_with_their_examples(as_dataset, third):
    weights = np.arange(10, dtype="float32")
    part = weights if third == "weights" else {"ids": np.arange(10, 20), "sample_weight": weights}
    given = (INPUTS, LABELS, part)
    if as_dataset:
        given = tf.data.Dataset.from_tensor_slices(given).batch(4)
    found = corrected(given, {2: Correction(None), 4: Correction(0, id=None if third == "weights" else 14)})
    rows = list(found.unbatch().as_numpy_iterator()) if as_dataset else [(None, None, found[2])]
    kept = [row[2] if third == "weights" else row[2]["sample_weight"] for row in rows]
    np.testing.assert_array_equal(np.ravel(kept), np.delete(weights, 2))


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[1, 1, 0]] * 10),
        np.full((10, 2), -97.25, np.float32),
        np.zeros((10, 5), np.int64)[:, :, None],
        LABELS + 0.5,
    ],
    ids=["independent labels", "numbers", "at positions", "a fraction"],
)
@pytest.mark.parametrize("as_dataset", [True, False])
def test_a_class_is_not_written_over_labels_that_are_none(labels, as_dataset):
    given = (INPUTS, labels)
    given = tf.data.Dataset.from_tensor_slices(given).batch(4) if as_dataset else given
    with pytest.raises(ValueError, match="one-hot"):
        found = corrected(given, {3: Correction(1)})
        list(found)


def test_a_class_without_a_column_is_refused():
    with pytest.raises(ValueError, match="column"):
        corrected((INPUTS, np.eye(3)[LABELS]), {3: Correction(3)})


@pytest.fixture
def rents():
    return pd.DataFrame({"price": np.arange(10.0), "rent": np.arange(10.0) + 100})


def test_columns_of_labels_are_the_names_of_outputs(rents):
    found = corrected((INPUTS, rents), {7: Correction({"rent": 123.0})})[1]
    assert found.loc[7].tolist() == [7.0, 123.0]


@pytest.mark.parametrize("names", [["rent", "price"], ["price", "price"]])
def test_names_in_another_order_than_the_columns_are_refused(rents, names):
    with pytest.raises(ValueError, match="output_names"):
        corrected((INPUTS, rents), {7: Correction({"price": 123.0})}, output_names=names)


@pytest.mark.parametrize("label", [7.5, {}])
def test_a_correction_of_several_numbers_names_its_output(rents, label):
    with pytest.raises(ValueError, match="name"):
        corrected((INPUTS, rents), {3: Correction(label)}, output_names=["price", "rent"])


@pytest.mark.parametrize("position", ["house 7", "7", 7.0, True])
def test_positions_are_integers(position):
    with pytest.raises(ValueError, match="position"):
        corrected((INPUTS, LABELS), {position: Correction(1)})


def test_lists_are_taken_as_arrays():
    inputs, labels = corrected((INPUTS.tolist(), LABELS.tolist()), {1: Correction(2), 3: Correction(None)})
    assert inputs.shape == (9, 1)
    assert labels.tolist() == [0, 2, 2, 1, 2, 0, 1, 2, 0]


def test_a_number_that_the_dtype_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="dtype"):
        corrected((INPUTS, LABELS.astype("int32")), {1: Correction(1e12)}, output_names=["price"])


def test_the_output_may_be_named_where_labels_are_those_of_it_alone():
    labels = corrected((INPUTS, LABELS.astype("float32")), {1: {"price": 7.5}}, output="price")[1]
    assert labels[1] == 7.5


@pytest.mark.parametrize(
    "labels", [np.array([[1, 1, 0]] * 10), np.full((10, 2), -97.25), np.zeros((10, 5, 1), np.int64)]
)
def test_an_example_is_dropped_whatever_its_labels_are(labels):
    assert len(corrected((INPUTS, labels), {3: Correction(None)})[1]) == 9
