"""Datasets that a command line names: of TFDS, or of a function."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview._user_code import first_line, import_module, named_errors
from deel_dualview.data.batches import check_batched

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SPEC = re.compile(
    r"(?P<left>[^\[]+):(?P<right>[^:\[]+(\[.*)?)"
)  # mnist:3.0.1:test[:1000] splits before test
_MOST_LISTED = 10
_EXTRA = 'pip install "deel-dualview[tfds]"'


class Source(NamedTuple):
    """A dataset that was found by its name.

    Attributes:
        dataset: batches of `(inputs, labels)` or `(inputs, labels, ids)`.
        class_names: names of the classes, or None where the source does not know them.
        description: what was read, in a few words.
    """

    dataset: tf.data.Dataset
    class_names: list[str] | None
    description: str


def find_source(spec: str, *, name: str, data_dir: str | None = None) -> None:
    """Find what a `NAME:SPLIT` or `package.module:function` means, without reading it, and import the module.

    So it is known before a model is loaded that there is such data, and what the module registers with Keras.

    Args:
        spec: as of `read_dataset`.
        name: the option it came by, for messages.
        data_dir: where TFDS keeps its datasets; what is there, or known to TFDS, is not imported.

    Raises:
        ValueError: nothing of that name, or the module's code raised an error or called `sys.exit`.
    """
    left, right = _split(spec, name)
    builder, why_not_tfds = _find_builder(left, data_dir)
    if builder is None:
        _check_function(spec, name, why_not_tfds)
        _find_function(left, right, name, why_not_tfds)


def read_dataset(
    spec: str,
    *,
    name: str,
    batch_size: int,
    data_dir: str | None = None,
    download: bool = False,
    function: str | None = None,
) -> Source:
    """Find a dataset by `NAME:SPLIT` of TFDS, or by `package.module:function`.

    A name that TFDS knows, or that is prepared in `data_dir`, is TFDS's; any other is imported, from the
    current directory too.

    Args:
        spec: for instance `"mnist:test[:1000]"` or `"my_data:train"`.
        name: the option it came by, `"train"` or `"test"`, for messages.
        batch_size: of TFDS datasets and of arrays; a function that returns a dataset batches by itself.
        data_dir: where TFDS keeps its datasets; None for its own default.
        download: whether TFDS may fetch a dataset that is not there.
        function: `package.module:function`, called with the inputs of one TFDS example, returns what the model takes.

    Raises:
        ValueError: nothing of that name, it is not in `data_dir`, or what was found is not a batched dataset of
            inputs and labels.
    """
    left, right = _split(spec, name)
    builder, why_not_tfds = _find_builder(left, data_dir)
    if builder is not None:
        mapped = None if function is None else find_mapping(function)
        return _read_tfds(builder, right, name, batch_size, download, mapped)
    if function is not None:
        raise ValueError(
            f"--map is for datasets of TFDS: let {spec} return what the model takes. Received: {function!r}."
        )
    _check_function(spec, name, why_not_tfds)
    return _call_function(left, right, name, why_not_tfds, batch_size)


def _split(spec: str, name: str) -> tuple[str, str]:
    """Return what stands on either side of the colon."""
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise ValueError(
            f"--{name} needs `NAME:SPLIT` of a TFDS dataset (mnist:train) or `package.module:function`. "
            f"Received: {spec!r}."
        )
    return parts["left"], parts["right"]


def _check_function(spec: str, name: str, why_not_tfds: str) -> None:
    if not _FUNCTION.fullmatch(spec):
        raise ValueError(f"--{name}: {why_not_tfds} Received: {spec!r}.")


def _find_builder(name: str, data_dir: str | None) -> tuple[Any | None, str]:
    """Return the builder that TFDS has for `name`, or None and the reason."""
    try:
        import tensorflow_datasets as tfds

        not_found = tfds.core.registered.DatasetNotFoundError
    except ModuleNotFoundError:
        return None, f"TensorFlow Datasets is not installed ({_EXTRA})."
    except Exception as error:  # a broken installation does not stop users of functions
        return None, f"TensorFlow Datasets cannot be imported ({type(error).__name__}: {error})."
    try:
        return tfds.builder(name, data_dir=data_dir), ""
    except not_found:
        folder = (
            "" if data_dir is None else f", nor has {data_dir}, {_describe_folder(pathlib.Path(data_dir))}"
        )
        return None, f"TensorFlow Datasets knows no {name!r}{folder}."
    except (ValueError, AssertionError, TypeError, OSError) as error:
        return None, f"TensorFlow Datasets cannot make {name!r}: {first_line(str(error))}"


def find_mapping(spec: str) -> Callable[..., Any]:
    """Return the function that `--map` names, its errors named.

    Raises:
        ValueError: there is none.
    """
    if not _FUNCTION.fullmatch(spec):
        raise ValueError(f"--map needs `package.module:function`. Received: {spec!r}.")
    module_name, function_name = spec.split(":")
    function = _find_function(module_name, function_name, "map", "That is no dataset.")

    def mapped(inputs: Any) -> Any:
        with named_errors(f"--map: {spec}"):
            return function(inputs)

    return mapped


def _read_tfds(
    builder: Any,
    split: str,
    name: str,
    batch_size: int,
    download: bool,
    mapped: Callable[..., Any] | None,
) -> Source:
    """Read one split, in file order, with TFDS's own ids."""
    import tensorflow_datasets as tfds

    title = builder.info.full_name
    keys = builder.info.supervised_keys
    if keys is None or len(keys) != 2:
        raise ValueError(
            f"--{name}: TFDS declares no (input, label) pair for {title}. Write a function that returns a "
            "batched tf.data.Dataset of (inputs, labels), and name it as package.module:function."
        )
    _prepare(builder, name, download)
    try:
        read_config = tfds.ReadConfig(add_tfds_id=True)
        examples = builder.as_dataset(split=split, shuffle_files=False, read_config=read_config)
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"--{name}: {first_line(str(error))} Received: split={split!r} of {title}."
        ) from error
    if int(examples.cardinality()) == 0:
        raise ValueError(f"--{name}: the split {split!r} of {title} has no example.")
    inputs, labels = keys
    dataset = examples.map(
        lambda example: (_pick(example, inputs), _pick(example, labels), example["tfds_id"])
    )
    if mapped is not None:
        dataset = dataset.map(lambda example, label, tfds_id: (mapped(example), label, tfds_id))
    class_names = getattr(_pick(builder.info.features, labels), "names", None)
    return Source(dataset.batch(batch_size), class_names, f"TFDS {title}, split {split}")


