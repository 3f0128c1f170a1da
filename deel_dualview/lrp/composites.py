"""Composites: which rule goes with which kind of layer, as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import keras

from deel_dualview._checks import describe, require
from deel_dualview.lrp import linear, recurrent, signs
from deel_dualview.lrp.calls import Rule
from deel_dualview.lrp.discrete import DISCRETE, LookUp
from deel_dualview.lrp.normalization import ScaleAsGiven
from deel_dualview.lrp.routing import (
    Nothing,
    Pass,
    Route,
    Share,
    SignalTakesAll,
    SumOverFeatures,
    ValuesTakeAll,
)
from deel_dualview.lrp.rules import AlphaBeta, Epsilon, Flat, Gamma, WeightedRule, ZBox, ZPlus

layers = keras.layers

Key = type | str
"""A type of layer, or the name of a class: of an operation that is no layer, of a layer that Keras does not export."""

Named = Literal[
    "epsilon",
    "epsilon-gamma",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
]
"""Composites by name."""


def _all_ranks(*kinds: str) -> list[type]:
    return [getattr(layers, f"{kind}{rank}D") for kind in kinds for rank in (1, 2, 3)]


def _each(keys: Iterable[Key], rule: Rule) -> dict[Key, Rule]:
    return dict.fromkeys(keys, rule)


_PASSED: list[Key] = [
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
    layers.Softmax,
    layers.Identity,
    layers.Dropout,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.UnitNormalization,
    "RMSNormalization",
    layers.Normalization,
    layers.Rescaling,
    layers.Masking,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.RandomContrast,
    layers.RandomBrightness,
    *("TFDIdentity", "TFDCast"),
    *_all_ranks("SpatialDropout"),
    *(
        "Relu",
        "Relu6",
        "Sigmoid",
        "HardSigmoid",
        "Silu",
        "HardSilu",
        "Gelu",
        "Elu",
        "Selu",
        "Softmax",
        "Tanh",
    ),
    *(
        "LeakyRelu",
        "Softplus",
        "Softsign",
        "Swish",
        "Identity",
        "Cast",
        "ConvertToTensor",
        "TrueDivide",
        "Divide",
        "Negative",
    ),
]
_ROUTED: list[Key] = [
    layers.Concatenate,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.RepeatVector,
    layers.Maximum,
    layers.Minimum,
    *_all_ranks("ZeroPadding", "Cropping", "MaxPooling", "GlobalMaxPooling"),
    *(
        "Concatenate",
        "Reshape",
        "Transpose",
        "Squeeze",
        "ExpandDims",
        "GetItem",
        "Pad",
        "Flip",
        "Maximum",
        "Max",
    ),
    *("TFDConcat", "MaxPool", "Moveaxis", "Swapaxes", "Stack", "BroadcastTo", "Roll"),
]
# By name stand here layers of keras.applications that Keras does not export, and of KerasHub. `Share` holds for what
# is affine, whatever it is: a layer that returns positions alone gives its inputs nothing, one that adds them leaves
# them their share.
_SHARED: list[Key] = [
    layers.Add,
    layers.Subtract,
    layers.Average,
    layers.Resizing,
    *("LayerScale", "CustomScaleLayer", "StochasticDepth", "DropPath"),
    *("PositionEmbedding", "SinePositionEncoding", "RotaryEmbedding"),
    *_all_ranks("AveragePooling", "GlobalAveragePooling", "UpSampling"),
    *("Add", "Subtract", "Mean", "Sum", "AveragePool"),
]
SHIFT_SHARES = Share()
"""Of a batch normalisation that could not be folded: its shift takes a share, as the bias of a layer that it is folded
into. On the model's inputs, of which it only changes the unit, relevance stays in its place instead."""
_BASE: dict[Key, Rule] = {
    **_each(_PASSED, Pass()),
    **_each(_ROUTED, Route()),
    **_each(_SHARED, Share()),
    **_each((layers.Multiply, "Multiply"), SignalTakesAll()),
    **_each(
        (
            layers.MultiHeadAttention,
            layers.GroupQueryAttention,
            layers.Attention,
            layers.AdditiveAttention,
        ),
        ValuesTakeAll(),
    ),
    layers.BatchNormalization: SHIFT_SHARES,
    **_each((layers.LayerNormalization, layers.GroupNormalization), ScaleAsGiven()),
    **_each((layers.Embedding, "TokenAndPositionEmbedding"), SumOverFeatures()),
    **_each(DISCRETE, LookUp()),
    **_each(recurrent.RECURRENT, recurrent.ThroughTime()),
    **_each(signs.COMPARISONS, Nothing()),
}


