"""Which axes of an EinsumDense layer are examples, positions, inputs and outputs of its kernel."""

import string
from typing import NamedTuple

import keras
import tensorflow as tf

from deel_dualview.gradients.patches import flatten_positions


class EinsumAxes(NamedTuple):
    """The letters of an equation `inputs,kernel->outputs`, ellipses written out; an example's comes first."""

    inputs: str
    kernel: str
    outputs: str

    @property
    def positions(self) -> str:
        """Letters of the output that the kernel does not have, the example's excepted."""
        return "".join(letter for letter in self.outputs[1:] if letter not in self.kernel)

    @property
    def contracted(self) -> str:
        """Letters of the kernel that are summed over, in its order."""
        return "".join(
            letter for letter in self.kernel if letter in self.inputs and letter not in self.outputs
        )

    @property
    def produced(self) -> str:
        """Letters of the kernel that the inputs lack, in its order."""
        return "".join(
            letter for letter in self.kernel if letter in self.outputs and letter not in self.inputs
        )


def parse(layer: keras.layers.EinsumDense, rank: int | None = None) -> EinsumAxes | None:
    """Return the axes for inputs of a rank (the least by default), None if its kernel is not one matrix.

    None too where a bias varies over other axes than the kernel's outputs, or an axis is not used as such.
    """
    terms, outputs = layer.equation.replace(" ", "").split("->")
    inputs, kernel = terms.split(",")
    num_named = len(inputs.replace("...", ""))
    num_free = ("..." in inputs) if rank is None else rank - num_named
    free = "".join(letter for letter in string.ascii_letters if letter not in layer.equation)[:num_free]
    axes = EinsumAxes(inputs.replace("...", free), kernel, outputs.replace("...", free))
    if "." in kernel or axes.inputs[0] != axes.outputs[0] or axes.inputs[0] in kernel:
        return None
    is_matrix = set(axes.contracted) | set(axes.produced) == set(kernel)
    all_used = set(axes.inputs[1:]) == set(axes.positions) | set(axes.contracted)
    has_plain_bias = layer.bias is None or _bias_letters(layer, axes) == axes.produced
    return axes if is_matrix and all_used and has_plain_bias else None


def to_matrix(tensor: tf.Tensor, letters: str, axes: EinsumAxes, columns: str) -> tf.Tensor:
    """Return inputs or output gradients as (b, t, columns), float32.

    Args:
        tensor: with one axis for each of `letters`.
        letters: of the inputs or of the outputs.
        axes: the equation's axes.
        columns: the letters that become the last axis.
    """
    order = axes.outputs[0] + axes.positions + columns
    tensor = tf.transpose(tf.cast(tensor, tf.float32), [letters.index(letter) for letter in order])
    num_positions = len(axes.positions)
    sizes, width = tf.shape(tensor), tensor.shape[1 + num_positions :].num_elements()
    return flatten_positions(tf.reshape(tensor, (*tf.unstack(sizes[: 1 + num_positions]), width)))


def _bias_letters(layer: keras.layers.EinsumDense, axes: EinsumAxes) -> str:
    """Return the axes of the output over which the bias varies, in the output's order."""
    axes_of_bias = layer.bias_axes or ""
    return "".join(letter for letter in axes.outputs if letter in axes_of_bias)
