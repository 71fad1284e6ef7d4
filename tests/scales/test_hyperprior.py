"""The prior's arguments; its KL divergence is tested with the space."""

import keras
import pytest

import bilevel_tf as bt


def test_config_round_trip():
    prior = bt.scales.GaussianHyperprior(0.2, scale=0.5)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(prior)
    )
    assert isinstance(again, bt.scales.GaussianHyperprior)
    assert again.get_config() == {"center": 0.2, "scale": 0.5}


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_not_positive(scale):
    with pytest.raises(
        ValueError, match=f"`scale` must be positive and finite.*scale={scale}"
    ):
        bt.scales.GaussianHyperprior(0.2, scale=scale)
