"""Back ends by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from deel_dualview._checks import require
from deel_dualview.lrp import Composite
from deel_dualview.lrp.composites import COMPOSITES
from deel_dualview.lrp.composites import Named as NamedComposite
from deel_dualview.relevance.base import BackEnd
from deel_dualview.relevance.grad_cam import GradCAM
from deel_dualview.relevance.gradients import GradientsInputs, IntegratedGradients, SmoothGrad
from deel_dualview.relevance.layerwise import LayerwisePropagation
from deel_dualview.relevance.occlusion import Occlusion

Named = (
    NamedComposite
    | Literal["grad-cam", "integrated-gradients", "smoothgrad", "gradients-inputs", "occlusion"]
)
"""Rules by name: composites of layer-wise relevance propagation, and other back ends."""

BACK_ENDS: Mapping[str, BackEnd] = MappingProxyType(
    {
        **{name: LayerwisePropagation(rule) for name, rule in COMPOSITES.items()},
        "grad-cam": GradCAM(),
        "integrated-gradients": IntegratedGradients(),
        "smoothgrad": SmoothGrad(),
        "gradients-inputs": GradientsInputs(),
        "occlusion": Occlusion(),
    }
)
"""Every rule that has a name."""


def to_back_end(rule: Named | Composite | BackEnd) -> BackEnd:
    """Return the back end of a rule that is given by name, as a composite or as itself.

    Raises:
        ValueError: nothing has this name.
    """
    if isinstance(rule, BackEnd):
        return rule
    if isinstance(rule, Composite):
        return LayerwisePropagation(rule)
    require(
        rule in BACK_ENDS,
        f"`rule` must be a Composite, a BackEnd or one of {tuple(BACK_ENDS)}; the box of EpsilonGammaBox needs bounds: "
        "rule=epsilon_gamma_box(low=0.0, high=1.0).",
        {"rule": rule},
    )
    return BACK_ENDS[rule]
