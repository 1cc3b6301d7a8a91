"""Tests what the fit tools share: the search, the trace, and the reading of XLA's text."""

import pathlib
import sys

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from scripts.fit import compile, fit, trace
from tests.support import configs
from trainer.errors import UserError

TINY = ["--model=tests.support.models:tiny", "--dataset=cifar10", "--ghost_batch_size=8"]
TINY += [
    "--precision=float32",
    "--base_batch_size=256",
    "--epochs=1",
    "--optimizer=lamb",
    "--weight_decay=1e-4",
]

# Text that libtpu prints, shortened. The loop's body calls %near, which calls %far.
HLO = """HloModule update, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%far (p: bf16[4,3]) -> bf16[4,3] {
  ROOT %all-reduce.3 = bf16[4,3]{1,0:T(8,128)(2,1)} all-reduce(%p), to_apply=%add
}

%near (p: bf16[4,3]) -> bf16[4,3] {
  ROOT %call.1 = bf16[4,3]{1,0} call(%p), to_apply=%far
}

%body (p: (s32[], bf16[4,3])) -> (s32[], bf16[4,3]) {
  %fusion.1 = bf16[4,3]{1,0} fusion(%g), kind=kLoop, calls=%near, metadata={op_name="x"}
  ROOT %tuple.1 = (s32[], bf16[4,3]{1,0}) tuple(%i, %fusion.1)
}

%condition (p: (s32[], bf16[4,3])) -> pred[] {
  ROOT %less = pred[]{:T(512)} compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[5], b: f32[2,2]) -> (f32[5], f32[2,2]) {
  %while.1 = (s32[]{:T(128)}, bf16[4,3]{1,0}) while(%init), condition=%condition, body=%body
  %all-reduce.1 = (f32[5]{0:T(128)S(1)}, /*index=1*/f32[2,2]{1,0}) all-reduce(%a, %b), to_apply=%add
  %all-reduce-start.2 = f32[7]{0} all-reduce-start(%c), to_apply=%add
  %all-reduce-done.2 = f32[7]{0} all-reduce-done(%all-reduce-start.2)
  ROOT %get-tuple-element.1 = f32[5]{0} get-tuple-element(%all-reduce.1), index=0
}
"""


@given(
    kept=st.integers(0, 3),
    of_an_example=st.floats(1e-4, 1.0),
    first=st.integers(0, 7),
    count=st.integers(1, 8),
)
def test_the_search_ends_at_the_largest_that_fits(kept, of_an_example, first, count):
    sizes = [32 * 2**i for i in range(count)]
    has = 16.0

    def compiled(size):
        needs = kept + of_an_example * size
        return {"needs": needs, "fits": needs <= has}

    tried = fit.search(sizes, sizes[first % count], has, compiled)
    assert len(tried) <= fit._COMPILES
    if fit.settled(sizes, tried):
        largest = max((size for size in sizes if compiled(size)["fits"]), default=None)
        assert max((size for size in tried if tried[size]["fits"]), default=None) == largest
    else:
        assert len(tried) == fit._COMPILES


def test_the_search_needs_few_compilations():
    """The search goes straight to the largest, and the next one, which is refused at once."""
    asked = []

    def compiled(size):
        asked.append(size)
        return {"needs": 1 + size / 32, "fits": 1 + size / 32 <= 16}

    fit.search([32, 64, 128, 256, 512, 1024, 2048], 64, 16, compiled)
    assert asked == [64, 256, 512]


def test_collectives_in_and_outside_loops_are_listed():
    assert compile.collectives(HLO) == [
        {"kind": "all-reduce", "bytes": 2 * 12, "in_loop": True},
        {"kind": "all-reduce", "bytes": 4 * 5 + 4 * 4, "in_loop": False},
        {"kind": "all-reduce", "bytes": 4 * 7, "in_loop": False},
    ]


def test_the_largest_phase_is_laid_out_on_the_cores():
    growing = ["--base_batch_size=512", "--anneal=step", "--anneal_epochs=1", "--epochs=2"]
    growing += ["--anneal_with=batch_size", "--anneal_factor=2", "--max_batch_size=1024"]
    config = configs.parsed(*TINY, *growing, "--micro_batch_size=24")
    phase, examples = fit.largest_phase(config, 16)
    assert examples == 50_000
    assert (phase.batch_size, phase.micro_batch_size, phase.accumulation) == (1024, 16, 4)


def test_a_batch_that_the_cores_do_not_divide_is_refused():
    with pytest.raises(UserError, match="256 is not a multiple of 12 replicas") as error:
        fit.largest_phase(configs.parsed(*TINY), 12)
    assert len(str(error.value).splitlines()) == 2


def test_photographs_need_image_size():
    config = configs.parsed("--dataset=imagenet2012")
    with pytest.raises(UserError, match="--image_size"):
        trace.training_data(config, 10)
    config = configs.parsed("--dataset=imagenet2012", "--image_size=32")
    data = trace.training_data(config, 10)
    assert (data.image_shape, data.classes) == ((32, 32, 3), 1000)


def test_the_largest_size_of_training_is_traced():
    sizes = ["--image_sizes=16@0,40@0.5,24@1", "--epochs=2", "--eval_image_size=20"]
    config = configs.parsed(*TINY, *sizes)
    data = trace.training_data(config, 10)
    assert data.image_shape[:2] == (40, 40)
    assert trace.training_step(config, data, 8).model.input_shape[1:3] == (40, 40)


def test_the_trace_has_one_reduction_of_each_sum():
    config = configs.parsed(*TINY)
    data = trace.training_data(config, 50_000)
    step = trace.training_step(config, data, 8)
    assert {norm.kernel for norm in step.replica.norms} == {"reshaped"}
    text = trace.lowered(step, 16)
    sums = len(tf.nest.flatten(step.replica._sums)) + len(step.replica._squares)
    assert text.count('"stablehlo.all_reduce"') == sums
    assert text.count("[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>") == sums
    assert text.count("stablehlo.while") == 1
    assert "%arg0: tensor<2x16x32x32x3xui8>" in text
    # An update changes parameters, slots, moving statistics and sums.
    changed = (
        len(step.parameters) + len(tf.nest.flatten(step.slots)) + 2 * len(step.replica.norms) + sums
    )
    assert text.count("tf.aliasing_output") == changed
    assert "mhlo.copy" not in text
    assert "mhlo.input_output_alias" not in text


def compiler(environment="missing"):
    return fit.Compiler(
        environment=environment,
        script="scripts/some/fit.sh",
        module="scripts.tpu.tpu_compile",
        target="v5e:2x4",
        remedy="Give another.",
        unit="core",
        notes=lambda *_: [],
    )


def test_the_error_without_the_compiler_says_how_to_get_it(monkeypatch):
    with pytest.raises(UserError, match=r"missing.*\nRun scripts/some/fit.sh"):
        compiler().run()
    # This interpreter has no JAX.
    monkeypatch.setattr(fit.Compiler, "python", pathlib.Path(sys.executable))
    with pytest.raises(UserError, match=r"No module named 'jax'.*\nRemove"):
        compiler().run()
