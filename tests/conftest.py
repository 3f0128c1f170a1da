"""Settings and fixtures that every test shares."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Two processes of two threads share two cores: threads of OpenMP that wait by spinning take them from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest

LONGEST = [
    "test_contract_of_data.py",
    "test_contract.py",
    "test_survive_kills.py",
    "test_reproductions.py",
    "test_threads.py",
    "test_readme.py",
    "test_docs.py",
    "test_label_issue_benchmark.py",
    "test_cli.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process waits for another at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def no_search_of_imported_modules_for_garbage() -> None:
    """Leave what was imported and collected out of garbage collection."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(autouse=True)
def no_seed_of_another_test() -> None:
    """Forget TensorFlow's global seed, under which random augmentation repeats itself at every pass.

    Only if there is one: setting a seed has every kernel and `tf.function` instantiated again, for 10 ms each.
    """
    import tensorflow as tf

    if tf.compat.v1.get_seed(None)[0] is not None:
        tf.random.set_seed(None)


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with a fixed seed, new for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def keras_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed Python, NumPy and Keras, so that layers start from the same weights in every run.

    Not TensorFlow, by whose seed training shuffles: see `no_seed_of_another_test`.
    """
    import keras

    with monkeypatch.context() as patch:
        patch.setattr("tensorflow.random.set_seed", lambda seed: None)
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def tfds_directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A TFDS data directory in which `mnist` is prepared: the embedded digits, padded to 28 x 28.

    A fifth of the size and none of the pixels of the true MNIST, but read by TFDS's own MNIST builder.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from deel_dualview import load_digits

    def examples(images: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
        large = np.kron(images * 255, np.ones((1, 3, 3, 1))).astype(np.uint8)
        large = np.pad(large, ((0, 0), (2, 2), (2, 2), (0, 0)))
        return tf.data.Dataset.from_tensor_slices({"image": large, "label": labels})

    directory = str(tmp_path_factory.mktemp("tfds"))
    train, test = load_digits()
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={"train": examples(*train), "test": examples(*test)},
        data_dir=directory,
        disable_shuffling=True,
    )
    return directory
