"""The attribution methods by name: what `--method` and `compare` take, with the settings that each name stands for.

Light on purpose: a calculator's module, and with it TensorFlow, is imported when one is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from deel_dualview._checks import require

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from deel_dualview.calculators.base import BaseInfluenceCalculator
    from deel_dualview.models import InfluenceModel
    from deel_dualview.models.checkpoints import Checkpoints
    from deel_dualview.stores import Store

_NO_SETTINGS: Mapping[str, object] = MappingProxyType({})
_IHVP = "ihvp."
_REMOVAL = "predicted increase of the loss of the prediction when the training example is removed"
_LOGIT = "part of the logit of the predicted class that the training example accounts for"


class Method(NamedTuple):
    """A calculator and the settings that a name stands for; everything else is the calculator's default.

    Attributes:
        title: how a reader calls it.
        value: what an influence value is.
        home: module of the calculator, in the package.
        class_name: of the calculator.
        settings: keyword arguments of the calculator.
        inverse: class in `deel_dualview.ihvp` of the inverse Hessian that it is given, if any.
        checkpoints: whether it is made from checkpoints of the training run.
    """

    title: str
    value: str
    home: str
    class_name: str
    settings: Mapping[str, object] = _NO_SETTINGS
    inverse: str | None = None
    checkpoints: Literal["unused", "optional", "needed"] = "unused"


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "dualview": Method(
            "DualView",
            "part of the surrogate's logit of the predicted class that the training example accounts for",
            "calculators.dualview",
            "DualView",
        ),
        "first-order": Method(
            "Influence functions, exact inverse",
            _REMOVAL,
            "calculators.first_order",
            "FirstOrderInfluenceCalculator",
            inverse="ExactIHVP",
        ),
        "first-order-cg": Method(
            "Influence functions, conjugate gradients",
            _REMOVAL,
            "calculators.first_order",
            "FirstOrderInfluenceCalculator",
            inverse="ConjugateGradientDescentIHVP",
        ),
        "first-order-lissa": Method(
            "Influence functions, LiSSA",
            _REMOVAL,
            "calculators.first_order",
            "FirstOrderInfluenceCalculator",
            inverse="LissaIHVP",
        ),
        "ekfac": Method(
            "Influence functions, EK-FAC",
            _REMOVAL,
            "calculators.first_order",
            "FirstOrderInfluenceCalculator",
            inverse="EkfacIHVP",
        ),
        "ekfac-cg": Method(
            "Influence functions, EK-FAC and conjugate gradients",
            _REMOVAL,
            "calculators.first_order",
            "FirstOrderInfluenceCalculator",
            inverse="EkfacConjugateGradientIHVP",
        ),
        "arnoldi": Method(
            "Influence functions, Arnoldi",
            _REMOVAL,
            "calculators.arnoldi",
            "ArnoldiInfluenceCalculator",
            inverse="ArnoldiIHVP",
        ),
        "second-order": Method(
            "Influence functions, second order",
            _REMOVAL,
            "calculators.second_order",
            "SecondOrderInfluenceCalculator",
            inverse="ExactIHVP",
        ),
        "leverage-corrected": Method(
            "Influence functions, leverage corrected",
            _REMOVAL,
            "calculators.leverage",
            "LeverageCorrectedInfluenceCalculator",
            inverse="ExactIHVP",
        ),
        "relatif": Method(
            "RelatIF",
            "increase of the loss of the prediction for a unit of change of the weights",
            "calculators.relatif",
            "RelatIF",
            inverse="ExactIHVP",
        ),
        "graddot": Method(
            "GradDot",
            "inner product of the loss gradients of test and training example",
            "calculators.graddot",
            "GradDot",
        ),
        "gradcos": Method(
            "GradCos",
            "cosine of the loss gradients of test and training example",
            "calculators.graddot",
            "GradCos",
        ),
        "sim": Method(
            "SIM (equation 3 of the DualView paper)",
            "product of the logit gradient of the test example with that of the training example at unit length",
            "calculators.graddot",
            "GradCos",
            settings={"normalize": "train", "function": "logit"},
        ),
        "tracin": Method(
            "TracIn",
            "decrease of the loss of the prediction by training steps on the example",
            "calculators.tracin",
            "TracIn",
            checkpoints="needed",
        ),
        "trak": Method(
            "TRAK",
            "predicted fall of the log odds of the prediction when the training example is removed",
            "calculators.trak",
            "Trak",
            checkpoints="optional",
        ),
        "rps-l2": Method(
            "Representer points, L2", _LOGIT, "calculators.representer_l2", "RepresenterPointL2"
        ),
        "rps-lje": Method(
            "Representer points, LJE", _LOGIT, "calculators.representer_lje", "RepresenterPointLJE"
        ),
        "feature-similarity": Method(
            "Feature similarity",
            "cosine of the penultimate features, negative for training examples of another label",
            "calculators.feature_similarity",
            "FeatureSimilarity",
        ),
        "random": Method(
            "Random numbers, the baseline",
            "standard normal number",
            "calculators.random",
            "RandomInfluence",
        ),
    }
)
"""Every method by its name; gradients are those of the last layer, of "ekfac-cg" those of all."""

AUDIT_SETTINGS: Mapping[str, Mapping[str, object]] = MappingProxyType({"dualview": {"kernel": "cosine"}})
"""What an audit sets: under this kernel the surrogate is sparse, and agrees with the model best."""

DEFAULT_METHODS = ("dualview", "first-order", "graddot", "rps-l2", "feature-similarity")
"""The default of `compare`: one of each kind, all of them cheap."""


def method_of(name: str) -> Method:
    """Return the method of that name.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    require(name in METHODS, f"A method is one of {', '.join(METHODS)}.", {"method": name})
    return METHODS[name]


