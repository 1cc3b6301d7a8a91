"""Size, outputs and initial weights of vision transformers, against a slow reference."""

import keras
import numpy as np
import pytest

from trainer.errors import UserError
from trainer.nn import layer_groups
from trainer.nn.layer_paths import layer_paths, weight_paths
from trainer.nn.models import registry
from trainer.nn.models.registry import GhostNorm, ImageFormat
from trainer.nn.models.vision_transformer import SIZES, Size, vision_transformer
from trainer.nn.optimizers import decays

SMALL = Size(width=24, heads=3, depth=2)
SHAPE = (12, 8, 3)


@pytest.fixture(scope="module")
def small():
    """A small transformer whose weights are all random."""
    keras.utils.set_random_seed(0)
    model = vision_transformer(SMALL, 4, SHAPE, 5)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight.numpy() + rng.normal(scale=0.3, size=weight.shape))
    return model


def images_of(shape, count=3):
    return np.random.default_rng(2).normal(size=(count, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "patch", "shape", "classes"),
    [("ti", 4, (28, 28, 1), 10), ("ti", 7, (28, 28, 1), 10), ("s", 16, (224, 224, 3), 1000)],
)
def test_the_number_of_parameters_is_that_of_the_closed_form(name, patch, shape, classes):
    model, d = vision_transformer(SIZES[name], patch, shape, classes), SIZES[name].width
    # Attention has four kernels d × d, the MLP two d × 4d; then biases, and two layer norms.
    blocks = 12 * (12 * d**2 + 13 * d)
    wanted = (patch**2 * shape[-1] + 1) * d + blocks + 2 * d + (d + 1) * classes
    assert model.count_params() == wanted
    assert model.non_trainable_weights == []
    assert model.output_shape == (None, classes)
    if name == "s":  # DeiT-S without its class token and its positions that train.
        assert wanted == 22_050_664 - 384 - 197 * 384


def test_sizes_are_those_of_the_papers():
    found = {name: (size.width, size.heads, size.depth) for name, size in SIZES.items()}
    assert found == {"ti": (192, 3, 12), "s": (384, 6, 12), "b": (768, 12, 12)}


def slow_positions(h, w, width):
    """Returns the positions [h, w, width], value by value."""
    quarter = width // 4
    found = np.zeros((h, w, width))
    for row in range(h):
        for column in range(w):
            for i in range(quarter):
                frequency = 1 / 10_000 ** (i / (quarter - 1))
                values = np.sin(column * frequency), np.cos(column * frequency)
                values += np.sin(row * frequency), np.cos(row * frequency)
                found[row, column, i::quarter] = values
    return found


def slow(model, images, size, patch):
    """Returns the logits in float64, by loops over examples and heads."""
    named = {path: np.float64(weight.numpy()) for path, weight in weight_paths(model).items()}

    def dense(x, name):
        return x @ named[f"{name}/kernel"] + named[f"{name}/bias"]

    def norm(x, name):
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        scaled = (x - x.mean(-1, keepdims=True)) / spread
        return scaled * named[f"{name}/gamma"] + named[f"{name}/beta"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    logits = []
    for image in images:
        h, w = image.shape[0] // patch, image.shape[1] // patch
        x = np.zeros((h, w, size.width))
        for i in range(h):
            for j in range(w):
                part = image[i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
                x[i, j] = np.tensordot(part, named["embedding/kernel"], 3) + named["embedding/bias"]
        x = (x + slow_positions(h, w, size.width)).reshape(h * w, size.width)
        for number in range(1, size.depth + 1):
            name = f"block{number}"
            y = norm(x, f"{name}_norm1")
            q, k, v = (dense(y, f"{name}_{part}") for part in ("query", "key", "value"))
            heads = []
            for each in np.split(np.arange(size.width), size.heads):
                scores = q[:, each] @ k[:, each].T / np.sqrt(len(each))
                shares = np.exp(scores - scores.max(-1, keepdims=True))
                heads.append(shares / shares.sum(-1, keepdims=True) @ v[:, each])
            x = x + dense(np.concatenate(heads, -1), f"{name}_projection")
            y = gelu(dense(norm(x, f"{name}_norm2"), f"{name}_mlp1"))
            x = x + dense(y, f"{name}_mlp2")
        logits.append(dense(norm(x, "last_norm").mean(0), "logits"))
    return np.stack(logits)


def test_logits_equal_a_slow_reference(small):
    images = images_of(SHAPE)
    np.testing.assert_allclose(small(images), slow(small, images, SMALL, 4), atol=2e-4)


def test_a_patch_that_does_not_divide_is_refused():
    message = (
        "patches of 16×16 pixels do not divide images of 28×28.\n"
        "Use a patch of 2 or 4 or 7 or 14 or 28, or images of another size, such as 16 or 32."
    )
    with pytest.raises(UserError, match=message):
        vision_transformer(SMALL, 16, (28, 28, 1), 10)
    with pytest.raises(UserError, match="do not divide images of 12×10"):
        vision_transformer(SMALL, 4, (12, 10, 3), 10)


def test_weights_do_not_depend_on_the_image_size():
    models = [vision_transformer(SMALL, 4, (side, side, 3), 5) for side in (8, 16)]
    first, second = ({p: w.shape for p, w in weight_paths(m).items()} for m in models)
    assert first == second


def test_it_starts_as_in_the_authors_code():
    keras.utils.set_random_seed(0)
    model = vision_transformer(Size(64, 4, 1), 4, (16, 16, 3), 10)
    np.testing.assert_array_equal(model(images_of((16, 16, 3))), np.zeros((3, 10)))
    kernels = {path: w.numpy() for path, w in weight_paths(model).items() if "kernel" in path}
    for part, fan in (("query", 128), ("value", 128), ("projection", 128), ("mlp1", 320)):
        kernel = kernels[f"block1_{part}/kernel"]
        assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / fan), rel=0.01)  # Glorot's limit.
    assert kernels["embedding/kernel"].std() == pytest.approx(1 / np.sqrt(48), rel=0.05)
    for path, weight in weight_paths(model).items():
        if "mlp" in path and path.endswith("bias"):
            assert 0 < np.abs(weight.numpy()).max() < 1e-5
        elif path.endswith("bias"):
            assert not weight.numpy().any()


def test_only_kernels_decay(small):
    decaying = {v.name for v in small.trainable_variables if decays(v.value)}
    others = {v.name for v in small.trainable_variables if not decays(v.value)}
    assert (decaying, others) == ({"kernel"}, {"bias", "gamma", "beta"})


def test_blocks_are_groups_of_layer_decay(small):
    groups = layer_groups.group(list(layer_paths(small)))
    assert [group[0] for group in groups] == [
        *("embedding", "block1_norm1", "block2_norm1", "last_norm", "logits")
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_registry_builds_it_for_small_grey_images(precision, tmp_path, monkeypatch):
    """Also checks that Keras loads the file without layers of this program."""
    monkeypatch.setitem(SIZES, "ti", SMALL)
    monochrome = ImageFormat((28, 28, 1), [128.0], [60.0])
    ghost = GhostNorm(32, 0.99, "fused")
    model = registry.build("vit_ti_14", monochrome, 10, ghost, seed=0, precision=precision)
    head = model.get_layer("vision_transformer").get_layer("logits")
    head.kernel.assign(np.random.default_rng(3).normal(size=head.kernel.shape))
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    logits = model(images)
    assert logits.dtype == "float32"
    assert np.ptp(logits) > 1
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert not any(type(layer).__module__.startswith("t") for layer in again._flatten_layers())
    np.testing.assert_array_equal(again(images), logits)
