"""Inputs that a dataset yields, matched with those that a Keras model was built for, as `model.predict` does."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe
from deel_dualview.typing import Inputs

Structure = Any
"""The symbolic inputs of a model, nested as its call wants them; None where it does not know them."""


def structure_of(model: keras.Model) -> Structure:
    """Return the symbolic inputs of a Functional or built Sequential model, else None."""
    functional = getattr(model, "_functional", model) if isinstance(model, keras.Sequential) else model
    structure = getattr(functional, "_inputs_struct", None)
    if isinstance(structure, list | tuple) and len(structure) == 1:
        return structure[0]
    return structure


def used(structure: Structure, given: Inputs, name: str = "inputs") -> list[Any]:
    """Return the tensors that the model reads, in the order of its flattened inputs and of their rank.

    A dict is matched by key, or by the names of the inputs of a model that was built from a list. Keys that the model
    does not use are left out, and a last axis of one is added or removed.

    Args:
        structure: of the model's inputs; None takes all tensors as they are.
        given: tensors, arrays or specs, each (b, ...).
        name: the argument they came by, for the message.

    Raises:
        ValueError: an input is missing, there are too many, a shape is not the model's, or texts stand where it takes
            numbers, or numbers where it takes texts.
    """
    leaves = tf.nest.flatten(given)
    if structure is None:
        return leaves
    found = [leaves[position] for position in _positions(structure, given, name)]
    wanted = keras.tree.flatten(structure)
    fitted = [_of_rank(leaf, want) for leaf, want in zip(found, wanted, strict=True)]
    _check_shapes(structure, wanted, fitted, found, name)
    _check_kinds(wanted, fitted, name)
    return fitted


def arranged(structure: Structure, given: Inputs) -> Inputs:
    """Return what `used` does, nested as the model's call wants it."""
    return given if structure is None else keras.tree.pack_sequence_as(structure, used(structure, given))


def spread(
    structure: Structure, given: Inputs, values: Sequence[tf.Tensor], keeps_shape: Sequence[bool] = ()
) -> Inputs:
    """Return one value (m, ...) for each input that the model reads in the structure and shapes of `given`.

    Tensors that the model does not read get zeros, (m, ...).

    Args:
        structure: of the model's inputs; None where it reads all.
        given: inputs as in `used`.
        values: in the order of `used`.
        keeps_shape: which of the values stay in a shape of their own; none by default.
    """
    leaves, num_rows = tf.nest.flatten(given), tf.shape(values[0])[0]
    positions = range(len(leaves)) if structure is None else _positions(structure, given, "inputs")
    found = dict(zip(positions, values, strict=True))
    kept = {position for position, is_kept in zip(positions, keeps_shape, strict=False) if is_kept}
    shapes = [tf.concat([[num_rows], tf.shape(leaf)[1:]], axis=0) for leaf in leaves]
    parts = [
        found[position]
        if position in kept
        else tf.ensure_shape(
            tf.reshape(found[position], shape) if position in found else tf.zeros(shape),
            [None, *leaf.shape[1:]],
        )
        for position, (leaf, shape) in enumerate(zip(leaves, shapes, strict=True))
    ]
    return tf.nest.pack_sequence_as(given, parts)


def in_place(structure: Structure, given: Inputs, values: Sequence[Any], otherwise: Any) -> Any:
    """Return one value for each input that the model reads in the structure of `given`, `otherwise` for others."""
    places = range(len(tf.nest.flatten(given)))
    found = dict(
        zip(places if structure is None else _positions(structure, given, "inputs"), values, strict=True)
    )
    return tf.nest.pack_sequence_as(given, [found.get(place, otherwise) for place in places])


def _positions(structure: Structure, given: Inputs, name: str) -> list[int]:
    """Return the position among the flattened given inputs of each of the model's."""
    numbered = tf.nest.pack_sequence_as(given, list(range(len(tf.nest.flatten(given)))))
    try:
        return _matched(structure, numbered)
    except _Unmatched as error:
        needed = (
            f"The model takes {_in_words(structure)}, but `{name}` {error}: map the dataset to those, or give another "
            "model."
        )
        raise ValueError(describe(needed, {name: _described(given)})) from None


class _Unmatched(Exception):
    """Says how given inputs differ from the model's, as the end of a sentence."""


def _matched(structure: Structure, given: Any) -> list[int]:
    """Return, flattened, the entry of `given` for every input of the structure."""
    if isinstance(structure, dict):
        return _matched_dict(structure, given)
    if isinstance(structure, list | tuple):
        if isinstance(given, dict):
            names = [getattr(want, "name", None) for want in structure]
            return [
                position
                for want, entry in zip(structure, _entries(given, names), strict=True)
                for position in _matched(want, entry)
            ]
        return _matched_row(list(structure), given)
    if isinstance(given, dict):
        return _matched(structure, *_entries(given, [structure.name]))
    return _matched_row([structure], given) if tf.nest.is_nested(given) else [given]


