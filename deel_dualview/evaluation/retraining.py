"""Models trained again on parts of the training set, for metrics that compare attributions with the truth."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import keras
import numpy as np
import scipy.special
import tensorflow as tf

from deel_dualview import _files
from deel_dualview._checks import require
from deel_dualview.calculators.last_layer import LastLayer
from deel_dualview.evaluation.trained_models import Subject
from deel_dualview.evaluation.waiting import made_once
from deel_dualview.models import InfluenceModel
from deel_dualview.models.heads import Head

PENALTY = 1e-5
"""lambda of the last layer's lambda ||W||^2, in units of the mean squared norm of the features."""
_BATCH = 512
_ARCHITECTURE = "model.txt"


class Retrainer(Protocol):
    """What trains on some examples, for the log-probabilities (m, c) of test examples."""

    def log_probabilities(self, kept: np.ndarray) -> np.ndarray: ...


class HeadRetrainer:
    """Trains the last layer again on the mean loss of some training examples; see `LastLayer`.

    Args:
        model: whose features are taken.
        train_set: all training examples, batched.
        test_inputs: of all test examples.
    """

    def __init__(self, model: InfluenceModel, train_set: tf.data.Dataset, test_inputs: np.ndarray):
        parts = [(model.features(inputs).numpy(), model.to_classes(labels)) for inputs, labels in train_set]
        features, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
        batches = tf.data.Dataset.from_tensor_slices(test_inputs).batch(_BATCH)
        self._test_features = np.concatenate([model.features(one).numpy() for one in batches])
        self._layer, self._num_train = LastLayer(model, features, classes), len(features)
        self.penalty = PENALTY * self._layer.mean_squared_norm

    def weights(self, kept: np.ndarray | slice) -> np.ndarray:
        """Return the weights on the features of the model trained on some examples, shape (d, c)."""
        sample_weight = np.zeros(self._num_train, np.float32)
        sample_weight[kept] = 1
        # The mean is over the kept examples.
        return self._layer.fit(sample_weight / sample_weight.mean(), self.penalty)

    def log_probabilities(self, kept: np.ndarray) -> np.ndarray:
        """Return the log-probabilities of all test examples after training on some examples, shape (m, c)."""
        logits = self._layer.outputs(self._test_features, self.weights(kept))
        return scipy.special.log_softmax(logits, axis=1)


def with_converged_head(chosen: Subject, folder: pathlib.Path | None = None) -> Subject:
    """Return a subject whose last layer is the optimum on its features, as `HeadRetrainer` finds it.

    Args:
        chosen: whose features are taken.
        folder: where the layer is kept: the last digits of an optimum depend on the number of threads, and results
            on the one and the other would be of two models.

    Raises:
        ValueError: the model does not end in a Dense layer of one output a class.
    """
    model = InfluenceModel(chosen.model)
    first = next(iter(chosen.train))[0]
    model.prepare(first)
    head = model.split.head
    require(
        head is not None and head.units == model.num_classes and head == Head(head.layer),
        "Only a last Dense layer of one output a class, with nothing after it, can be trained again.",
        {"feature_layer": model.feature_layer},
    )

    def train() -> np.ndarray:
        return HeadRetrainer(model, chosen.train, np.asarray(first)).weights(slice(None)).astype(np.float32)

    weights = train() if folder is None else _kept(folder / f"head-{model.fingerprint}.npy", train)
    copy = keras.models.clone_model(chosen.model)
    copy.set_weights(chosen.model.get_weights())
    twin: Any = cast(Head, InfluenceModel(copy).split.head).layer
    num_inputs = twin.kernel.shape[0]
    twin.set_weights([weights[:num_inputs], *([weights[num_inputs]] if twin.bias is not None else [])])
    return dataclasses.replace(chosen, model=copy)


class KeptOutputs:
    """Outputs of models trained on subsets, on disk: trained once for all methods and processes, and resumed.

    Args:
        folder: where they are kept.
        model: fingerprint of the model that they belong to.

    Raises:
        ValueError: the folder holds outputs of another model.
    """

    def __init__(self, folder: pathlib.Path, model: str):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _ARCHITECTURE
        known = path.read_text(encoding="utf-8") if path.exists() else model
        require(
            known == model,
            "The outputs kept here are of subsets for another model, or for another architecture: give another folder "
            "of models, or remove these outputs.",
            {"folder": str(folder)},
        )
        if not path.exists():  # other processes may read it just now
            _files.write_file(path, model.encode())

    def get(self, kept: np.ndarray, retrainer: Retrainer) -> np.ndarray:
        """Return the log-probabilities (m, c) of the model trained on some examples, trained now if need be."""
        return self.get_by(np.asarray(kept, np.int64), lambda: retrainer.log_probabilities(kept))

    def get_by(self, key: np.ndarray, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the outputs, as float32, of the model that an array distinguishes, computed now if need be."""
        name = hashlib.blake2b(key.tobytes(), digest_size=8).hexdigest()
        return _kept(self.folder / f"{name}.npy", lambda: compute().astype(np.float32))


def _kept(path: pathlib.Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array in a file, computed by one process and written whole or not at all, if there is none."""
    found = _read(path)
    if found is not None:
        return found
    with made_once(path.parent / "outputs", "outputs of models that are trained again"):
        found = _read(path)
        if found is not None:
            return found
        array = compute()
        _files.remove_unfinished(path.parent)
        with _files.written_aside(path) as aside:
            np.save(aside, array, allow_pickle=False)
    return array


def _read(path: pathlib.Path) -> np.ndarray | None:
    """Return the array in a file, None if there is no file."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: delete it, and it is computed again.") from error
