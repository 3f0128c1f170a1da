"""Models trained on random parts of a training set, for ensembles of calculators."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import _files, data
from deel_dualview._checks import check_count, check_positive, check_seed, describe, require
from deel_dualview.search.gathering import draw_examples, drawn_positions

_MANIFEST = "subsets.json"

TrainFunction = Callable[[tf.data.Dataset, int], keras.Model]
"""What trains a model on a batched dataset, with a seed."""


class SubsetModel(NamedTuple):
    """A model and what it was trained on.

    Attributes:
        model: trained.
        indices: positions in the training set of the examples that it has seen, ascending, shape (s,), int64.
    """

    model: keras.Model
    indices: np.ndarray


def train_on_subsets(
    train_function: TrainFunction,
    train_set: tf.data.Dataset,
    *,
    num_models: int = 5,
    share: float = 0.5,
    seed: int = 0,
    directory: str | Path | None = None,
) -> list[SubsetModel]:
    """Train models on random subsets of a training set, each drawn without replacement, for an `Ensemble`.

    It costs as much as `num_models` trainings on `share` of the examples. With a directory every finished model is
    kept, and an interrupted call goes on where it was; a later call may add models.

    Args:
        train_function: trains a model from scratch on a batched dataset of a subset, in the order of the training set
            and held in memory (shuffle it), with a seed for its initial weights and order, and returns it. Its code is
            not compared: give another directory when it changes.
        train_set: batched.
        num_models: how many.
        share: of the examples in each subset, above 0 and up to 1.
        seed: of the subsets and, plus the number of the model, of each training.
        directory: where models are kept as `subset-NUMBER.keras`, written whole or not at all.

    Returns:
        The models in order, with the positions of their examples.

    Raises:
        TypeError: `train_function` is no function of a dataset and a seed, or returns no Keras model.
        ValueError: bad settings, a directory of models of other data, shares or seeds, or a damaged model in it; a
            model that cannot be kept, since it could not be loaded again.

    Example:
        >>> found = train_on_subsets(train_function, train, num_models=5)
        >>> Ensemble([FirstOrderInfluenceCalculator(one.model, train) for one in found])
    """
    _check_function(train_function)
    num_models, seed = check_count("num_models", num_models), check_seed("seed", seed)
    require(check_positive("share", share) <= 1, "`share` must be at most 1, all examples.", {"share": share})
    data.check_bounded(train_set, "train_set")
    contents = _contents(train_set)
    num_drawn = max(1, round(share * contents["num_examples"]))
    kept = (
        None if directory is None else _prepared(Path(directory), contents | {"share": share, "seed": seed})
    )
    batch_size = data.num_examples(data.unpack(data.first_batch(train_set, "train_set"))[:2])
    found = []
    for number in range(num_models):
        own_seed = seed + number
        indices = drawn_positions(contents["num_examples"], num_drawn, own_seed)
        path = None if kept is None else kept / f"subset-{number}.keras"
        if path is not None and path.exists():
            found.append(SubsetModel(_loaded(path), indices))
            continue
        subset = draw_examples(train_set, num_drawn, seed=own_seed, batch_size=batch_size)
        model = train_function(subset, own_seed)
        if not isinstance(model, keras.Model):
            raise TypeError(
                describe("`train_function` must return a Keras model.", {"returned": type(model).__name__})
            )
        if path is not None:
            _save(model, path)
        found.append(SubsetModel(model, indices))
    return found


def _check_function(train_function: TrainFunction) -> None:
    """Raise a TypeError for what cannot be called with a dataset and a seed."""
    is_function = callable(train_function) and not isinstance(train_function, keras.Model)
    try:
        if is_function:
            inspect.signature(train_function).bind(None, 0)
    except (TypeError, ValueError):  # no signature is known of some that are built in
        is_function = False
    if not is_function:
        raise TypeError(
            describe(
                "`train_function` must be a function of a batched dataset and a seed that returns a trained model.",
                {"train_function": train_function},
            )
        )


def _loaded(path: Path) -> keras.Model:
    try:
        return keras.models.load_model(path)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be loaded: if it is damaged, delete it, and it is trained again; if it has classes of your "
            "own, import them first, registered by keras.saving.register_keras_serializable."
        ) from error


def _save(model: keras.Model, path: Path) -> None:
    """Write a model whole or not at all, and one that cannot be loaded again not at all."""
    with _files.written_aside(path) as aside:
        model.save(aside)
        try:
            keras.models.load_model(aside)
        except Exception as error:
            raise ValueError(
                "This model could not be loaded again from `directory`: register its classes by "
                "keras.saving.register_keras_serializable, or train without a directory."
            ) from error


def _contents(train_set: tf.data.Dataset) -> dict[str, Any]:
    """Return what a training set holds: number of examples and a hash of all."""
    digest, num_examples = hashlib.blake2b(digest_size=16), 0
    for indices, element in data.enumerate_examples(train_set):
        digest.update(np.ascontiguousarray(data.hash_examples(element)).tobytes())
        num_examples += len(indices)
    return {"num_examples": num_examples, "contents": digest.hexdigest()}


def _prepared(directory: Path, settings: dict[str, Any]) -> Path:
    """Return a directory of models of these settings, made if need be.

    Raises:
        ValueError: it holds models of others.
    """
    require(
        directory.is_dir() or not directory.exists(),
        "`directory` must be one, and a file is there.",
        {"directory": str(directory)},
    )
    directory.mkdir(parents=True, exist_ok=True)
    _files.remove_unfinished(directory)
    manifest = directory / _MANIFEST
    if not manifest.exists():
        _files.write_checked_json(manifest, settings)
    known = {name: value for name, value in _files.read_checked_json(manifest).items() if name != "sha256"}
    require(
        known == settings,
        "This directory holds models of other examples, shares or seeds: give another one.",
        {"directory": str(directory), "of the directory": known, "now": settings},
    )
    return directory
