"""Saved Keras models: checked before TensorFlow is imported, loaded with errors that keep Keras' own cause."""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat
import warnings
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST_CAUSE = 400  # characters
# Keras puts the whole configuration of a model into its messages.
_CONFIGURATION = re.compile(r"Full object config:|using config=|config=\{")
_WRAPPERS = ("could not be deserialized properly", "Error when deserializing")
_UNKNOWN = ("Could not locate", "Unknown layer", "Unknown object", "Unknown class")


def check_model_file(path: str | os.PathLike[str]) -> None:
    """Check that a file is there, can be read and is whole as far as its format shows, without TensorFlow.

    Raises:
        ValueError: there is no such file, it cannot be read (the message has the system's reason), or it is neither a
            whole `.keras` file nor an HDF5 file.
    """
    received = f"Received: {os.fspath(path)!r}."
    try:
        mode = os.stat(path).st_mode
        own = pathlib.Path(path)
        if stat.S_ISDIR(mode) and own.suffix != ".keras" and (own / "config.json").exists():
            return  # what `model.save(NAME, zipped=False)` writes
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise ValueError(
                f"A model is a file written by `model.save('NAME.keras')`, and this is {kind}. {received}"
            )
        with open(path, "rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        raise ValueError(
            f"There is no such file; a model is a file written by `model.save('NAME.keras')`. {received}"
        ) from None
    except OSError as error:
        raise ValueError(f"The model cannot be read: {error.strerror}. {received}") from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise ValueError(f"No file can have a name with a NUL character. {received}") from error
    _check_format(pathlib.Path(path), start, received)


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a Keras model with the loss that it was compiled with; code that the file may hold is never run.

    Raises:
        ValueError: there is no such file, it cannot be read or is damaged, it is not a Keras model, it holds Python
            code (a Lambda layer), or it uses a class that is not registered.

    Warns:
        UserWarning: what it was compiled with cannot be loaded, its loss included.
    """
    check_model_file(path)
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the optimizer, which is not used
            return keras.models.load_model(path, safe_mode=True)
    except Exception as error:
        why_not_compiled = f"{_first_cause(error)}"
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ValueError(f"{_why_not_loaded(error, path)} Received: {os.fspath(path)!r}.") from error
    warnings.warn(
        "The model was loaded without what it was compiled with, and is audited by how it ends: as a classifier. If "
        "it is none, name the module of its loss by --import MODULE, or call `audit` in Python with "
        f"InfluenceModel(model, loss_function=LOSS). Keras' error: {why_not_compiled}",
        UserWarning,
        stacklevel=2,
    )
    return model


def _check_format(path: pathlib.Path, start: bytes, received: str) -> None:
    """Refuse what does not begin, or end, as a file of its format does."""
    is_zip = path.suffix == ".keras"
    if is_zip and start == _HDF5_SIGNATURE:
        raise ValueError(
            f"This is an HDF5 file under the name of a .keras file: rename it to NAME.h5. {received}"
        )
    if not is_zip and start[:2] == b"PK":
        raise ValueError(f"This is a .keras file under another name: rename it to NAME.keras. {received}")
    if is_zip and not zipfile.is_zipfile(path):
        raise ValueError(
            "This is no .keras file (a zip archive), or only a part of one: it is damaged. A model is written by "
            f"`model.save('NAME.keras')`. {received}"
        )
    if path.suffix in (".h5", ".hdf5") and start != _HDF5_SIGNATURE:
        raise ValueError(
            f"This is no HDF5 file, or a damaged one; a model is written by `model.save('NAME.keras')`. {received}"
        )


def _why_not_loaded(error: Exception, path: str | os.PathLike[str]) -> str:
    """Return in a few sentences why Keras' loader raised an error, with the first cause in Keras' words."""
    cause = _first_cause(error)
    said = " ".join(_CONFIGURATION.split(str(cause))[0].split()) or "no message"
    said = said if len(said) <= _LONGEST_CAUSE else f"{said[:_LONGEST_CAUSE]} ..."
    quoted = f"Keras' error: {type(cause).__name__}: {said}{_versions(path)}"
    if "safe" in said and "lambda" in said.lower():
        return (
            "This model holds Python code (a Lambda layer or a lambda), which is not run from a file. Replace it by a "
            f"layer of Keras; or, where you trust the file, load it in Python and call `audit`. {quoted}"
        )
    if "unsafe" in said or "safe_mode" in said:
        return f"Where you trust the file, load it in Python with safe_mode=False and call `audit`. {quoted}"
    if isinstance(cause, zipfile.BadZipFile) or "truncated file" in said:
        return f"The file is damaged: save or copy it again. {quoted}"
    if any(word in said for word in _UNKNOWN):
        return (
            "This model uses a function or a class of your own that Keras does not know here. Decorate it with "
            "`@keras.saving.register_keras_serializable()` and name its module by --import MODULE; or load the model "
            f"in Python, with `custom_objects`, and call `audit`. {quoted}"
        )
    return f"Keras could not read this model; a model is written by `model.save('NAME.keras')`. {quoted}"


def _first_cause(error: Exception) -> BaseException:
    """Return the first exception of the chain that is not only Keras' account of a deeper one."""
    cause: BaseException = error
    while any(word in str(cause) for word in _WRAPPERS):
        inner = cause.__cause__ or cause.__context__
        if inner is None:
            break
        cause = inner
    return cause


def _versions(path: str | os.PathLike[str]) -> str:
    """Return a sentence on the version of Keras that wrote the file, where it is known and another one."""
    import keras

    try:
        with zipfile.ZipFile(path) as archive:
            saved = json.loads(archive.read("metadata.json"))["keras_version"]
    except Exception:  # of a damaged archive anything
        return ""
    return "" if saved == keras.__version__ else f" (Saved by Keras {saved}, read by {keras.__version__}.)"
