"""Inverse-Hessian-vector products: one class for each algorithm, on one interface."""

from deel_dualview.ihvp.arnoldi import ArnoldiIHVP
from deel_dualview.ihvp.base import Damping, InverseHessianVectorProduct, LayerwiseDamping, RelativeDamping
from deel_dualview.ihvp.conjugate_gradient import ConjugateGradientDescentIHVP
from deel_dualview.ihvp.ekfac import EkfacIHVP
from deel_dualview.ihvp.ekfac_conjugate_gradient import EkfacConjugateGradientIHVP
from deel_dualview.ihvp.exact import ExactIHVP
from deel_dualview.ihvp.identity import IdentityIHVP
from deel_dualview.ihvp.lissa import LissaIHVP

__all__ = [
    "ArnoldiIHVP",
    "ConjugateGradientDescentIHVP",
    "Damping",
    "EkfacConjugateGradientIHVP",
    "EkfacIHVP",
    "ExactIHVP",
    "IdentityIHVP",
    "InverseHessianVectorProduct",
    "LayerwiseDamping",
    "LissaIHVP",
    "RelativeDamping",
]


def __dir__() -> list[str]:
    return sorted(__all__)
