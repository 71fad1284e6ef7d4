"""Private names of Keras and TensorFlow: where they stand, and what they do.

If a new release of Keras or TensorFlow breaks this library, a test of this file fails
first and says which function of `bilevel_tf._keras` no longer does what it promises.
"""

import ast
import functools
import gc
import importlib
import inspect
import pathlib
import pkgutil
import re
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.eager import forwardprop

import bilevel_tf as bt
from bilevel_tf import _keras

PACKAGE = pathlib.Path(bt.__file__).parent


# Public, in spite of the underscore.
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}


# Where private names stand


def private(name):
    return name.startswith("_") and not name.startswith("__")


@functools.cache
def parse(path):
    return ast.parse(pathlib.Path(path).read_text(encoding="utf-8"))


def own_files():
    files = sorted(PACKAGE.rglob("*.py"))
    return [f for f in files if "_keras" not in f.relative_to(PACKAGE).parts]


def relative(path):
    return pathlib.Path(path).relative_to(PACKAGE).as_posix()


def defined(tree):
    """Private names of methods, class attributes and attributes of `self` in a file."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(
            node.ctx, ast.Store
        ):
            names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return set(filter(private, names))


def is_foreign(kind):
    return kind.__module__.split(".")[0] in ("keras", "tensorflow")


@functools.cache
def names_of_class(kind):
    """Private names that a class of Keras or TensorFlow defines or sets."""
    names = set(filter(private, vars(kind)))
    for node in ast.walk(parse(inspect.getfile(kind))):
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            names |= defined(node)
    return names


@functools.cache
def common_foreign_names():
    inputs = keras.Input((1,))
    functional = type(keras.Model(inputs, keras.layers.Dense(1)(inputs)))
    kinds = [
        functional,
        keras.Sequential,
        keras.Variable,
        keras.KerasTensor,
        keras.Loss,
        keras.Metric,
        keras.Regularizer,
        keras.optimizers.Adam,
        keras.optimizers.LossScaleOptimizer,
    ]
    classes = {k for kind in kinds for k in kind.__mro__ if is_foreign(k)}
    return set.union(*map(names_of_class, classes)) | {"_keras_history", "_keras_mask"}


@functools.cache
def own_names():
    return NAMED_TUPLE.union(*(defined(parse(path)) for path in own_files()))


def uses_of_others(tree):
    """Private attributes of anything but `self` that this library does not define."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not private(node.attr):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else None
        if owner not in ("self", "cls") and (
            node.attr not in own_names() or node.attr in common_foreign_names()
        ):
            yield node.lineno, node.attr


def private_modules(tree):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            if re.match(r"keras\.src|tensorflow\.python|tf\.(__internal__|_api)", name):
                yield node.lineno, name


def private_strings(tree):
    """Strings such as "_keras_mask", which `getattr` may be given."""
    formatted = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and id(node) not in formatted
            and re.fullmatch(r"_[a-z][a-z_]+", str(node.value))
        ):
            yield node.lineno, node.value


def own_classes():
    for module in pkgutil.walk_packages([str(PACKAGE)], "bilevel_tf."):
        if "._keras" not in module.name:
            found = vars(importlib.import_module(module.name)).values()
            yield from (
                c for c in found if inspect.isclass(c) and c.__module__ == module.name
            )


def inherited_uses():
    """Private names of Keras that our subclasses and their mixins use or override."""
    for kind in own_classes():
        foreign = [k for k in kind.__mro__ if is_foreign(k)]
        theirs = set().union(*map(names_of_class, foreign))
        for base in kind.__mro__:
            if base.__module__.startswith("bilevel_tf.") and (
                "._keras" not in base.__module__
            ):
                yield from uses_in_class(base, theirs)


def uses_in_class(kind, theirs):
    path = inspect.getfile(kind)
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            for part in ast.walk(node):
                name = getattr(part, "attr", getattr(part, "name", None))
                if isinstance(name, str) and private(name) and name in theirs:
                    yield relative(path), part.lineno, name


def test_private_names_stand_in_one_package():
    found = {
        (relative(path), line, name)
        for path in own_files()
        for check in (uses_of_others, private_modules, private_strings)
        for line, name in check(parse(path))
    }
    found |= set(inherited_uses())
    left = sorted(f"{p}:{n} {name}" for p, n, name in found)
    assert not left, "Use a function of bilevel_tf._keras:\n" + "\n".join(left)


