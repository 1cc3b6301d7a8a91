"""Tests gpu_fit.py with XLA's compiler if it is installed, and how XLA's text is read.

`scripts/gpu/fit.sh` installs the compiler's 350 MB; a test run does not.
"""

import subprocess
import sys

import pytest

from scripts.gpu import gpu_compile, gpu_fit
from tests.scripts.fit_test import TINY
from trainer.errors import UserError

with_compiler = pytest.mark.skipif(
    not gpu_fit.compiler("h100", 8).python.exists(),
    reason="scripts/gpu/fit.sh makes the compiler's environment",
)

# Text that XLA prints for GPUs, shortened.
HLO = """HloModule update, is_scheduled=true

%fused (p: bf16[8,4]) -> bf16[8,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %add.1 = bf16[8,4]{1,0} add(%p, %p)
}

%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %p.1 = (s32[], bf16[8,4]{1,0}) parameter(0)
  %get-tuple-element.1 = bf16[8,4]{1,0} get-tuple-element(%p.1), index=1
  %loop_fusion = bf16[8,4]{1,0} fusion(%get-tuple-element.1), kind=kLoop, calls=%fused
  %cudnn-conv.1 = (bf16[8,4]{1,0}, u8[0]{0}) custom-call(), custom_call_target="__cudnn$convForward"
  %cudnn-conv.2 = (f32[8,4]{1,0}, u8[0]{0}) custom-call(), custom_call_target="__cudnn$convForward"
  ROOT %tuple.1 = (s32[], bf16[8,4]{1,0}) tuple(%i, %loop_fusion)
}

%condition (p: (s32[], bf16[8,4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[5]) -> f32[5] {
  %a = f32[5]{0} parameter(0)
  %while.1 = (s32[], bf16[8,4]{1,0}) while(%init), condition=%condition, body=%body
  %convolution.1 = f32[2,2]{1,0} convolution(%a, %a), window={size=3x3}
  %copy.1 = f32[5]{0} copy(%a)
  %all-reduce-start.1 = f32[5]{0} all-reduce-start(%a), to_apply=%add
  ROOT %all-reduce-done.1 = f32[5]{0} all-reduce-done(%all-reduce-start.1)
}
"""


def test_kernels_are_those_of_a_pass_and_of_the_rest():
    assert gpu_compile.kernels(HLO) == {"pass": 3, "update": 2}


def test_convolutions_are_listed_by_who_computes_them_and_in_which_type():
    assert gpu_compile.convolutions(HLO) == {
        "XLA f32": 1,
        "cuDNN Forward bf16": 1,
        "cuDNN Forward f32": 1,
    }


@pytest.mark.parametrize("card", gpu_compile._CARDS)
def test_a_description_names_the_card_and_its_memory(card):
    text = gpu_compile.description(card)
    assert gpu_compile._CARDS[card]["name"] in text
    assert f"device_memory_size: {gpu_compile._CARDS[card]['device_memory_size']}" in text
    assert "capability: major" not in text


@pytest.mark.parametrize("target", ["h200x8", "h100x0", "h100", "x8", "h100x1000"])
def test_an_unknown_target_is_refused(target):
    assert gpu_compile.main(target) == {"unknown": "the cards are a100, h100, l4"}


def test_a_device_must_be_named():
    with pytest.raises(UserError, match=r"--device is missing.\nGive --device=h100"):
        gpu_fit.compiler(None, 8)


@with_compiler
def test_a_tiny_model_fits_and_its_update_is_one_reduction():
    flags = ["--device=l4", "--gpus=8", "--micro_batch_size=16"]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.gpu.gpu_fit", *TINY, *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "l4x8: 8 GPUs (NVIDIA L4), 22.49 GiB each" in done.stdout
    assert "largest batch 256 = 8 GPUs × micro-batch 16 × 2" in done.stdout
    assert "micro-batch 16: fits: 0.0" in done.stdout
    assert "cuDNN Forward f32" in done.stdout
    assert "within accumulation none" in done.stdout
