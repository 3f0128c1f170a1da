"""A model's layers, settings and wiring as text: the same for equal models, whatever Keras named their layers."""

import hashlib
import tempfile
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview.models import tracing
from deel_dualview.models.keras_graph import Ref, wiring

# Automatic names count up through the process; seeds and initial values play no part once weights are known, and
# what is frozen plays none at inference: keys of gradients say which weights they are taken in.
_IGNORED = ("name", "seed", "trainable")
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


class Architecture:
    """Describes a model without its weights.

    Attributes:
        text: one line for each layer and each call of one.
        is_complete: whether the text says all that the model computes: it does where all code is Keras' own.
    """

    def __init__(self, model: keras.Model) -> None:
        self.is_complete = True
        self._layers = [model, *tracing.all_layers(model)]
        self._numbers = {id(layer): number for number, layer in enumerate(self._layers)}
        self.text = "\n".join(line for layer in self._layers for line in self._lines(layer))

    def _lines(self, layer: keras.Layer) -> Iterator[str]:
        children = [self._numbers[id(child)] for child in layer._flatten_layers(False, recursive=False)]
        calls = wiring(layer)
        is_container = bool(calls) or isinstance(layer, keras.Sequential)
        settings = "" if is_container else self._settings(layer)
        yield f"{self._kind(layer)} layers={children} {settings}"
        yield from _assets(layer)
        for operation, arguments in calls:
            yield f"{self._called(operation)} {self._text(arguments)}"

    def _called(self, operation: Any) -> str:
        number = self._numbers.get(id(operation))
        if number is not None or operation is None:
            return f"call of {number}"
        return f"{self._kind(operation)} {self._settings(operation)}"

    def _kind(self, operation: Any) -> str:
        self._rely_on(type(operation))
        is_patched = "call" in vars(operation)
        self.is_complete &= not is_patched and not isinstance(operation, keras.layers.Lambda)
        return type(operation).__name__

    def _rely_on(self, code: Any) -> None:
        """Note whether a class or function is one that its name describes."""
        package = (getattr(code, "__module__", None) or "").split(".")[0]
        self.is_complete &= package in ("keras", "tensorflow", "numpy", "deel_dualview")

    def _settings(self, operation: Any) -> str:
        try:
            with warnings.catch_warnings():
                # Keras warns that it writes lambdas down.
                warnings.simplefilter("ignore")
                config = operation.get_config()
        except Exception:  # Whatever the user's own code raises.
            self.is_complete = False
            return "unknown"
        # As functions where they are: the text that Keras makes of one holds its file and line.
        live = {key: value for key, value in vars(operation).items() if isinstance(value, _FUNCTIONS)}
        kept = {key: live.get(key, value) for key, value in config.items()}
        return self._text({key: value for key, value in kept.items() if not _is_ignored(key)})

    def _text(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return self._text_of_mapping(value)
        if isinstance(value, list | tuple):
            return "[" + ", ".join(self._text(item) for item in value) + "]"
        if isinstance(value, np.ndarray | np.generic | keras.Variable) or tf.is_tensor(value):
            # As lists of Python numbers, which is what a file brings back.
            return self._text(np.asarray(value).tolist())
        if value is None or isinstance(value, str | bytes | bool | int | float | tf.DType):
            return repr(value)
        if isinstance(value, Ref):
            return f"tensor {value.index}"
        if isinstance(value, keras.KerasTensor):
            return f"tensor of {value.shape} {value.dtype}"
        if isinstance(value, _FUNCTIONS):
            self._rely_on(value)
            return value.__name__.replace("<lambda>", "function")
        self._rely_on(type(value))
        described = value.get_config() if hasattr(value, "get_config") else None
        return f"{type(value).__name__} {self._text(described)}"

    def _text_of_mapping(self, value: Mapping[str, Any]) -> str:
        kind, config = value.get("class_name"), value.get("config")
        if kind in ("function", "__lambda__"):
            self.is_complete = False
            return "function"
        if kind is not None and isinstance(config, Mapping):
            if kind in ("__numpy__", "__tensor__"):
                return self._text(config["value"])
            # An object that Keras wrote down; a layer in it is one of the model's, and has lines of its own.
            is_layer = "trainable" in config
            return f"{kind} {'' if is_layer else self._text(config)}"
        return "{" + ", ".join(f"{key!r}: {self._text(value[key])}" for key in sorted(value, key=str)) + "}"


def digest(parts: Iterable[bytes]) -> str:
    """Return a hexadecimal hash of bytes, in their order."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _is_ignored(key: str) -> bool:
    return key in _IGNORED or key.endswith("_initializer")


def _assets(layer: keras.Layer) -> Iterator[str]:
    """Yield what Keras saves of a layer beside settings and weights, such as a vocabulary that was adapted."""
    if not hasattr(layer, "save_assets"):
        return
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            yield f"{path.name} {digest([path.read_bytes()])}"
