"""A wall clock that is set while a run goes on, by a day forth and then back."""

import os
import shutil
import subprocess

import pytest

from tests.support.runs import (
    MANY_EVALUATIONS,
    OFTEN,
    SHORT,
    digest,
    held,
    let_print,
    newest,
    points,
    result,
    started,
    wait_for,
)
from trainer.run_dir.metrics import read

# What the process asks for the wall's time goes through here: it is ahead by as many seconds as the
# file $AHEAD is long.
CLOCK = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long ahead(void) {
  struct stat file;
  return stat(getenv("AHEAD"), &file) ? 0 : (long)file.st_size;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && clock == CLOCK_REALTIME) now->tv_sec += ahead();
  return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec found;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &found);
  now->tv_sec = found.tv_sec;
  now->tv_usec = found.tv_nsec / 1000;
  return 0;
}
"""
DAY = 86_400


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_clock_that_jumps(uninterrupted, tmp_path, deterministic):
    library, ahead, model_dir = (tmp_path / name for name in ("clock.so", "ahead", "run"))
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
    subprocess.run(compiler, input=CLOCK, text=True, check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "AHEAD": str(ahead)}
    flags = [*SHORT, OFTEN, MANY_EVALUATIONS]
    if not deterministic:
        flags += ["--nodeterministic", "--log_every_updates=1"]
    process = started(model_dir, *flags, env=environment)
    with held(process):
        wait_for(lambda: newest(model_dir), process)
        ahead.write_bytes(bytes(DAY))
        let_print(process, 8192)  # Of the 8,900 bytes that it prints.
        # A checkpoint may be written twice between two logged points, so the points tell.
        wait_for(lambda: has_jumped(times(model_dir)), process)
        ahead.unlink()
    output = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert not has_jumped(times(model_dir)[-1:] + times(model_dir)[:1]), "the clock is still ahead"
    assert result(model_dir)["seconds"] < 60
    if deterministic:
        assert digest(model_dir) == digest(uninterrupted[0])
    else:
        assert all(0 <= point["input_wait"] <= 1 for point in read_train(model_dir))
        assert [p["update"] for p in points(model_dir)] == list(range(1, 179))


def times(model_dir):
    return [point["time"] for point in read(model_dir / "metrics.jsonl")]


def has_jumped(found):
    return max(found, default=0) - min(found, default=0) > DAY - 60


def read_train(model_dir):
    return [p for p in read(model_dir / "metrics.jsonl") if p["split"] == "train"]
