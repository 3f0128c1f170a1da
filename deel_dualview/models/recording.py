"""Calls of a model's layers, intercepted in one thread while it traces; other threads see the layers as they are."""

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

Around = Callable[..., Any]
"""Called in the place of a function, with it and the arguments of its call; returns its outputs."""

_EDITING = threading.Lock()
_LOCKS: weakref.WeakKeyDictionary[keras.Model, threading.RLock] = weakref.WeakKeyDictionary()


class LayerCall(NamedTuple):
    """One call of a layer during one call of its model."""

    layer: keras.Layer
    inputs: tf.Tensor
    outputs: tf.Tensor


def lock_of(model: keras.Model) -> threading.RLock:
    """Return the lock that is held while a model is traced: one for each Keras model, whoever wraps it."""
    with _EDITING:
        return _LOCKS.setdefault(model, threading.RLock())


@contextmanager
def recorded(layers: list[keras.Layer]) -> Iterator[list[LayerCall]]:
    """Record every call of `layers` that this thread makes inside the block, in order.

    Calls inside of a loop, a condition or another `tf.function` are left out: their tensors belong to another
    graph and cannot be used in this one.
    """
    graph = tf.compat.v1.get_default_graph()
    calls: list[LayerCall] = []

    def recording(layer: keras.Layer) -> Around:
        def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            if tf.compat.v1.get_default_graph() is graph:
                calls.append(LayerCall(layer, inputs_of(args, kwargs), outputs))
            return outputs

        return around

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(intercepted(layer, "call", recording(layer)))
        yield calls


def inputs_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the inputs of a call of a layer, which may come by name, as in `attention(query=..., value=...)`."""
    return args[0] if args else next(iter(kwargs.values()))


@contextmanager
def without_time_loops(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Have the Dense layer in each TimeDistributed one called once on whole sequences, which computes the same."""
    with ExitStack() as stack:
        for layer in layers:
            if isinstance(layer, keras.layers.TimeDistributed) and isinstance(
                layer.layer, keras.layers.Dense
            ):
                inner = layer.layer
                once = functools.partial(_called_once, inner)
                stack.enter_context(intercepted(layer, "call", once))
        yield


def _called_once(layer: keras.Layer, call: Callable[..., Any], inputs: Any, *args: Any, **kwargs: Any) -> Any:
    del call, args, kwargs
    return layer(inputs)


@contextmanager
def intercepted(layer: keras.Layer, attribute: str, around: Around) -> Iterator[None]:
    """Have `around` called in the place of a layer's `call` or `activation`, by this thread, inside the block.

    Keras has no public hook on a layer's call, so an instance attribute shadows the function. It goes around
    Keras' attribute tracking, does nothing in other threads, and is removed by the last that needs it, in
    whatever order they end.
    """
    entry = (threading.get_ident(), around)
    with _EDITING:
        shadow = vars(layer).get(attribute)
        if not isinstance(shadow, _Shadow):
            shadow = _Shadow(layer, attribute)
            object.__setattr__(layer, attribute, shadow)
        shadow.entries = (*shadow.entries, entry)
    try:
        yield
    finally:
        with _EDITING:
            shadow.entries = tuple(other for other in shadow.entries if other is not entry)
            if not shadow.entries:
                shadow.remove()


class _Shadow:
    """Stands in the place of a function of a layer; calls it, through the entries of the calling thread."""

    def __init__(self, layer: keras.Layer, attribute: str) -> None:
        self.entries: tuple[tuple[int, Around], ...] = ()
        self._layer, self._attribute = layer, attribute
        self._was_own = attribute in vars(layer)
        self._function = getattr(layer, attribute)
        # Keras reads names and signatures, for instance when another thread saves the model.
        functools.update_wrapper(self, self._function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function, thread = self._function, threading.get_ident()
        for owner, around in self.entries:
            if owner == thread:
                function = functools.partial(around, function)
        return function(*args, **kwargs)

    def remove(self) -> None:
        if self._was_own:
            object.__setattr__(self._layer, self._attribute, self._function)
        else:
            object.__delattr__(self._layer, self._attribute)
