import keras
import numpy as np

from trainer.nn import normalization

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 6, 6, 2)).astype("float32")


def test_refreshed_layers_compute_with_their_weights():
    inner = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Normalization()])
    model = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Normalization(), inner])
    outer, nested = model.layers[0], inner.layers[0]
    outer.adapt_mean.assign([100.0, 50.0])
    outer.adapt_variance.assign([25.0, 4.0])
    nested.adapt_variance.assign([9.0, 16.0])
    normalization.refresh(model)
    expected = (IMAGES - [100, 50]) / [5 * 3, 2 * 4]
    np.testing.assert_allclose(model(IMAGES), expected, rtol=1e-5)


def test_given_statistics_stay():
    layer = keras.layers.Normalization(mean=[10.0, 20.0], variance=[4.0, 9.0])
    model = keras.Sequential([keras.Input((6, 6, 2)), layer])
    normalization.refresh(model)
    np.testing.assert_allclose(model(IMAGES), (IMAGES - [10, 20]) / [2, 3], rtol=1e-5)
