"""Methods: how the hypergradient is found."""

from bilevel_tf.autodiff.solution import Solution, Status
from bilevel_tf.methods.best_response.best_response import BestResponse
from bilevel_tf.methods.best_response.centered_stn import CenteredSTN
from bilevel_tf.methods.best_response.delta_stn import DeltaSTN
from bilevel_tf.methods.best_response.hypernetwork import Hypernetwork
from bilevel_tf.methods.best_response.stn import STN
from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.methods.fixed_point.graves import GravesUpdate
from bilevel_tf.methods.fixed_point.mackay import MacKayUpdate
from bilevel_tf.methods.functional import hypergradient
from bilevel_tf.methods.implicit.conjugate_gradient import ConjugateGradient
from bilevel_tf.methods.implicit.empirical_fisher import EmpiricalFisher
from bilevel_tf.methods.implicit.exact import ExactImplicit
from bilevel_tf.methods.implicit.gauss_newton import GaussNewton
from bilevel_tf.methods.implicit.hoag import HOAG, HOAGResult
from bilevel_tf.methods.implicit.implicit import Implicit
from bilevel_tf.methods.implicit.neumann import Neumann
from bilevel_tf.methods.implicit.t1t2 import T1T2
from bilevel_tf.methods.method import Method
from bilevel_tf.methods.one_step.darts import DARTS
from bilevel_tf.methods.one_step.greedy import Greedy
from bilevel_tf.methods.trajectory.drmad import DrMAD
from bilevel_tf.methods.trajectory.forward import ForwardMode
from bilevel_tf.methods.trajectory.rmad import RMAD
from bilevel_tf.methods.trajectory.unrolled import Unrolled
from bilevel_tf.network.composed_loss import ComposedLoss
from bilevel_tf.network.problem import Hypergradient, make_report

__all__ = [
    "DARTS",
    "HOAG",
    "RMAD",
    "STN",
    "T1T2",
    "BestResponse",
    "CenteredSTN",
    "ComposedLoss",
    "ConjugateGradient",
    "DeltaSTN",
    "Differentiating",
    "DrMAD",
    "EmpiricalFisher",
    "ExactImplicit",
    "ForwardMode",
    "GaussNewton",
    "GravesUpdate",
    "Greedy",
    "HOAGResult",
    "Hypergradient",
    "Hypernetwork",
    "Implicit",
    "MacKayUpdate",
    "Method",
    "Neumann",
    "Solution",
    "Status",
    "Unrolled",
    "hypergradient",
    "make_report",
]