@dataclass(frozen=True)
class NamedMethod:
    """Makes the calculator of a method by its name; what `audit` and `compare` make of a name.

    Args:
        name: one of `METHODS`.
        checkpoints: of the training run, from `load_checkpoints`; the last one must be the model itself. Used
            by `"tracin"`, which needs them, and by `"trak"`, which averages over them.
        settings: keyword arguments of the calculator in place of its defaults; those that begin with "ihvp."
            are the inverse Hessian's, such as "ihvp.damping".

    Raises:
        ValueError: an unknown name, or a method without the checkpoints that it needs.
    """

    name: str
    checkpoints: Checkpoints | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_checkpoints([self.name], has_checkpoints=self.checkpoints is not None)

    @property
    def method(self) -> Method:
        """What the name stands for."""
        return method_of(self.name)

    def __call__(
        self, model: keras.Model | InfluenceModel, train_set: tf.data.Dataset, *, store: Store | None = None
    ) -> BaseInfluenceCalculator:
        """Return the calculator, with target `"prediction"`.

        Args:
            model: the classifier to explain.
            train_set: its training set, batched.
            store: where vectors of the training examples are kept.

        Raises:
            ValueError: checkpoints that end in another model.
        """
        from deel_dualview.models.train_sets import to_influence_model
        from deel_dualview.stores import MemoryStore

        method, model = self.method, to_influence_model(model)
        calculator = getattr(import_module(f"deel_dualview.{method.home}"), method.class_name)
        inverse_settings, own = split_settings(self.settings)
        settings = dict(method.settings) | {"store": store} | own
        if method.inverse is not None:
            inverse = getattr(import_module("deel_dualview.ihvp"), method.inverse)
            # One store, so that both share the pass over the training set.
            settings["store"] = MemoryStore() if settings["store"] is None else settings["store"]
            settings["ihvp"] = inverse(model, train_set, **{"store": settings["store"]} | inverse_settings)
        if method.checkpoints == "unused" or self.checkpoints is None:
            return calculator(model, train_set, **settings)
        if method.checkpoints == "needed":
            settings["learning_rates"] = self.checkpoints.learning_rates
        return calculator(_ending_in(model, self.checkpoints), train_set, **settings)


def split_settings(settings: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the settings of the inverse Hessian, without their "ihvp.", and those of the calculator."""
    inverse = {name[len(_IHVP) :]: value for name, value in settings.items() if name.startswith(_IHVP)}
    return inverse, {name: value for name, value in settings.items() if not name.startswith(_IHVP)}


def check_checkpoints(names: Iterable[str], *, has_checkpoints: bool) -> None:
    """Say before long work that a method needs checkpoints and has none.

    Raises:
        ValueError: no checkpoints for a method that needs them, or an unknown name.
    """
    needy = [name for name in names if method_of(name).checkpoints == "needed"]
    require(
        has_checkpoints or not needy,
        f"{' and '.join(needy)} needs checkpoints of the training run: train with "
        "`fit(..., callbacks=[SaveCheckpoints(DIR)])`, then give --checkpoints DIR; in Python "
        "checkpoints=load_checkpoints(DIR, model), or of an audit "
        "method=functools.partial(TracIn, checkpoints=load_checkpoints(DIR, model)).",
        {},
    )


def _ending_in(model: InfluenceModel, checkpoints: Checkpoints) -> list[InfluenceModel]:
    """Return the checkpoints with the model itself in the place of the last one, its equal."""
    last = checkpoints.models[-1]
    require(
        last is model or last.fingerprint == model.fingerprint,
        "The last checkpoint must be the model that is explained: `load_checkpoints(directory, model)`, given that "
        "model, returns the checkpoints that lead to it.",
        {"last checkpoint": f"epoch {checkpoints.epochs[-1]}"},
    )
    return [*checkpoints.models[:-1], model]
