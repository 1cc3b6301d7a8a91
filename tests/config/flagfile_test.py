import dataclasses

import pytest

from tests.support.configs import parsed
from trainer.config import flagfile
from trainer.config.flags import FLAGS


def test_names_in_free_and_decides_are_flags():
    assert set(FLAGS) >= flagfile.FREE
    assert set().union(*flagfile.DECIDES.values()) <= flagfile.FREE


def test_the_flagfile_replays_the_command_line(tmp_path):
    asked = parsed(
        *["--anneal=step", "--anneal_epochs=30%,60%", "--deterministic", "--epochs=2.5"],
        "--order_version=2",
    )
    file = tmp_path / "flags.txt"
    file.write_text(flagfile.to_flagfile(asked), encoding="utf-8")
    assert parsed(f"--flagfile={file}") == asked
    stopped = dataclasses.replace(asked, stop_at_epoch=1.0)
    assert flagfile.to_flagfile(stopped) == flagfile.to_flagfile(asked)


def test_differences_include_only_flags_that_change_what_is_learned():
    one = parsed("--epochs=2", "--momentum=0.9", "--model_dir=a", "--deterministic")
    other = dataclasses.replace(
        one, epochs=3.0, momentum=None, model_dir="b", deterministic=False, micro_batch_size=64
    )
    found = flagfile.learned_differences(flagfile.to_flagfile(one), flagfile.to_flagfile(other))
    assert found == ["--epochs: 2.0 → 3.0", "--momentum: 0.9 → unset"]
    assert flagfile.learned_differences(flagfile.to_flagfile(one), flagfile.to_flagfile(one)) == []


@pytest.mark.parametrize("anneal", ["constant", "plateau", "measured"])
def test_exactly_the_free_flags_may_differ_on_resume(anneal):
    """One of them is --noise_horizon, which does not switch a flag named ise_horizon off."""
    one = parsed(f"--anneal={anneal}")

    def is_free(name):
        old = getattr(one, name)
        other = not old if isinstance(old, bool) else () if isinstance(old, tuple) else "7"
        changed = dataclasses.replace(one, **{name: other})
        return not flagfile.learned_differences(*map(flagfile.to_flagfile, (one, changed)))

    decides = flagfile.DECIDES.get(anneal, frozenset())
    assert {name for name in flagfile.FREE if is_free(name)} == flagfile.FREE - decides


@pytest.mark.parametrize(("average", "unset"), [([], "plain"), (["--ema_decay=0.9"], "ema")])
def test_what_counts_by_default_may_be_said_on_resume(average, unset):
    def text(*flags):
        return flagfile.to_flagfile(parsed("--anneal=plateau", *average, *flags))

    said = text(f"--evaluate_with={unset}")
    assert flagfile.learned_differences(text(), said) == []
    assert flagfile.learned_differences(said, text()) == []
    other = {"ema": "plain", "plain": "ema"}[unset]
    found = flagfile.learned_differences(text(), text(f"--evaluate_with={other}"))
    assert found == [f"--evaluate_with: {unset} → {other}"]


def test_a_flag_that_is_newer_than_the_run_has_its_default():
    text = flagfile.to_flagfile(parsed("--epochs=2"))
    lines = text.splitlines(keepends=True)
    old = "".join(line for line in lines if not line.startswith("--scaling="))
    assert old != text
    assert flagfile.learned_differences(old, text) == []
    changed = flagfile.to_flagfile(parsed("--epochs=2", "--scaling=sqrt"))
    assert flagfile.learned_differences(old, changed) == ["--scaling: linear → sqrt"]


def test_another_precision_is_a_difference_and_auto_is_not():
    half, single, auto = (
        flagfile.to_flagfile(parsed(f"--precision={precision}"))
        for precision in ("bfloat16", "float32", "auto")
    )
    old = "".join(line for line in single.splitlines(True) if "precision" not in line)
    assert flagfile.learned(old)["precision"] == "float32"
    for run in (half, single, old):
        assert flagfile.learned_differences(run, auto) == []
    for run in (single, old):
        assert flagfile.learned_differences(run, half) == ["--precision: float32 → bfloat16"]
        assert flagfile.learned_differences(run, single) == []
    assert flagfile.learned_differences(half, single) == ["--precision: bfloat16 → float32"]
    damaged = half.replace("bfloat16", "bfloat1")
    assert flagfile.learned_differences(damaged, auto) == ["--precision: bfloat1 → auto"]
    # By hand; a run records what it computes in.
    assert flagfile.learned_differences(auto, auto) == []
    assert flagfile.recorded_precision(auto) == "float32"


def without_order_version(text):
    return "".join(line for line in text.splitlines(True) if "order_version" not in line)


def test_a_run_older_than_the_flag_has_order_version_1():
    new = parsed("--epochs=2")
    assert flagfile.order_version(new, None) == 2
    old = flagfile.to_flagfile(new)
    assert "order_version" not in old
    assert flagfile.order_version(new, old) == 1
    first, second = (dataclasses.replace(new, order_version=version) for version in (1, 2))
    assert flagfile.learned_differences(old, flagfile.to_flagfile(first)) == []
    found = flagfile.learned_differences(old, flagfile.to_flagfile(second))
    assert found == ["--order_version: 1 → 2"]
    assert flagfile.order_version(second, old) == 2
    assert flagfile.order_version(new, flagfile.to_flagfile(second)) == 2
    assert flagfile.order_version(new, old + "--order_version=later\n") == 2


def test_a_replay_of_an_old_run_has_order_version_1_and_a_recipe_has_none(tmp_path):
    """The version is also in `given`, which a sweep passes to its runs."""
    file, recipe = tmp_path / "flags.txt", tmp_path / "recipe"
    file.write_text(flagfile.to_flagfile(parsed("--epochs=2")), encoding="utf-8")
    recipe.write_text(f"# A replay.\n--flagfile={file}\n--epochs=3\n", encoding="utf-8")
    for flags in ([f"--flagfile={file}"], ["--flagfile", str(recipe)], [f"-flagfile={recipe}"]):
        assert parsed(*flags).order_version == 1
        assert parsed(*flags).given["order_version"] == "--order_version=1"
        assert parsed("--order_version=2", *flags).order_version == 2
        assert parsed(*flags, "--order_version=2").order_version == 2
    assert parsed("--flagfile=flags/fashion_mnist_grow.flags").order_version is None
    assert "order_version" not in parsed("--flagfile=flags/fashion_mnist_grow.flags").given


def test_a_flag_may_hold_a_replacement_character_but_not_a_stray_byte():
    assert flagfile.not_a_flag("--data_dir=a\ufffdb\n") == ""
    stray = b"--data_dir=a\xffb\n".decode(errors="surrogateescape")
    assert "line 1" in flagfile.not_a_flag(stray)
