"""Weight penalties and priors whose strength may be a hyperparameter."""

from bilevel_tf.regularizers.normal_prior import NormalPrior
from bilevel_tf.regularizers.norms import L1, L1L2, L2
from bilevel_tf.regularizers.scale_mixture_prior import ScaleMixturePrior
from bilevel_tf.regularizers.weight_prior import WeightPrior

__all__ = ["L1", "L1L2", "L2", "NormalPrior", "ScaleMixturePrior", "WeightPrior"]
