"""EK-FAC: the Gauss-Newton matrix of each layer as diagonal in a Kronecker-factored eigenbasis."""

from deel_dualview.ekfac.operator import KroneckerCurvature as KroneckerCurvature
from deel_dualview.ekfac.passes import estimate_curvature as estimate_curvature
