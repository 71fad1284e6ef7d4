"""What Keras asks of its layers, asked of ours.

First `run_layer_test` with plain arguments, then Keras's own tests of the four layers,
which its wheel brings along, with our layer in the place of Keras's.
"""

import importlib.util
import inspect
import re
import types
import warnings
from unittest import mock

import pytest
from keras.src import layers as keras_layers
from keras.src import testing

import bilevel_tf as bt
from bilevel_tf.layers.variational.variational_layer import VariationalLayer

LAYERS = {
    "dense": (bt.HyperDense, {"units": 4, "activation": "relu"}, (2, 3), (2, 4)),
    "dense_no_bias": (bt.HyperDense, {"units": 4, "use_bias": False}, (2, 3), (2, 4)),
    "dense_3d": (
        bt.HyperDense,
        {"units": 5, "kernel_regularizer": "l2", "bias_regularizer": "l1"},
        (2, 3, 4),
        (2, 3, 5),
    ),
    "dense_our_regularizers": (
        bt.HyperDense,
        {"units": 5, "kernel_regularizer": bt.L2(0.1), "bias_regularizer": bt.L1(0.1)},
        (2, 3),
        (2, 5),
    ),
    "dense_activity": (
        bt.HyperDense,
        {"units": 5, "activity_regularizer": "l2"},
        (2, 3),
        (2, 5),
    ),
    "conv_valid": (
        bt.HyperConv2D,
        {"filters": 5, "kernel_size": 2},
        (3, 5, 5, 4),
        (3, 4, 4, 5),
    ),
    "conv_same_strided": (
        bt.HyperConv2D,
        {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
        (3, 5, 5, 2),
        (3, 3, 3, 4),
    ),
    "conv_same_dilated_grouped": (
        bt.HyperConv2D,
        {
            "filters": 6,
            "kernel_size": 2,
            "padding": "same",
            "dilation_rate": (2, 3),
            "groups": 2,
        },
        (3, 4, 4, 4),
        (3, 4, 4, 6),
    ),
    "conv_strided_grouped": (
        bt.HyperConv2D,
        {
            "filters": 6,
            "kernel_size": (2, 3),
            "strides": (2, 1),
            "groups": 2,
            "use_bias": False,
            "kernel_regularizer": bt.regularizers.L1L2(0.1, 0.2),
        },
        (3, 5, 5, 4),
        (3, 2, 3, 6),
    ),
    "variational_dense": (
        bt.VariationalDense,
        {"units": 4, "activation": "relu", "prior": bt.NormalPrior(data_size=5)},
        (2, 3),
        (2, 4),
    ),
    "variational_dense_3d_flipout": (
        bt.VariationalDense,
        {
            "units": 4,
            "use_bias": False,
            "prior": bt.regularizers.ScaleMixturePrior(data_size=5),
            "estimator": "flipout",
        },
        (2, 3, 5),
        (2, 3, 4),
    ),
    "variational_conv": (
        bt.layers.VariationalConv2D,
        {
            "filters": 6,
            "kernel_size": (2, 3),
            "strides": (2, 1),
            "groups": 2,
            "kernel_regularizer": "l2",
            "prior": bt.NormalPrior(data_size=5),
            "bias_prior": bt.NormalPrior(2.0, data_size=5),
        },
        (3, 5, 5, 4),
        (3, 2, 3, 6),
    ),
    "variational_conv_local": (
        bt.layers.VariationalConv2D,
        {
            "filters": 4,
            "kernel_size": 2,
            "padding": "same",
            "dilation_rate": 2,
            "prior": bt.NormalPrior(data_size=5),
            "estimator": "local",
        },
        (3, 5, 5, 4),
        (3, 5, 5, 4),
    ),
    "dropout": (bt.HyperDropout, {"rate": 0.2}, (2, 3), (2, 3)),
    "dropout_noise_shape": (
        bt.HyperDropout,
        {"rate": 0.2, "noise_shape": (None, 1, None), "seed": 3},
        (2, 3, 4),
        (2, 3, 4),
    ),
    "gaussian_noise": (bt.HyperGaussianNoise, {"stddev": 0.2}, (2, 3), (2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_run_layer_test(name):
    layer_class, arguments, input_shape, output_shape = LAYERS[name]
    noise = issubclass(layer_class, (bt.HyperDropout, bt.HyperGaussianNoise))
    variational = issubclass(layer_class, VariationalLayer)
    regularizers = [key for key in arguments if key.endswith("_regularizer")]
    weights = 0 if noise else 2 if arguments.get("use_bias", True) else 1
    if variational:
        # A scale beside each mean, and a divergence for each.
        regularizers += ["divergence"] * weights
        weights *= 2
    testing.TestCase().run_layer_test(
        layer_class,
        init_kwargs=arguments,
        input_shape=input_shape,
        call_kwargs={"training": True} if noise or variational else None,
        expected_output_shape=output_shape,
        expected_num_trainable_weights=weights,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=1 if noise or variational else 0,
        expected_num_losses=len(regularizers),
        supports_masking=not issubclass(layer_class, keras_layers.Conv2D),
        assert_built_after_instantiation=noise,
    )


# Keras's own tests. Each left-out test has its reason beside it; parametrised tests
# are named without their parameters.

LORA = "LoRA is not supported by hyper-layers"
QUANTIZATION = "quantisation is not supported by hyper-layers"
OTHER_LAYER = "about a Keras layer that has no hyper-counterpart"

KERAS_TESTS = {
    ("core.dense_test", "Dense"): {
        "test_enable_lora": LORA,
        "test_enable_lora_on_unbuilt_layer": LORA,
        "test_enable_lora_when_already_enabled": LORA,
        "test_enable_lora_with_alpha": LORA,
        "test_enable_lora_with_kernel_constraint": LORA,
        "test_lora_rank_argument": LORA,
        "test_lora_weight_name": LORA,
        "test_awq_kernel_packing": QUANTIZATION,
        "test_awq_serialization": QUANTIZATION,
        "test_dense_int4_custom_quantizer": QUANTIZATION,
        "test_dense_int8_custom_quantizer": QUANTIZATION,
        "test_dense_int8_weight_only_quantizer": QUANTIZATION,
        "test_dense_quantize_config": QUANTIZATION,
        "test_gptq_kernel_packing": QUANTIZATION,
        "test_gptq_serialization": QUANTIZATION,
        "test_int4_awq_kernel_returns_unpacked_form": QUANTIZATION,
        "test_int4_block_size_serialization": QUANTIZATION,
        "test_int4_block_size_with_lora": QUANTIZATION,
        "test_int4_gptq_kernel_returns_unpacked_form": QUANTIZATION,
        "test_int4_grouped_vs_perchannel_scale_shapes": QUANTIZATION,
        "test_int4_kernel_returns_unpacked_form": QUANTIZATION,
        "test_int4_perchannel_no_g_idx": QUANTIZATION,
        "test_int4_quantization_block_size": QUANTIZATION,
        "test_int4_subchannel_g_idx_created": QUANTIZATION,
        "test_int4_subchannel_g_idx_serialization": QUANTIZATION,
        "test_legacy_load_own_variables": QUANTIZATION,
        "test_quantize_by_setting_dtype_policy": QUANTIZATION,
        "test_quantize_dtype_argument": QUANTIZATION,
        "test_quantize_float8": QUANTIZATION,
        "test_quantize_float8_fitting": QUANTIZATION,
        "test_quantize_float8_inference": QUANTIZATION,
        "test_quantize_int": QUANTIZATION,
        "test_quantize_invalid_mode": QUANTIZATION,
        "test_quantize_lora_integration": QUANTIZATION,
        "test_quantize_on_subclass": QUANTIZATION,
        "test_quantize_on_unbuilt_layer": QUANTIZATION,
        "test_quantize_when_already_quantized": QUANTIZATION,
    },
    ("convolutional.conv_test", "Conv2D"): {
        "test_enable_lora": LORA,
        "test_enable_lora_with_alpha": LORA,
        "test_lora_rank_argument": LORA,
        "test_lora_weight_name": LORA,
        "test_conv1d": OTHER_LAYER,
        "test_conv1d_basic": OTHER_LAYER,
        "test_conv3d": OTHER_LAYER,
        "test_conv3d_basic": OTHER_LAYER,
    },
    ("regularization.dropout_test", "Dropout"): {},
    ("regularization.gaussian_noise_test", "GaussianNoise"): {},
}


def keras_test_classes(module_name, keras_name, excluded):
    """Keras's test classes of a module, made anew with our layer in Keras's place."""
    spec = importlib.util.find_spec(f"keras.src.layers.{module_name}")
    if spec is None:
        return {}
    hyper_class = getattr(bt, f"Hyper{keras_name}")
    module = importlib.util.module_from_spec(spec)
    with (
        mock.patch.object(keras_layers, keras_name, hyper_class),
        warnings.catch_warnings(),
    ):
        # Keras registers its pytest marks in its own configuration.
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
        spec.loader.exec_module(module)
    replaced = {**vars(keras_layers), keras_name: hyper_class}
    module.layers = types.SimpleNamespace(**replaced)
    written = re.findall(r"def (test_\w+)\(", inspect.getsource(module))

    def is_excluded(test):
        # A parametrised test's name is the written one and more.
        names = [name for name in written if test.startswith(name)]
        return max(names, key=len, default=None) in excluded

    classes = {}
    for test_class in vars(module).values():
        if not isinstance(test_class, type) or test_class.__module__ != module.__name__:
            continue
        body = {test: None for test in dir(test_class) if is_excluded(test)}
        name = f"{test_class.__name__}OfHyper{keras_name}"
        body["__module__"] = __name__
        classes[name] = type(test_class)(name, (test_class,), body)
    return classes


KERAS_CLASSES = {
    keys: keras_test_classes(*keys, excluded) for keys, excluded in KERAS_TESTS.items()
}
for classes in KERAS_CLASSES.values():
    globals().update(classes)


@pytest.mark.parametrize("keys", KERAS_CLASSES, ids=lambda keys: keys[1])
def test_keras_tests_see_our_layer(keys):
    """Otherwise the classes above would pass by testing Keras's own layer."""
    if not KERAS_CLASSES[keys]:
        pytest.skip(f"This Keras is installed without keras.src.layers.{keys[0]}.")
    for test_class in KERAS_CLASSES[keys].values():
        functions = inspect.getmembers(test_class, inspect.isfunction)
        seen = [
            vars(function.__globals__["layers"])[keys[1]]
            for name, function in functions
            if name.startswith("test_") and "layers" in function.__globals__
        ]
        assert seen
        assert set(seen) == {getattr(bt, f"Hyper{keys[1]}")}
