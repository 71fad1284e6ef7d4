"""Everything that bilevel_tf uses of the private parts of Keras and TensorFlow.

No other module of bilevel_tf uses a private name of Keras or TensorFlow, and this
package imports nothing of bilevel_tf. `tests/test_keras_private.py` checks both, and
pins the behaviour of each function, so that a new Keras that behaves differently fails
there first.
"""

from bilevel_tf._keras.graphs import forbid_inlining, trace_graph, watch_with_tangent
from bilevel_tf._keras.layers import (
    get_mask,
    get_own_losses,
    get_source,
    in_single_precision,
    replace_sublayers,
    without_autocast,
)
from bilevel_tf._keras.models import (
    CombinedLoss,
    add_layer,
    check_compiled,
    compiled_loss,
    flatten_layers,
    get_compile_arguments,
    get_graph_inputs,
    get_graph_outputs,
    get_strategy,
    make_step_function,
    set_compile_argument,
    update_mean_loss,
)
from bilevel_tf._keras.optimizers import (
    HookedOptimizer,
    StatelessOptimizer,
    copy_decay_exclusions,
    decays_weight,
    excludes_from_decay,
    get_rate_source,
    get_variable_index,
    is_second_moment,
    set_iterations,
    set_rate_source,
    track_variables,
)

__all__ = [
    "CombinedLoss",
    "HookedOptimizer",
    "StatelessOptimizer",
    "add_layer",
    "check_compiled",
    "compiled_loss",
    "copy_decay_exclusions",
    "decays_weight",
    "excludes_from_decay",
    "flatten_layers",
    "forbid_inlining",
    "get_compile_arguments",
    "get_graph_inputs",
    "get_graph_outputs",
    "get_mask",
    "get_own_losses",
    "get_rate_source",
    "get_source",
    "get_strategy",
    "get_variable_index",
    "in_single_precision",
    "is_second_moment",
    "make_step_function",
    "replace_sublayers",
    "set_compile_argument",
    "set_iterations",
    "set_rate_source",
    "trace_graph",
    "track_variables",
    "update_mean_loss",
    "watch_with_tangent",
    "without_autocast",
]