def test_the_package_imports_nothing_of_ours():
    for path in (PACKAGE / "_keras").glob("*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ImportFrom):
                module = node.module
                assert not module.startswith("bilevel_tf") or "_keras" in module


def test_every_private_use_has_a_test():
    text = pathlib.Path(__file__).read_text(encoding="utf-8")
    for name in _keras.__all__:
        assert f"_keras.{name}" in text, name


# Graphs


def test_forbid_inlining():
    """The call is still a call when the graph has been optimised."""

    def called_names(inner):
        outer = tf.function(lambda x: inner(x) + 1.0, autograph=False)
        x = tf.constant(2.0)
        np.testing.assert_allclose(outer(x), 5.0)
        graph = outer.get_concrete_function(x).graph.as_graph_def()
        return [f.attr["_noinline"].b for f in graph.library.function]

    def double(x):
        return 2.0 * x

    assert called_names(_keras.forbid_inlining(double)) == [True]
    assert called_names(tf.function(double)) == [False]


def test_watch_with_tangent():
    x = tf.constant(3.0)
    with tf.autodiff.ForwardAccumulator(tf.constant(0.0), tf.constant(1.0)) as forward:
        _keras.watch_with_tangent(forward, x, tf.constant(2.0))
        square = x**2
    np.testing.assert_allclose(forward.jvp(square), 12.0)


def test_traced_graphs():
    """Custom gradients and forward derivatives of a traced graph are forgotten."""

    @tf.custom_gradient
    def double(x):
        return 2.0 * x, lambda cotangent: 2.0 * cotangent

    graphs, traced = _keras.TracedGraphs(), []

    def slope(x):
        graphs.note()
        traced.append(weakref.ref(tf.compat.v1.get_default_graph()))
        with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as forward:
            y = tf.while_loop(lambda y: y < 5.0, lambda y: (double(y),), (x**2,))[0]
            z = tf.sin(double(x))
        return y, forward.jvp(z)

    function = tf.function(slope, autograph=False)
    for _ in range(2):
        np.testing.assert_allclose(function(tf.constant(1.0))[1], 2.0 * np.cos(2.0))
        graphs.forget()
    assert len(traced) == 1
    del function
    gc.collect()
    assert traced[0]() is None


def test_traced_graphs_do_not_use_up_exact_shapes():
    """TensorFlow gives up exact shapes after 32 traces for one operation."""
    for size in range(1, 40):
        graphs = _keras.TracedGraphs()

        def slope(x, graphs=graphs):
            graphs.note()
            with tf.autodiff.ForwardAccumulator(x, x) as forward:
                y = tf.tan(x)
            return forward.jvp(y)

        tf.function(slope)(tf.ones(size))
        graphs.forget()
    count = forwardprop._TRACE_COUNT.get("Tan", 0)
    assert count < 2


@pytest.mark.parametrize("inverse", [False, True])
def test_apply_bijector(inverse):
    expected = np.log(3.0) / 2.0 if inverse else np.exp(6.0)
    held = []

    def trace_and_run():
        bijector = tfp.bijectors.Chain([tfp.bijectors.Exp(), tfp.bijectors.Scale(2.0)])

        def apply(x):
            held.append(weakref.ref(tf.compat.v1.get_default_graph()))
            return _keras.apply_bijector(bijector, x, inverse=inverse)

        held.append(weakref.ref(bijector))
        return tf.function(apply, autograph=False)(tf.constant(3.0))

    np.testing.assert_allclose(trace_and_run(), expected, rtol=1e-6)
    gc.collect()
    assert [ref() for ref in held] == [None, None]


# Layers


class AddsLosses(keras.layers.Layer):
    """It adds a loss of its own, and has a sublayer with a penalty."""

    def __init__(self):
        super().__init__(activity_regularizer=keras.regularizers.L2(1.0))
        self.dense = keras.layers.Dense(1, "linear", True, "ones")
        self.dense.kernel_regularizer = keras.regularizers.L2(1.0)

    def call(self, inputs):
        self.add_loss(tf.constant(5.0))
        return self.dense(inputs)


def test_get_own_losses():
    layer = AddsLosses()
    assert _keras.get_own_losses(layer) == []
    layer(tf.ones((1, 2)))
    np.testing.assert_allclose(sorted(_keras.get_own_losses(layer)), [4.0, 5.0])
    assert len(layer.losses) == 3


def test_get_source():
    split = keras.layers.Lambda(lambda x: [x, 2.0 * x], name="split")
    _, second = split(keras.Input((2,)))
    layer, index = _keras.get_source(second)
    assert layer is split
    assert index == 1


def test_get_mask():
    embedded = keras.layers.Embedding(5, 2, mask_zero=True)(keras.Input((3,)))
    assert _keras.get_mask(embedded).shape == (None, 3)
    assert _keras.get_mask(keras.layers.Dense(2)(keras.Input((3,)))) is None


def test_set_mask():
    """Keras's losses heed it, eagerly and in a graph."""
    targets = tf.constant([[1.0, 50.0], [3.0, 4.0]])

    def loss():
        outputs = tf.zeros([2, 2, 1])
        _keras.set_mask(outputs, tf.constant([[True, False], [True, True]]))
        assert _keras.get_mask(outputs) is not None
        return keras.losses.MeanSquaredError()(targets[..., None], outputs)

    assert float(loss()) == pytest.approx((1 + 9 + 16) / 3)
    assert float(tf.function(loss)()) == pytest.approx((1 + 9 + 16) / 3)


def test_replace_sublayers():
    class Holds(keras.layers.Layer):
        def build(self, shape):
            self.held = {"dense": keras.layers.Dense(1)}

        def call(self, inputs):
            return self.held["dense"](inputs)

    layer = Holds()
    layer(tf.ones((1, 2)))
    old = layer.held["dense"].kernel
    new = keras.layers.Dense(1)
    _keras.replace_sublayers(layer, "held", {"dense": new})
    assert layer.held["dense"] is new
    layer(tf.ones((1, 2)))
    assert [v is old for v in layer.weights] == [False, False]
    assert layer.weights[0] is new.kernel
    with pytest.raises(Exception, match="cannot add new elements"):
        layer.later = keras.Variable(1.0)


def test_without_autocast():
    class Reads(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=())

        def call(self, inputs):
            cast = tf.convert_to_tensor(self.scale).dtype
            with _keras.without_autocast():
                self.dtypes = cast, tf.convert_to_tensor(self.scale).dtype
            return inputs

    layer = Reads(dtype="mixed_float16")
    layer(tf.ones((1, 2)))
    assert layer.dtypes == (tf.float16, tf.float32)


# Models


def small_model(**arguments):
    inputs = keras.Input((2,), name="x")
    hidden = keras.Sequential([keras.layers.Dense(3)], name="nested")(inputs)
    model = keras.Model({"x": inputs}, {"y": keras.layers.Dense(1, name="y")(hidden)})
    model.compile("sgd", "mse", **arguments)
    return model


def test_flatten_layers():
    model = small_model()
    names = [layer.name for layer in _keras.flatten_layers(model)]
    dense = model.get_layer("nested").layers[0].name
    assert [n for n in names if n in ("x", "nested", dense, "y")] == [
        *("x", "nested"),
        dense,
        "y",
    ]
    assert _keras.flatten_layers(model, include_self=True)[0] is model


def test_add_layer():
    model = small_model()
    extra = keras.layers.Dense(1, name="extra")
    extra.build((None, 4))
    _keras.add_layer(model, extra)
    _keras.add_layer(model, extra)
    names = [layer.name for layer in _keras.flatten_layers(model)]
    assert names.count("extra") == 1
    assert any(v is extra.kernel for v in model.variables)


def test_get_graph_inputs_and_get_graph_outputs():
    model = small_model()
    assert _keras.get_graph_inputs(model)["x"] is model.inputs[0]
    assert _keras.get_graph_outputs(model)["y"] is model.outputs[0]
    sequential = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    inputs = _keras.get_graph_inputs(sequential)
    outputs = _keras.get_graph_outputs(sequential)
    again = keras.Model(inputs, outputs)
    x = np.ones((1, 2), "float32")
    np.testing.assert_array_equal(again(x), sequential(x))


def test_get_compile_arguments_and_set_compile_argument():
    model = small_model(loss_weights={"y": 2.0}, metrics=["mae"])
    found = _keras.get_compile_arguments(model)
    assert found["loss"] == "mse"
    assert found["loss_weights"] == {"y": 2.0}
    assert found["metrics"] == ["mae"]
    assert found["weighted_metrics"] is None
    _keras.set_compile_argument(model, "optimizer", "adam")
    assert model.get_compile_config()["optimizer"] == "adam"


def test_check_compiled():
    model = small_model()
    _keras.check_compiled(model, "fit")
    with pytest.raises(ValueError, match=r"must call `compile\(\)` before"):
        _keras.check_compiled(keras.Model(model.inputs, model.outputs), "tune_it")


def test_get_strategy():
    assert _keras.get_strategy(small_model()) is None
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        model = small_model()
    assert _keras.get_strategy(model) is strategy


class Told(_keras.CopiedByKeras, keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rebuilt = []

    def graph_rebuilt(self, outputs):
        if hasattr(self, "rebuilt"):
            self.rebuilt.append(outputs)


def test_copied_by_keras():
    inputs = keras.Input((3,))
    model = Told(inputs, keras.layers.Dense(2)(inputs))
    model.rebuilt = []
    clone = keras.models.clone_model(model)
    assert isinstance(clone, Told)
    assert [tensor is clone.outputs[0] for tensor in model.rebuilt] == [True]


def test_leave_strategy():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        variable = keras.Variable(1.0)
        with _keras.leave_strategy():
            assert not tf.distribute.has_strategy()
            assert tf.distribute.get_replica_context() is not None
            tf.function(lambda: variable.assign(variable + 1.0))()
        assert tf.distribute.get_strategy() is strategy
    with _keras.leave_strategy():
        assert variable.numpy() == 2.0


def test_make_step_function():
    model = small_model(steps_per_execution=2)
    total = keras.Variable(0.0)

    def step(data):
        total.assign_add(tf.reduce_sum(data))
        return {"total": total.value}

    data = tf.data.Dataset.from_tensor_slices([1.0, 2.0, 4.0]).batch(1)
    logs = _keras.make_step_function(model, step)(iter(data))
    np.testing.assert_allclose(logs["total"], 3.0)


def test_update_mean_loss():
    model = small_model()
    _keras.update_mean_loss(model, tf.constant(1.0), tf.constant(3))
    _keras.update_mean_loss(model, tf.constant(5.0), tf.constant(1))
    np.testing.assert_allclose(model.get_metrics_result()["loss"], 2.0)


# Optimizers


@pytest.mark.parametrize("rule", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_knows_variable(rule):
    one, other = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer = rule(0.1)
    optimizer.build([one])
    assert _keras.knows_variable(optimizer, one)
    assert not _keras.knows_variable(optimizer, other)


def schedule():
    return keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)


def test_get_rate_source_and_set_rate_source():
    optimizer = keras.optimizers.SGD(0.5)
    assert isinstance(_keras.get_rate_source(optimizer), keras.Variable)
    assert any(v is _keras.get_rate_source(optimizer) for v in optimizer.variables)
    decay = schedule()
    assert _keras.get_rate_source(keras.optimizers.SGD(decay)) is decay
    other = keras.Variable(0.25)
    _keras.set_rate_source(optimizer, other)
    assert _keras.get_rate_source(optimizer) is other
    weight = keras.Variable(1.0)
    optimizer.apply([tf.constant(1.0)], [weight])
    np.testing.assert_allclose(weight, 0.75)


def test_set_iterations():
    optimizer = keras.optimizers.SGD()
    _keras.set_iterations(optimizer, 7)
    assert int(optimizer.iterations) == 7


def test_track_variables():
    optimizer, extra = keras.optimizers.SGD(), keras.Variable(1.0)
    _keras.track_variables(optimizer, [extra])
    assert optimizer.variables[-1] is extra


def test_get_variable_index():
    weights = [keras.Variable(1.0), keras.Variable(2.0)]
    optimizer = keras.optimizers.SGD()
    optimizer.build(weights)
    assert _keras.get_variable_index(optimizer, weights[1]) == 1
    assert _keras.get_variable_index(optimizer, weights[1].value) == 1
    with pytest.raises(KeyError):
        _keras.get_variable_index(optimizer, keras.Variable(1.0))


def test_excludes_from_decay_decays_weight_and_copy_decay_exclusions():
    weights = [keras.Variable(1.0, name=n) for n in ("kernel", "bias", "scale")]
    optimizer = keras.optimizers.SGD(weight_decay=0.1)
    assert not _keras.excludes_from_decay(optimizer)
    optimizer.exclude_from_weight_decay(weights[2:], ["bias"])
    assert _keras.excludes_from_decay(optimizer)
    copy = keras.optimizers.SGD(weight_decay=0.1)
    _keras.copy_decay_exclusions(optimizer, copy)
    for o in (optimizer, copy):
        found = [_keras.decays_weight(o, w) for w in weights]
        assert found == [True, False, False]
        assert not _keras.decays_weight(o, weights[2].value)


def test_is_second_moment():
    weight = keras.Variable([1.0], name="velocity")
    second = {}
    for optimizer in (
        keras.optimizers.Adam(amsgrad=True),
        keras.optimizers.RMSprop(momentum=0.5, centered=True),
        keras.optimizers.SGD(momentum=0.5),
    ):
        optimizer.build([weight])
        names = [v.path for v in optimizer.variables if _keras.is_second_moment(v)]
        second[type(optimizer).__name__] = len(names)
    assert second == {"Adam": 2, "RMSprop": 1, "SGD": 0}


def test_stateless_optimizer():
    """`apply` in a scope steps as Keras does, and no variable changes."""

    class Adam(keras.optimizers.Adam, _keras.StatelessOptimizer):
        def decays(self, variable):
            return False

        def clip_globally(self, gradients):
            return [tf.constant([4.0])]

    def make(kind):
        return kind(0.1, weight_decay=0.5, global_clipnorm=1.0)

    weight = keras.Variable([1.0])
    pure = make(Adam)
    pure.build([weight])
    with keras.StatelessScope() as scope:
        pure.apply([tf.constant([2.0])], [weight])
    found = scope.get_current_value(weight)
    np.testing.assert_array_equal(weight, [1.0])
    assert int(pure.iterations) == 0
    slots = [scope.get_current_value(v) for v in pure.variables]
    momenta = [
        s
        for s, v in zip(slots, pure.variables, strict=True)
        if v.name.endswith("momentum")
    ]
    np.testing.assert_allclose(momenta, [[0.4]], rtol=1e-6)
    np.testing.assert_allclose(found, [0.9], rtol=1e-6)


def test_stateless_optimizer_keeps_the_defaults_of_keras():
    class SGD(keras.optimizers.SGD, _keras.StatelessOptimizer):
        pass

    ends = []
    for kind in (SGD, keras.optimizers.SGD):
        weights = [keras.Variable([1.0], name=n) for n in ("kernel", "bias")]
        optimizer = kind(0.1, weight_decay=0.5, global_clipnorm=1.0)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build(weights)
        optimizer.apply([tf.constant([3.0]), tf.constant([4.0])], weights)
        ends.append(np.array(weights))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)
    np.testing.assert_allclose(ends[1][:, 0], [0.95 - 0.06, 1 - 0.08], rtol=1e-6)


def test_hooked_optimizer():
    """It sees clipped gradients before a step, and Keras decays no weight."""
    seen = []

    class SGD(_keras.HookedOptimizer):
        def see_gradients(self, pairs):
            seen.extend((float(g), float(v)) for g, v in pairs)

        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, learning_rate * gradient)

    weight = keras.Variable(1.0)
    optimizer = SGD(0.5, weight_decay=0.9, clipvalue=0.25)
    optimizer.apply([tf.constant(3.0)], [weight])
    assert seen == [(0.25, 1.0)]
    np.testing.assert_allclose(weight, 0.875)


