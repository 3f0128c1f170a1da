"""One of several outputs of a Keras model: found by name or index, with its labels and its compiled loss."""

from typing import Any, NamedTuple

import keras
import numpy as np

from deel_dualview._checks import describe, require
from deel_dualview.models.inputs import Structure, structure_of
from deel_dualview.models.keras_graph import outputs_of
from deel_dualview.typing import Inputs


class NamedOutput(NamedTuple):
    """An output among those of a model.

    Attributes:
        whole: the model.
        name: of the output: its key in a dict, or what Keras calls it; None where only its index is known.
        place: its index among the flattened outputs; None where only its name is known.
    """

    whole: keras.Model
    name: str | None
    place: int | None

    def alone(self) -> keras.Model:
        """Return a model of the same layers and weights that makes this output only."""
        outputs = outputs_of(self.whole)
        if outputs is None:
            return OneOutput(self.whole, self)
        return keras.Model(self.whole.input, keras.tree.flatten(outputs)[self.place], name=self.whole.name)

    def pick(self, values: Any, what: str) -> Any:
        """Return the part of this output: of a dict by name, of a tuple in the order of the outputs.

        Args:
            values: nested; anything else is returned as it is.
            what: they are, for messages.

        Raises:
            ValueError: there is no such part.
        """
        if isinstance(values, dict):
            require(self.name in values, f"{what} have no entry of this output.", self._received(values))
            return values[self.name]
        if isinstance(values, list | tuple):
            is_known = self.place is not None and self.place < len(values)
            require(is_known, f"{what} have no entry of this output.", self._received(values))
            return values[self.place or 0]
        return values

    def compiled_loss(self) -> Any:
        """Return the loss that the model was compiled with for this output, None for none."""
        loss = getattr(self.whole, "loss", None)
        if isinstance(loss, dict):
            return loss.get(self.name)
        return self.pick(loss, "The compiled losses")

    def _received(self, values: Any) -> dict[str, object]:
        found = sorted(values) if isinstance(values, dict) else f"a tuple of {len(values)}"
        return {"output": self.place if self.name is None else self.name, "found": found}


def find_output(model: keras.Model, output: str | int) -> NamedOutput:
    """Return an output of a model by its name or index.

    Raises:
        TypeError: `output` is neither.
        ValueError: the model has no such output.
    """
    if isinstance(output, bool) or not isinstance(output, str | int | np.integer):
        needed = "`output` must be the name of one of the model's outputs, or its index."
        raise TypeError(describe(needed, {"output": output}))
    names = output_names(model)
    if names is None:
        return (
            NamedOutput(model, output, None)
            if isinstance(output, str)
            else NamedOutput(model, None, int(output))
        )
    index = names.index(output) if output in names else output
    require(
        not isinstance(index, str) and 0 <= index < len(names),
        f"`output` must be one of the model's outputs: {', '.join(names)}.",
        {"output": output},
    )
    return NamedOutput(model, names[int(index)], int(index))


def output_names(model: keras.Model) -> list[str] | None:
    """Return the names of a model's outputs in their order, None of a subclassed model."""
    outputs = outputs_of(model)
    if outputs is None:
        return None
    if isinstance(outputs, dict):
        return ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(outputs)]
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    return list(model.output_names)


class OneOutput(keras.Model):
    """A subclassed model of several outputs, of which one is returned."""

    def __init__(self, whole: keras.Model, output: NamedOutput) -> None:
        super().__init__(name=whole.name)
        self.whole = whole
        self._output = output

    @property
    def _inputs_struct(self) -> Structure:
        """The whole model's inputs, where Keras and `structure_of` look for them."""
        return structure_of(self.whole)

    def call(self, inputs: Inputs, training: bool = False) -> Any:
        return self._output.pick(self.whole(inputs, training=training), "The model's outputs")