def _matched_dict(structure: dict[str, Structure], given: Any) -> list[int]:
    # Keras flattens dicts in the order of their sorted keys.
    keys = sorted(structure)
    if isinstance(given, dict):
        entries = _entries(given, keys)
        return [
            position
            for key, entry in zip(keys, entries, strict=True)
            for position in _matched(structure[key], entry)
        ]
    if len(structure) > 1 and list(structure) != keys:
        raise _Unmatched("yields no dict with these names")
    return _matched_row([structure[key] for key in keys], given)


def _matched_row(structures: list[Any], given: Any) -> list[int]:
    entries = list(given) if isinstance(given, list | tuple) else [given]
    if len(entries) != len(structures):
        raise _Unmatched(f"yields {len(entries)} input(s)")
    return [
        position
        for want, entry in zip(structures, entries, strict=True)
        for position in _matched(want, entry)
    ]


def _entries(given: dict[Any, Any], names: Sequence[Any]) -> list[Any]:
    missing = [str(name) for name in names if name not in given]
    if missing:
        raise _Unmatched(f"lacks {', '.join(missing)}")
    return [given[name] for name in names]


def _of_rank(leaf: Any, want: Any) -> Any:
    """Return a tensor or spec with a last axis of one added or removed where that gives the model's rank."""
    if not isinstance(leaf, tf.TensorSpec):
        # Keras refuses tensors and arrays side by side.
        leaf = tf.convert_to_tensor(leaf)
    shape, rank = tf.TensorShape(leaf.shape), len(want.shape)
    if shape.rank is None or shape.rank == rank:
        return leaf
    is_spec = isinstance(leaf, tf.TensorSpec)
    if shape.rank == rank + 1 and shape[-1] == 1:
        return tf.TensorSpec(shape[:-1], leaf.dtype) if is_spec else tf.squeeze(leaf, axis=-1)
    if shape.rank == rank - 1 and shape.rank >= 1 and want.shape[-1] == 1:
        return tf.TensorSpec([*shape, 1], leaf.dtype) if is_spec else tf.expand_dims(leaf, axis=-1)
    return leaf


def _check_shapes(
    structure: Structure, wanted: list[Any], fitted: list[Any], found: list[Any], name: str
) -> None:
    wrong = [
        position
        for position, (leaf, want) in enumerate(zip(fitted, wanted, strict=True))
        if not tf.TensorShape(leaf.shape)[1:].is_compatible_with(tf.TensorShape(want.shape)[1:])
    ]
    if wrong:
        named = "" if len(wanted) == 1 else f" for {', '.join(wanted[index].name for index in wrong)}"
        needed = (
            f"The model takes {_in_words(structure)}, but `{name}` yields other shapes{named}: map the dataset to "
            "those, or give another model."
        )
        raise ValueError(
            f"{needed} Received: examples of shape "
            + ", ".join(_shape_in_words(found[index].shape) for index in wrong)
            + "."
        )


def _check_kinds(wanted: list[Any], fitted: list[Any], name: str) -> None:
    for leaf, want in zip(fitted, wanted, strict=True):
        is_text, takes_text = tf.as_dtype(leaf.dtype) == tf.string, want.dtype == "string"
        if is_text != takes_text:
            advice = (
                "numbers, but `{}` yields texts: encode them first, as when the model was trained"
                if is_text
                else "texts, but `{}` yields numbers: write them as texts, as by `tf.strings.as_string`"
            )
            raise ValueError(
                describe(f"The model takes {advice.format(name)}.", {"input": want.name, "dtype": leaf.dtype})
            )


def _in_words(structure: Structure) -> str:
    """Return the shapes of a model's inputs as text, by name where there are several."""
    wanted = keras.tree.flatten(structure)
    if len(wanted) == 1:
        named = f" under the name {_names(structure)[0]}" * isinstance(structure, dict)
        return f"examples of shape {_shape_in_words(wanted[0].shape)}{named}"
    shapes = [
        f"{name} of shape {_shape_in_words(want.shape)}"
        for name, want in zip(_names(structure), wanted, strict=True)
    ]
    return f"the inputs {', '.join(shapes)}"


def _names(structure: Structure) -> list[str]:
    """Return the name of each input: its key in a dict, else its own."""
    if isinstance(structure, dict) and not any(map(tf.nest.is_nested, structure.values())):
        return sorted(structure)
    return [str(want.name) for want in keras.tree.flatten(structure)]


def _shape_in_words(shape: Any) -> str:
    shape = tf.TensorShape(shape)
    return "?" if shape.rank is None else str(tuple(shape[1:]))


def _described(given: Inputs) -> str:
    """Return the shapes of given examples as text."""
    return str(
        tf.nest.map_structure(lambda leaf: _shape_in_words(getattr(leaf, "shape", np.shape(leaf))), given)
    )