def _small_graph():
    inputs = keras.Input((2,), name="given")
    return keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs))


def test_is_graph_and_runs_its_graph_and_takes_graph():
    class Doubled(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2.0 * super().call(inputs)

    class Sized(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((2,))
            super().__init__(inputs, keras.layers.Dense(units)(inputs))

    graph, unbuilt = _small_graph(), keras.Sequential([keras.layers.Dense(3)])
    doubled, sized = Doubled(graph.inputs, graph.outputs), Sized(3)
    built = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    assert all(map(_keras.is_graph, (graph, built, doubled, sized)))
    assert not any(map(_keras.is_graph, (unbuilt, keras.layers.Dense(3))))
    assert all(map(_keras.runs_its_graph, (graph, built, sized)))
    assert not _keras.runs_its_graph(doubled)
    assert all(map(_keras.takes_graph, (keras.Model, type(graph), Doubled)))
    assert not _keras.takes_graph(Sized)


def test_run_graph():
    model, other = _small_graph(), keras.layers.Dense(5)
    inputs, seen = keras.Input((2,)), []

    def replace(layer):
        seen.append(layer)
        return other

    outputs = _keras.run_graph(model, inputs, replace)
    assert outputs.shape == (None, 5)
    assert seen == [model.layers[1]]
    assert _keras.get_source(outputs)[0] is other


def test_set_own_trainable():
    model = _small_graph()
    _keras.set_own_trainable(model, False)
    assert not model.trainable
    assert model.layers[1].trainable
    assert model.layers[1].kernel.trainable
    assert model.trainable_variables == []


def test_is_saving_to_hdf5(tmp_path):
    seen = []

    class Watching(keras.layers.Layer):
        def get_config(self):
            seen.append(_keras.is_saving_to_hdf5())
            return super().get_config()

    model = keras.Sequential([keras.Input((2,)), Watching()])
    model.save(tmp_path / "model.keras")
    assert seen
    assert not any(seen)
    seen.clear()
    model.save(tmp_path / "model.h5")
    assert seen
    assert all(seen)
    assert not _keras.is_saving_to_hdf5()


def test_combined_loss_is_that_of_compile_without_metrics():
    inputs = keras.Input((2,))
    layers = [keras.layers.Dense(1, name=name) for name in ("a", "b")]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    model.compile(loss="mse")
    given = {"a": "mae", "b": "mse"}
    loss = _keras.CombinedLoss(given, {"a": 1.0, "b": 2.0}, model.output_names)
    y = [np.ones((3, 1), "float32"), np.zeros((3, 1), "float32")]
    outputs = [np.full((3, 1), 3.0, "float32"), np.full((3, 1), 2.0, "float32")]
    training = float(model.compute_loss(None, y, outputs))
    with _keras.compiled_loss(model, loss):
        assert float(model.compute_loss(None, y, outputs)) == 2.0 + 2.0 * 4.0
    assert float(model.compute_loss(None, y, outputs)) == training == 4.0 + 4.0
    assert loss.metrics == [None, None]
    assert loss.mean.name == "outer_loss"


# Data sets


def test_caches_in_files_are_found(tmp_path):
    numbers = tf.data.Dataset.range(6)
    assert _keras.find_file_caches(numbers.cache().batch(2)) == []
    in_file = numbers.cache(str(tmp_path / "cache"))
    data = tf.data.Dataset.zip((numbers, in_file.map(lambda n: n + 1))).batch(2)
    found = _keras.find_file_caches(data.repeat().prefetch(1))
    assert found == [in_file]


def test_repeats_are_found():
    numbers = tf.data.Dataset.range(6)
    assert not _keras.repeats(numbers.batch(2).shuffle(3))
    assert _keras.repeats(numbers.repeat(2).batch(2))
    zipped = tf.data.Dataset.zip((numbers, numbers.repeat().map(lambda n: n + 1)))
    assert _keras.repeats(zipped.prefetch(1))


def test_in_single_precision_and_back():
    policies = ("mixed_float16", "mixed_bfloat16", "float32")
    layers = [keras.layers.Dense(1, dtype=policy) for policy in policies]
    with _keras.in_single_precision(layers):
        found = [layer.compute_dtype for layer in layers]
        assert found == ["float32", "bfloat16", "float32"]
        assert layers[0](np.ones((2, 3), "float32")).dtype == tf.float32
    assert [layer.compute_dtype for layer in layers] == [
        "float16",
        "bfloat16",
        "float32",
    ]
    assert layers[0](np.ones((2, 3), "float32")).dtype == tf.float16
    assert layers[0].dtype_policy.name == "mixed_float16"


def test_trace_graph_captures_what_is_outside():
    variable, results = tf.Variable(2.0), []
    graph, arguments = _keras.trace_graph(
        lambda x: results.append(variable * x + tf.constant(1.0)), [tf.TensorSpec([2])]
    )
    assert results[0].graph is arguments[0].graph is graph
    assert results[0].shape == (2,)
    assert float(variable) == 2.0
