"""Everything that bilevel_tf uses of the private parts of Keras and TensorFlow.

No other module of bilevel_tf uses a private name of Keras or TensorFlow, and this
package imports nothing of bilevel_tf. `tests/test_keras_private.py` checks both, and
pins the behaviour of each function, so that a new Keras that behaves differently fails
there first.
"""

from bilevel_tf._keras.bijectors import apply_bijector
from bilevel_tf._keras.data import find_file_caches
from bilevel_tf._keras.graphs import (
    TracedGraphs,
    forbid_inlining,
    leave_strategy,
    trace_graph,
    watch_with_tangent,
)
from bilevel_tf._keras.layers import (
    get_mask,
    get_own_losses,
    get_source,
    in_single_precision,
    replace_sublayers,
    set_mask,
    without_autocast,
)
from bilevel_tf._keras.models import (
    CombinedLoss,
    CopiedByKeras,
    add_layer,
    check_compiled,
    compiled_loss,
    flatten_layers,
    get_compile_arguments,
    get_graph_inputs,
    get_graph_outputs,
    get_strategy,
    is_graph,
    is_saving_to_hdf5,
    make_step_function,
    run_graph,
    runs_its_graph,
    set_compile_argument,
    set_own_trainable,
    takes_graph,
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
    knows_variable,
    set_iterations,
    set_rate_source,
    track_variables,
)

__all__ = [
    "CombinedLoss",
    "CopiedByKeras",
    "HookedOptimizer",
    "StatelessOptimizer",
    "TracedGraphs",
    "add_layer",
    "apply_bijector",
    "check_compiled",
    "compiled_loss",
    "copy_decay_exclusions",
    "decays_weight",
    "excludes_from_decay",
    "find_file_caches",
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
    "is_graph",
    "is_saving_to_hdf5",
    "is_second_moment",
    "knows_variable",
    "leave_strategy",
    "make_step_function",
    "replace_sublayers",
    "run_graph",
    "runs_its_graph",
    "set_compile_argument",
    "set_iterations",
    "set_mask",
    "set_own_trainable",
    "set_rate_source",
    "takes_graph",
    "trace_graph",
    "track_variables",
    "update_mean_loss",
    "watch_with_tangent",
    "without_autocast",
]
