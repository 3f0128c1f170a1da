"""Layer-wise relevance propagation for Keras 3: rules, composites, canonization and the propagation itself."""

from deel_dualview.lrp.calls import Call as Call
from deel_dualview.lrp.calls import Rule as Rule
from deel_dualview.lrp.canonize import canonize as canonize
from deel_dualview.lrp.composites import EPSILON as EPSILON
from deel_dualview.lrp.composites import EPSILON_ALPHA2_BETA1 as EPSILON_ALPHA2_BETA1
from deel_dualview.lrp.composites import EPSILON_ALPHA2_BETA1_FLAT as EPSILON_ALPHA2_BETA1_FLAT
from deel_dualview.lrp.composites import EPSILON_GAMMA as EPSILON_GAMMA
from deel_dualview.lrp.composites import EPSILON_PLUS as EPSILON_PLUS
from deel_dualview.lrp.composites import EPSILON_PLUS_FLAT as EPSILON_PLUS_FLAT
from deel_dualview.lrp.composites import Composite as Composite
from deel_dualview.lrp.composites import epsilon_gamma_box as epsilon_gamma_box
from deel_dualview.lrp.normalization import ScaleAsGiven as ScaleAsGiven
from deel_dualview.lrp.propagate import LRP as LRP
from deel_dualview.lrp.routing import Pass as Pass
from deel_dualview.lrp.routing import Route as Route
from deel_dualview.lrp.routing import Share as Share
from deel_dualview.lrp.routing import SignalTakesAll as SignalTakesAll
from deel_dualview.lrp.routing import SumOverFeatures as SumOverFeatures
from deel_dualview.lrp.routing import ValuesTakeAll as ValuesTakeAll
from deel_dualview.lrp.rules import AlphaBeta as AlphaBeta
from deel_dualview.lrp.rules import Epsilon as Epsilon
from deel_dualview.lrp.rules import Flat as Flat
from deel_dualview.lrp.rules import Gamma as Gamma
from deel_dualview.lrp.rules import WSquare as WSquare
from deel_dualview.lrp.rules import ZBox as ZBox
from deel_dualview.lrp.rules import ZPlus as ZPlus
