"""Rule for recurrent layers: back through time, signals receive everything and gates nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deel_dualview.lrp.calls import Call, Rule, mask_of, per_row, ratio, stabilised

layers = keras.layers

RECURRENT = (layers.RNN, layers.Bidirectional)
_NAMES = ("sequences", "initial_state", "mask")


class Moment(NamedTuple):
    """One step in time of a cell, or all of them along leading axes; each tensor (..., units).

        memory = kept + added                 (c of an LSTM; h of the others)
        added  = gate * activation(candidate)

    Attributes:
        states: after the step: h, and c of an LSTM.
        kept: of the memory before.
        added: to it.
        candidate: inputs and states weighed, before the activation.
        before: what the candidate's recurrent kernel reads.
        reset: what it is multiplied by after that.
    """

    states: tuple[tf.Tensor, ...]
    kept: tf.Tensor
    added: tf.Tensor
    candidate: tf.Tensor
    before: tf.Tensor
    reset: tf.Tensor


class Run(NamedTuple):
    """A layer's forward pass, in the order in which it reads its inputs; time first.

    Attributes:
        inputs: shape (t, b, d).
        mask: of the steps that the layer reads, shape (t, b); None for all.
        moments: all steps.
        outputs: h, shape (t, b, units), that of the step before where one is masked.
    """

    inputs: tf.Tensor
    mask: tf.Tensor | None
    moments: Moment
    outputs: tf.Tensor


@dataclass(frozen=True)
class ThroughTime(Rule):
    """LSTM, GRU, SimpleRNN and Bidirectional: sums share by the epsilon rule, gates and masked steps receive nothing.

    A product with a gate gives everything to the signal, and activations are passed by. With m the memory (c of an
    LSTM, h of a GRU), g the candidate before its activation, and R the relevance that m has from the output and from
    the step after:

        R_m' = kept / m R,    R_g = added / m R,    R_x = x W (R_g / g),    R_h' = h' U (R_g / g)

    A GRU forgets by 1 - z what it adds by z; of its candidate r h' the state takes all. SimpleRNN keeps nothing. The
    bias of the candidate takes its share.

    Attributes:
        epsilon: as a fraction of the root mean square of a step's m or g; the paper takes 0.001.

    Source: Arras et al. (2017), Explaining recurrent neural network predictions in sentiment analysis, section 2.2. For
        GRU by the same two rules; the paper has none.
    """

    epsilon: float = 1e-3

    def propagate(self, call: Call, relevance: tf.Tensor) -> list[tf.Tensor]:
        places = _places(call)
        mask = call.inputs[places["mask"][0]] if places["mask"] else mask_of(call.inputs[0])
        states = [call.inputs[place] for place in places["initial_state"]]
        through = self._bidirectional if _is_both(call.step.operation) else self._directed
        own, of_states = through(call.step.operation, call.inputs[0], mask, states, relevance)
        found = [own, *(tf.zeros(tf.shape(per_row(part, relevance))) for part in call.inputs[1:])]
        for place, part in zip(places["initial_state"], of_states, strict=False):
            found[place] = part
        return found

    def _directed(
        self, layer: Any, inputs: tf.Tensor, mask: Any, states: Sequence[tf.Tensor], relevance: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return self._back(layer, _run(layer, inputs, mask, states), relevance)

    def _bidirectional(
        self, layer: Any, inputs: tf.Tensor, mask: Any, states: Sequence[tf.Tensor], relevance: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        half = len(states) // 2
        both = (layer.forward_layer, layer.backward_layer)
        runs = [
            _run(own, inputs, mask, part)
            for own, part in zip(both, (states[:half], states[half:]), strict=True)
        ]
        outputs = [_outputs(own, run) for own, run in zip(both, runs, strict=True)]
        is_sequence = layer.forward_layer.return_sequences
        if is_sequence:
            outputs[1] = tf.reverse(outputs[1], [1])
        parts = self._split(layer.merge_mode, outputs, relevance)
        if is_sequence:
            parts[1] = tf.reverse(parts[1], [1])
        found = [self._back(*given) for given in zip(both, runs, parts, strict=True)]
        return found[0][0] + found[1][0], [*found[0][1], *found[1][1]]

    def _split(self, mode: str, outputs: Sequence[tf.Tensor], relevance: tf.Tensor) -> list[tf.Tensor]:
        """Share what the two directions made together."""
        if mode == "concat":
            return list(tf.split(relevance, 2, axis=-1))
        if mode == "mul":
            # Neither is a gate.
            return [relevance / 2, relevance / 2]
        scaled = ratio(relevance, outputs[0] + outputs[1], self.epsilon)
        return [per_row(own, relevance) * scaled for own in outputs]

    def _back(self, layer: Any, run: Run, relevance: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the relevance of a layer's inputs (b r, t, d) and initial states, given that of its outputs."""
        moments, (kernel, recurrent) = run.moments, _candidate_kernels(layer.cell)
        memory = _inverse(moments.kept + moments.added, self.epsilon)
        weights = (
            moments.kept * memory,
            moments.added * memory * _inverse(moments.candidate, self.epsilon),
            moments.before,
            moments.reset,
        )
        num_steps = tf.shape(run.inputs)[0]
        mask = tf.ones(tf.shape(run.inputs)[:2], bool) if run.mask is None else run.mask
        none = tf.zeros([tf.shape(relevance)[0], layer.cell.units])
        if layer.return_sequences:
            of_outputs = tf.transpose(relevance, [1, 0, 2])
            if layer.zero_output_for_mask:
                rows = tf.transpose(per_row(tf.transpose(mask), relevance))
                of_outputs = tf.where(rows[..., tf.newaxis], of_outputs, 0.0)
        else:
            of_outputs = tf.zeros([num_steps, *tf.unstack(tf.shape(none))])

        def step(later: tuple[tf.Tensor, ...], now: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            of_h, of_memory = later[0] + now[0], later[1]
            kept, scale, before, reset = (per_row(part, relevance) for part in now[2:])
            is_read = per_row(now[1], relevance)[:, tf.newaxis]
            whole = of_h + of_memory
            scaled = tf.where(is_read, scale * whole, 0.0)
            back = before * tf.matmul(scaled * reset, recurrent, transpose_b=True)
            return tf.where(is_read, back, of_h), tf.where(is_read, kept * whole, of_memory), scaled

        start = (none if layer.return_sequences else relevance, none, none)
        found = tf.scan(step, (of_outputs, mask, *weights), start, reverse=True)
        pulled = tf.transpose(tf.matmul(found[2], kernel, transpose_b=True), [1, 0, 2])
        if layer.go_backwards:
            pulled = tf.reverse(pulled, [1])
        inputs = tf.transpose(tf.reverse(run.inputs, [0]) if layer.go_backwards else run.inputs, [1, 0, 2])
        of_h, of_memory = (part[0] for part in found[:2])
        is_lstm = len(moments.states) == 2
        return per_row(inputs, relevance) * pulled, [of_h, of_memory] if is_lstm else [of_h + of_memory]


def is_known(layer: Any) -> bool:
    """Tell whether a recurrent layer's cell has a rule, and no state stays from one batch to the next."""
    if _is_both(layer):
        return (
            layer.merge_mode is not None and is_known(layer.forward_layer) and is_known(layer.backward_layer)
        )
    return type(getattr(layer, "cell", None)) in _MOMENTS and not layer.stateful


def _is_both(layer: Any) -> bool:
    return isinstance(layer, layers.Bidirectional)


def _places(call: Call) -> dict[str, list[int]]:
    """Return at which of the call's inputs the sequences, the initial states and the mask stand."""
    args, kwargs = call.step.fill(range(len(call.inputs)))
    given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    return {
        name: [place for place in keras.tree.flatten(given.get(name)) if isinstance(place, int)]
        for name in _NAMES
    }


def _run(layer: Any, inputs: tf.Tensor, mask: Any, states: Sequence[tf.Tensor]) -> Run:
    """Run a layer forward, time first, and return what every step did."""
    cell = layer.cell
    inputs = tf.transpose(inputs, [1, 0, 2])
    mask = None if mask is None else tf.transpose(tf.cast(mask, bool))
    if layer.go_backwards:
        inputs, mask = tf.reverse(inputs, [0]), None if mask is None else tf.reverse(mask, [0])
    moment: Callable[..., Moment] = partial(_MOMENTS[type(cell)], cell)
    projected = tf.matmul(inputs, _tensor(cell.kernel))
    if cell.use_bias:
        bias = _tensor(cell.bias)
        projected += bias if bias.shape.rank == 1 else bias[0]
    num_states = 2 if isinstance(cell, layers.LSTMCell) else 1
    none = tf.zeros([tf.shape(inputs)[1], cell.units])
    start = tuple(states) if states else (none,) * num_states
    given = (projected,) if mask is None else (projected, mask)

    def step(before: tuple[tf.Tensor, ...], now: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        after = moment(now[0], before).states
        if mask is None:
            return after
        return tuple(tf.where(now[1][:, tf.newaxis], *pair) for pair in zip(after, before, strict=True))

    after = tf.scan(step, given, start)
    before = tuple(
        tf.concat([first[tf.newaxis], part[:-1]], axis=0) for first, part in zip(start, after, strict=True)
    )
    return Run(inputs, mask, moment(projected, before), after[0])


def _outputs(layer: Any, run: Run) -> tf.Tensor:
    """Return the outputs of a layer in its own order."""
    return tf.transpose(run.outputs, [1, 0, 2]) if layer.return_sequences else run.outputs[-1]


def _inverse(z: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Return 1 / z, stabilised at each step of each example, shape (t, b, units); 0 where z is 0."""
    flat = tf.reshape(z, [-1, z.shape[-1]])
    return tf.reshape(tf.math.divide_no_nan(1.0, stabilised(flat, epsilon)), tf.shape(z))


def _lstm(cell: Any, projected: tf.Tensor, states: tuple[tf.Tensor, ...]) -> Moment:
    h, c = states
    entry, forget, candidate, exit_gate = tf.split(
        projected + tf.matmul(h, _tensor(cell.recurrent_kernel)), 4, axis=-1
    )
    kept = cell.recurrent_activation(forget) * c
    added = cell.recurrent_activation(entry) * cell.activation(candidate)
    after = cell.recurrent_activation(exit_gate) * cell.activation(kept + added)
    return Moment((after, kept + added), kept, added, candidate, h, tf.ones_like(h))


def _gru(cell: Any, projected: tf.Tensor, states: tuple[tf.Tensor, ...]) -> Moment:
    (h,) = states
    kernel, units = _tensor(cell.recurrent_kernel), cell.units
    update, reset, entry = tf.split(projected, 3, axis=-1)
    inner = tf.matmul(h, kernel if cell.reset_after else kernel[:, : 2 * units])
    if cell.reset_after and cell.use_bias:
        inner += _tensor(cell.bias)[1]
    update = cell.recurrent_activation(update + inner[..., :units])
    reset = cell.recurrent_activation(reset + inner[..., units : 2 * units])
    if cell.reset_after:
        before, factor = h, reset
        candidate = entry + reset * inner[..., 2 * units :]
    else:
        before, factor = reset * h, tf.ones_like(h)
        candidate = entry + tf.matmul(before, kernel[:, 2 * units :])
    kept, added = update * h, (1 - update) * cell.activation(candidate)
    return Moment((kept + added,), kept, added, candidate, before, factor)


def _simple(cell: Any, projected: tf.Tensor, states: tuple[tf.Tensor, ...]) -> Moment:
    (h,) = states
    candidate = projected + tf.matmul(h, _tensor(cell.recurrent_kernel))
    added = cell.activation(candidate)
    return Moment((added,), tf.zeros_like(h), added, candidate, h, tf.ones_like(h))


_MOMENTS: dict[type, Callable[..., Moment]] = {
    layers.LSTMCell: _lstm,
    layers.GRUCell: _gru,
    layers.SimpleRNNCell: _simple,
}


def _candidate_kernels(cell: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the columns of both kernels that make the candidate."""
    start = 0 if isinstance(cell, layers.SimpleRNNCell) else 2 * cell.units
    own = slice(start, start + cell.units)
    return _tensor(cell.kernel)[:, own], _tensor(cell.recurrent_kernel)[:, own]


def _tensor(variable: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)
