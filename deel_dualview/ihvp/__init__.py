"""Inverse-Hessian-vector products: one class for each algorithm, on one interface."""

from deel_dualview.ihvp.arnoldi import ArnoldiIHVP as ArnoldiIHVP
from deel_dualview.ihvp.base import Damping as Damping
from deel_dualview.ihvp.base import InverseHessianVectorProduct as InverseHessianVectorProduct
from deel_dualview.ihvp.base import RelativeDamping as RelativeDamping
from deel_dualview.ihvp.conjugate_gradient import ConjugateGradientDescentIHVP as ConjugateGradientDescentIHVP
from deel_dualview.ihvp.ekfac import EkfacIHVP as EkfacIHVP
from deel_dualview.ihvp.exact import ExactIHVP as ExactIHVP
from deel_dualview.ihvp.identity import IdentityIHVP as IdentityIHVP
from deel_dualview.ihvp.lissa import LissaIHVP as LissaIHVP