def _prepare(builder: Any, name: str, download: bool) -> None:
    """Check that a dataset is in the data directory, or download it.

    Raises:
        ValueError: it is not there, or with whatever went wrong (a network, a disk, a package that the dataset needs).
    """
    if builder.is_prepared():
        return
    title = builder.info.full_name
    if not download:
        # The data directory is above the folders of the dataset's name, its configuration and its version.
        directory = pathlib.Path(str(builder.data_path)).parents[title.count("/")]
        raise ValueError(
            f"--{name}: {title} is not in the TFDS directory {directory}, {_describe_folder(directory)}. Say by "
            "--data-dir where it is; or fetch it: give --download (audit, compare), or run "
            f"`tfds build {title.partition('/')[0]} --data_dir {directory}`."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(
            f"--{name}: {title} is not in the TFDS directory, and downloading it failed. Say "
            f"by --data-dir where it is. TFDS looked for {builder.data_path} and raised "
            f"{type(error).__name__}: {first_line(str(error))}"
        ) from error


def _describe_folder(directory: pathlib.Path) -> str:
    """Say what is in a folder, at most ten names."""
    if not directory.is_dir():
        return "which does not exist"
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        return f"which cannot be read ({error.strerror})"
    listed = ", ".join(repr(name) for name in names[:_MOST_LISTED])
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"which holds {listed}{more}" if names else "which is empty"


def _pick(example: Any, key: Any) -> Any:
    """Take a feature, or a nest of features, by TFDS's supervised key."""
    if isinstance(key, tuple):
        return tuple(_pick(example, part) for part in key)
    if isinstance(key, dict):
        return {part: _pick(example, inner) for part, inner in key.items()}
    for part in key.split("/"):
        example = example[part]
    return example


def _call_function(
    module_name: str, function_name: str, name: str, why_not_tfds: str, batch_size: int
) -> Source:
    """Import a function, from the current directory too, and call it."""
    title = f"{module_name}:{function_name}"
    function = _find_function(module_name, function_name, name, why_not_tfds)
    with named_errors(f"--{name}: {title}"):
        dataset = function()
    if (
        isinstance(dataset, tuple)
        and len(dataset) in (2, 3)
        and all(hasattr(part, "shape") for part in dataset)
    ):
        with named_errors(f"--{name}: {title}"):
            dataset = tf.data.Dataset.from_tensor_slices(tuple(map(np.asarray, dataset))).batch(batch_size)
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            f"--{name}: {title} must return arrays (inputs, labels), or a batched tf.data.Dataset of them "
            f"(tf.data.Dataset.from_generator makes one of a generator). Received: a {type(dataset).__name__}."
        )
    check_batched(dataset, name)
    return Source(dataset, None, f"function {title}")


def _find_function(
    module_name: str, function_name: str, name: str, why_not_tfds: str
) -> Callable[..., object]:
    """Import a module, from the current directory too, and return its function."""
    try:
        module = import_module(module_name, f"--{name}")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--{name}: '{module_name}:{function_name}' is neither a dataset of TFDS nor a function. As NAME:SPLIT: "
            f"{why_not_tfds} As module:function: there is no module {error.name!r}, in the current directory either."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"--{name}: the module {module_name!r} has no function {function_name!r}.")
    return function