@dataclass(frozen=True)
class Composite:
    """A rule for each kind of layer.

    Attributes:
        rules: by type of layer (subclasses included), or by name of its class.
        first: for the first layer with weights on every way from the inputs, instead of the rule of its type.
        by_name: for single layers by name; goes before everything else.
    """

    rules: Mapping[Key, Rule]
    first: Rule | None = None
    by_name: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))

    def with_rules(
        self,
        rules: Mapping[Key, Rule] = MappingProxyType({}),
        *,
        by_name: Mapping[str, Rule] = MappingProxyType({}),
    ) -> "Composite":
        """Return a composite with further rules, which go before those that it has.

        Args:
            rules: by type of layer; this is how a rule for a layer of one's own is registered.
            by_name: by name of a layer.
        """
        return replace(self, rules={**self.rules, **rules}, by_name={**self.by_name, **by_name})

    def rule_of(self, operation: Any, *, is_first: bool = False) -> Rule:
        """Return the rule for a layer or operation.

        Args:
            operation: what is called.
            is_first: whether it is a first layer with weights.

        Raises:
            ValueError: there is none; the message tells how to register one.
        """
        if operation.name in self.by_name:
            rule: Rule | None = self.by_name[operation.name]
        elif is_first and self.first is not None and linear.is_weighted(operation):
            rule = self.first
        else:
            rule = self._by_type(type(operation))
        if (
            rule is None
            or isinstance(rule, WeightedRule)
            and not linear.is_weighted(operation)
            or isinstance(rule, recurrent.ThroughTime)
            and not recurrent.is_known(operation)
        ):
            needed = _why_no_rule(operation)
            raise ValueError(describe(needed, {"rule": rule}))
        return rule

    def has_rule(self, operation: Any) -> bool:
        """Tell whether there is a rule by the name or the type of a layer."""
        return operation.name in self.by_name or self._by_type(type(operation)) is not None

    def _by_type(self, kind: type) -> Rule | None:
        for base in kind.__mro__:
            rule = self.rules.get(base) or self.rules.get(base.__name__)
            if rule is not None:
                return rule
        return None


def _why_no_rule(operation: Any) -> str:
    """Say of which layer there is no rule, and what its user can do."""
    kind = type(operation).__name__
    known = (
        " Of recurrent layers LSTM, GRU and SimpleRNN have one, alone, in RNN(cell) and in Bidirectional, if not "
        "stateful; of others Share() takes gradients times inputs, and what is not linear in them stands in the leak. "
        "DualRelevance(..., rule='gradients-inputs') needs no rules, for inputs that are floating-point numbers."
    )
    return (
        f"Relevance has no rule for layer {operation.name!r} of type {kind}. Register one: "
        f"rule=EPSILON_GAMMA.with_rules({{{kind}: Pass()}}) where relevance stays in its place, Share() "
        "for an operation that is linear in its inputs, or a Rule of your own (all in deel_dualview.lrp)."
    ) + known * isinstance(operation, recurrent.RECURRENT)


def _composite(dense: Rule, convolution: Rule, first: Rule | None = None) -> Composite:
    own = {**_each(linear.DENSE, dense), **_each(linear.CONVOLUTIONS, convolution)}
    return Composite(MappingProxyType({**_BASE, **own}), first)


EPSILON = _composite(Epsilon(), Epsilon())
"""The epsilon rule everywhere: gradient times input on a ReLU network without biases."""

EPSILON_GAMMA = _composite(Epsilon(), Gamma())
"""Epsilon in dense layers, gamma in convolutions: the default, best on injected marks and flipped pixels."""

EPSILON_PLUS = _composite(Epsilon(), ZPlus())
"""Epsilon in dense layers, z-plus in convolutions."""

EPSILON_PLUS_FLAT = _composite(Epsilon(), ZPlus(), Flat())
"""`EPSILON_PLUS` with the flat rule in the first layer, as in DualXDA: smooth, and blind to what pixels hold."""

EPSILON_ALPHA2_BETA1 = _composite(Epsilon(), AlphaBeta(2.0, 1.0))
"""Epsilon in dense layers, alpha-beta with alpha 2 in convolutions."""

EPSILON_ALPHA2_BETA1_FLAT = _composite(Epsilon(), AlphaBeta(2.0, 1.0), Flat())
"""`EPSILON_ALPHA2_BETA1` with the flat rule in the first layer."""

COMPOSITES: Mapping[str, Composite] = MappingProxyType(
    {
        "epsilon": EPSILON,
        "epsilon-gamma": EPSILON_GAMMA,
        "epsilon-plus": EPSILON_PLUS,
        "epsilon-plus-flat": EPSILON_PLUS_FLAT,
        "epsilon-alpha2-beta1": EPSILON_ALPHA2_BETA1,
        "epsilon-alpha2-beta1-flat": EPSILON_ALPHA2_BETA1_FLAT,
    }
)


def epsilon_gamma_box(low: float, high: float, *, gamma: float = 0.25) -> Composite:
    """Return the composite of epsilon in dense layers, gamma in convolutions and z-box in the first layer.

    Args:
        low: lower bound of what the first layer with weights receives, after any rescaling.
        high: its upper bound.
        gamma: of the gamma rule.
    """
    return _composite(Epsilon(), Gamma(gamma), ZBox(low, high))


def to_composite(rule: "Named | Composite") -> Composite:
    """Return a composite that is given itself or by name.

    Raises:
        ValueError: no composite has this name.
    """
    if isinstance(rule, Composite):
        return rule
    require(
        rule in COMPOSITES,
        f"`rule` must be a Composite or one of {get_args(Named)}; the box of EpsilonGammaBox needs bounds: "
        "rule=epsilon_gamma_box(low=0.0, high=1.0).",
        {"rule": rule},
    )
    return COMPOSITES[rule]
