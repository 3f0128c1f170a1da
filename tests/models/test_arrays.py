"""Data in every form that Keras takes, as the same batched dataset."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_dualview import audit, compare, data, label_issues
from deel_dualview.models.arrays import check_same_index, column_names, index_ids, to_dataset, to_datasets

ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
LABELS = (ROWS[:, 0] > 0).astype("int64")


def model_of_rows():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])


def model_of_columns():
    inputs = {
        "age": keras.Input((1,), name="age"),
        "colour": keras.Input((1,), name="colour", dtype="string"),
    }
    codes = keras.layers.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot")(inputs["colour"])
    joined = keras.layers.Concatenate()([inputs["age"], codes])
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(4)(joined)))


def model_of_texts():
    text = keras.Input((1,), dtype="string")
    words = keras.layers.TextVectorization(output_mode="multi_hot", vocabulary=["good", "bad"])(text)
    return keras.Model(text, keras.layers.Dense(2)(words))


def arrays(dataset):
    return [np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True)]


class Batches(keras.utils.PyDataset):
    """Three batches of twenty."""

    def __len__(self):
        return 3

    def __getitem__(self, number):
        part = slice(20 * number, 20 * number + 20)
        return ROWS[part], LABELS[part]


FRAME = pd.DataFrame(ROWS, columns=["a", "b", "c"])
FORMS = {
    "arrays": (ROWS, LABELS),
    "lists": (ROWS.tolist(), LABELS.tolist()),
    "tensors": (tf.constant(ROWS), tf.constant(LABELS)),
    "frame": (FRAME, pd.Series(LABELS)),
    "PyDataset": Batches(),
    "dataset": tf.data.Dataset.from_tensor_slices((ROWS, LABELS)).batch(7),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_yields_the_examples_in_their_order(form):
    inputs, labels = arrays(to_dataset(FORMS[form], model_of_rows()))
    np.testing.assert_allclose(inputs, ROWS)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("third", ["weights", "named"])
def test_the_index_of_a_frame_stays_its_ids_beside_sample_weights(third):
    weights = pd.Series(np.linspace(0, 1, 60), index=FRAME.index + 5)
    given = (
        FRAME.set_index(FRAME.index + 5),
        LABELS,
        {"sample_weight": weights} if third == "named" else weights,
    )
    batch = data.unpack(next(iter(to_dataset(given, model_of_rows()))))
    np.testing.assert_allclose(batch.sample_weight, weights)
    np.testing.assert_array_equal(batch.ids, np.arange(5, 65))


def test_sample_weights_that_are_negative_are_refused_by_position():
    weights = np.where(np.arange(60) == 33, -1.0, 1.0)
    with pytest.raises(ValueError, match=r"not negative.*indices=\[33\]"):
        to_dataset((ROWS, LABELS, weights), model_of_rows())


def test_a_dataset_is_taken_as_it_is():
    assert to_dataset(FORMS["dataset"], model_of_rows()) is FORMS["dataset"]


def test_columns_are_inputs_of_their_name():
    frame = pd.DataFrame({"age": [1.0, np.nan], "colour": ["red", None], "unused": [0, 0]})
    model = model_of_columns()
    (inputs, _), *_ = to_dataset((frame, [0, 1]), model)
    assert set(inputs) == {"age", "colour"}
    np.testing.assert_array_equal(inputs["age"], [1.0, np.nan])
    assert inputs["colour"].numpy().tolist() == [b"red", b""]
    assert np.isfinite(model({"age": inputs["age"][:1], "colour": inputs["colour"][:1]})).all()
    assert column_names((frame, [0, 1]), model) is None


def test_columns_of_rows_keep_their_names():
    assert column_names((FRAME, LABELS), model_of_rows()) == ["a", "b", "c"]
    assert column_names((ROWS, LABELS), model_of_rows()) is None


def test_inputs_without_labels_and_with_ids_are_taken():
    (inputs,) = to_dataset((ROWS,), model_of_rows())
    np.testing.assert_array_equal(inputs, ROWS)
    *_, ids = arrays(to_dataset((ROWS, LABELS, np.arange(60) + 7), model_of_rows()))
    np.testing.assert_array_equal(ids, np.arange(60) + 7)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((ROWS, LABELS[:-1]), ValueError, r"lengths=\[60, 59\]"),
        ((ROWS[:0], LABELS[:0]), ValueError, "one example at least"),
        (ROWS, TypeError, r"a tuple of arrays.*type='ndarray'"),
        ((), TypeError, "a tuple of arrays"),
        ((pd.DataFrame({"a": ["x", "y"]}), [0, 1]), TypeError, r"no numbers=\['a'\]"),
        ((FRAME.assign(a=pd.Timestamp(0), b=1j), LABELS), TypeError, r"dates too.*no numbers=\['a', 'b'\]"),
        (([[1, 2], [1]], [0, 1]), ValueError, "several lengths.*pad_sequences"),
        ((pd.Series([[1, 2], [1]]), [0, 1]), ValueError, "several lengths.*padded_batch"),
        ((tf.ragged.constant([[1, 2], [1]]), [0, 1]), TypeError, "to_tensor"),
        ((["a", "b"], [0, 1]), TypeError, "must be numbers.*encode"),
    ],
)
def test_what_is_no_data_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        to_dataset(given, model_of_rows())


def test_label_issues_are_the_same_of_every_form():
    model = model_of_rows()
    first, *others = (
        label_issues(model, FORMS[form], progress=False) for form in ("dataset", "frame", "PyDataset")
    )
    for other in others:
        np.testing.assert_allclose(other.scores, first.scores, rtol=1e-3, atol=1e-3)


def test_an_audit_of_a_frame_shows_its_columns():
    report = audit(
        model_of_rows(),
        (FRAME[:40], LABELS[:40]),
        (FRAME[40:], LABELS[40:]),
        relevance=None,
        k=2,
        progress=False,
    )
    assert list(report.input_names) == ["a", "b", "c"]
    assert report.overview.num_train == 40 and report.overview.num_test == 20


def test_a_comparison_takes_arrays():
    found = compare(
        model_of_rows(),
        (ROWS[:40], LABELS[:40]),
        (ROWS[40:],),
        methods=["graddot", "gradcos"],
        k=2,
        progress=False,
    )
    assert found.num_queries == 20


def test_columns_of_the_test_set_take_the_order_of_the_training_set():
    test = FRAME[["c", "a", "b"]]
    found = to_datasets({"train": (FRAME, LABELS), "test": (test, LABELS)}, model_of_rows())
    for dataset in found.values():
        np.testing.assert_allclose(arrays(dataset)[0], ROWS)


def test_columns_of_labels_take_the_order_of_the_training_set():
    labels = pd.DataFrame({"price": [1.0, 2.0], "rooms": [3.0, 4.0]})
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    inputs = np.zeros((2, 1), "float32")
    sets = {"train": (inputs, labels), "test": (inputs, labels[["rooms", "price"]])}
    found = [next(iter(dataset))[1].numpy() for dataset in to_datasets(sets, model).values()]
    np.testing.assert_array_equal(found[1], found[0])
    with pytest.raises(ValueError, match="labels of `test` must have the columns"):
        to_datasets({**sets, "test": (inputs, labels.rename(columns={"rooms": "area"}))}, model)


@pytest.mark.parametrize("nest", [dict, tuple])
def test_labels_of_several_outputs_are_taken_as_they_are_nested(nest):
    price, rooms = np.array([1.5, 2.5, 3.5]), np.array([0, 1, 2])
    labels = {"price": price, "rooms": rooms} if nest is dict else (price, rooms)
    [(_, found)] = to_dataset((np.zeros((3, 1), "float32"), labels), model_of_rows())
    np.testing.assert_array_equal(found["rooms" if nest is dict else 1], rooms)
    with pytest.raises(ValueError, match="one length"):
        to_dataset((np.zeros((2, 1), "float32"), labels), model_of_rows())


def test_other_columns_in_the_test_set_are_refused():
    with pytest.raises(ValueError, match=r"columns of `test`.*'d'"):
        to_datasets(
            {"train": (FRAME, LABELS), "test": (FRAME.rename(columns={"a": "d"}), LABELS)}, model_of_rows()
        )


def test_a_list_of_texts_is_one_input():
    texts = list(np.array(["a good film", "a bad film"]))
    (inputs, _), *_ = to_dataset((texts, [0, 1]), model_of_texts())
    assert inputs.numpy().tolist() == [b"a good film", b"a bad film"]


def test_the_index_of_a_frame_is_its_ids():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}, index=["x", "y"])
    *_, ids = arrays(to_dataset((frame, np.array([0, 1])), model_of_rows()))
    assert ids.tolist() == [b"x", b"y"]


@pytest.mark.parametrize("index", [[5, 2], pd.MultiIndex.from_tuples([("x", 1), ("x", 2)]), [0.5, 1.5]])
def test_any_index_becomes_ids(index):
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=index)
    ids = index_ids(frame)
    assert len(set(ids.tolist())) == 2 and ids.dtype.kind in "iU"


def test_the_default_index_is_no_ids():
    assert index_ids(pd.DataFrame({"a": [1.0, 2.0]})) is None


def test_ids_that_are_given_come_before_the_index():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}, index=[8, 9])
    *_, ids = arrays(to_dataset((frame, np.array([0, 1]), np.array([5, 6])), model_of_rows()))
    assert ids.tolist() == [5, 6]


def test_missing_labels_are_named_by_set_and_position():
    with pytest.raises(ValueError, match=r"missing.*dataset='train', indices=\[1\]"):
        to_dataset((np.zeros((3, 2)), np.array([0, np.nan, 1])), model_of_rows(), name="train")


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([0, 1] * 4, dtype="Int64"),
        np.array([0, 1] * 4, object),
        pd.DataFrame({"a": [0, 1] * 4, "b": [1, 0] * 4}).astype("Int64"),
    ],
    ids=["nullable", "objects", "nullable columns"],
)
def test_labels_that_pandas_holds_as_objects_are_numbers(labels):
    _, found = next(to_dataset((np.zeros((8, 2)), labels), model_of_rows()).as_numpy_iterator())
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, np.asarray(labels).astype(int))


def test_labels_of_several_lengths_are_refused():
    ragged = np.empty(2, object)
    ragged[:] = [[0, 1], [1]]
    with pytest.raises(TypeError, match="one length"):
        to_dataset((np.zeros((2, 2)), ragged), model_of_rows())


def test_labels_of_the_same_index_in_another_order_are_refused():
    inputs = pd.DataFrame(np.zeros((4, 2)), index=["a", "b", "c", "d"])
    labels = pd.Series([0, 1, 0, 1], index=["a", "b", "d", "c"])
    check_same_index(inputs, labels.loc[inputs.index], "the labels")
    check_same_index(inputs, labels.reset_index(drop=True), "the labels")
    with pytest.raises(ValueError, match=r"y\.loc\[x\.index\]"):
        check_same_index(inputs, labels, "the labels")


TEXTS = ["good", None, "bad film"]


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        np.array(["good", np.nan, "bad film"], dtype=object),
        pd.Series(TEXTS),
        pd.Series(TEXTS, dtype="string"),
        pd.Series(TEXTS, dtype="category"),
        pd.DataFrame({"review": TEXTS}),
    ],
    ids=["list", "array", "Series", "nullable", "category", "frame of one column"],
)
def test_texts_are_taken_in_every_form_and_those_missing_are_empty(given):
    (inputs, _), *_ = to_dataset((given, [1, 0, 1]), model_of_texts())
    assert inputs.numpy().tolist() == [b"good", b"", b"bad film"]


def test_columns_are_taken_as_the_model_takes_them_whatever_they_look_like():
    frame = pd.DataFrame({"age": pd.array([3, None], "Int64"), "colour": ["07", "1.0"]})
    for form in (frame, {name: frame[name] for name in frame}, {name: list(frame[name]) for name in frame}):
        (inputs, _), *_ = to_dataset((form, [0, 1]), model_of_columns())
        np.testing.assert_array_equal(inputs["age"], [3.0, np.nan])
        assert inputs["colour"].numpy().tolist() == [b"07", b"1.0"]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"age": [1, 2], "colour": [1, 2]}, TypeError, r"data\['colour'\]` must be texts"),
        ({"age": ["old", "new"], "colour": ["a", "b"]}, TypeError, r"data\['age'\]` must be numbers"),
        ({"age": pd.to_datetime([0, 1]), "colour": ["a", "b"]}, TypeError, r"data\['age'\]` must be numbers"),
        ({"age": [1, 2], "color": ["a", "b"]}, ValueError, r"rename.*no columns=\['colour'\]"),
    ],
)
def test_a_column_that_the_model_cannot_read_is_named(columns, error, message):
    with pytest.raises(error, match=message):
        to_dataset((pd.DataFrame(columns), [0, 1]), model_of_columns())


def test_the_index_of_a_series_is_its_ids_and_that_of_the_labels():
    texts = pd.Series(["a", "b", "c"], index=["x", "y", "z"])
    *_, ids = arrays(to_dataset((texts, [0, 1, 0]), model_of_texts()))
    assert ids.tolist() == [b"x", b"y", b"z"]
    with pytest.raises(ValueError, match=r"y\.loc\[x\.index\]"):
        to_dataset((texts, pd.Series([0, 1, 0], index=["z", "y", "x"])), model_of_texts())


def test_columns_of_one_name_are_refused_by_name():
    frame = pd.DataFrame(ROWS, columns=["a", "b", "a"])
    with pytest.raises(ValueError, match=r"different names.*\['a'\]"):
        to_datasets({"train": (frame, LABELS)}, model_of_rows())


@pytest.mark.parametrize("form", [list, np.array, lambda names: pd.Series(names, index=range(5, 65))])
def test_labels_that_are_names_are_numbered_by_the_names_of_the_classes(form):
    names = ["no", "yes"]
    own = (ROWS, form([names[label] for label in LABELS]))
    found = to_datasets({"train": own}, model_of_rows(), class_names=names)["train"]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found.as_numpy_iterator()]), LABELS)
    with pytest.raises(ValueError, match=r"does not have all.*labels=\['no'\]"):
        to_datasets({"train": own}, model_of_rows(), class_names=["yes", "perhaps"])
