"""A disk that is really full: a small file system of its own, filled while the run goes on."""

import shutil
import subprocess
import sys

import pytest

from tests.support.runs import OFTEN, SHORT, command, digest, points, train

# $1: a folder to mount on; $2: where the run is copied to; then the command.
SMALL_DISK = """
mount -t tmpfs -o size=4m none "$1" || exit 99
"${@:3}" > "$2".log & run=$!
until ls "$1"/run/checkpoints/0* > /dev/null 2>&1; do sleep 0.05; done
cat /dev/zero > "$1"/fill 2> /dev/null
until grep -q "cannot be written" "$2".log || ! kill -0 $run; do sleep 0.05; done
%s
wait $run; status=$?
cat "$2".log
rm -f "$1"/fill
cp -r "$1"/run "$2"
exit $status
"""
namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
    reason="needs the right to mount in a namespace of its own",
)


def on_a_small_disk(tmp_path, script, *arguments, run=None):
    """The finished process; its run is copied to tmp_path / "run"."""
    (tmp_path / "disk").mkdir()
    run = run or command(tmp_path / "disk" / "run", *arguments)
    shell = ["unshare", "-rm", "bash", "-c", script, "-", tmp_path / "disk", tmp_path / "run"]
    done = subprocess.run([*shell, *run], capture_output=True, text=True)
    assert done.returncode != 99, done.stderr
    return done


@namespaces
@pytest.mark.parametrize("emptied", [True, False])
def test_a_full_disk(uninterrupted, tmp_path, emptied):
    script = SMALL_DISK % ('rm "$1"/fill' if emptied else "")
    done = on_a_small_disk(tmp_path, script, *SHORT, OFTEN)
    assert "cannot be written" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    if not emptied:
        assert done.returncode == 74
        assert "Free disk space, and give the same command again" in done.stderr
        shutil.copytree(tmp_path / "run", tmp_path / "again")
        train(tmp_path / "again", *SHORT)
    else:
        assert done.returncode == 0, done.stderr
    finished = tmp_path / ("run" if emptied else "again")
    assert digest(finished) == digest(uninterrupted[0])
    for split in ("train", "eval"):
        assert points(finished, split) == points(uninterrupted[0], split)


@namespaces
@pytest.mark.parametrize(
    ("before", "status"),
    [
        ('mkdir "$1"/run && touch "$1"/run/lock', 2),  # and no room to write in it
        ('"${@:3}" & run=$!; until [ -s "$1"/run/lock ]; do sleep 0.05; done', 74),
    ],
)
def test_a_disk_that_is_full_at_the_start(tmp_path, before, status):
    script = f"""
    mount -t tmpfs -o size=4m none "$1" || exit 99
    {before}
    cat /dev/zero > "$1"/fill 2> /dev/null
    if [ -n "$run" ]; then wait $run; else "${{@:3}}"; fi
    """
    done = on_a_small_disk(tmp_path, script, *SHORT)
    assert done.returncode == status
    message = done.stderr[done.stderr.index("crescendo train:") :]
    assert "No space left on device" in message
    assert len(message.splitlines()) == 2


# The run is finished, and of its report the picture that TensorBoard shows finds no room: there is
# some for one and a half.
NO_ROOM_FOR_A_PICTURE = """
mount -t tmpfs -o size=4m none "$1" || exit 99
"${@:3}" > "$2" 2>&1 || exit
cd "$1"/run
size=$(stat -c %s range_test.png)
rm -r range_test.png tensorboard/range_test
cat /dev/zero > "$1"/fill 2> /dev/null
truncate -s -$((size * 3 / 2)) "$1"/fill
cd - > /dev/null
"${@:3}"; status=$?
ls "$1"/run
exit $status
"""


@namespaces
def test_no_room_for_the_picture_of_a_range_test(tmp_path):
    run = [sys.executable, *("-m", "trainer", "range_test", *SHORT, "--epochs=0.5")]
    run.append(f"--model_dir={tmp_path}/disk/run")
    done = on_a_small_disk(tmp_path, NO_ROOM_FOR_A_PICTURE, run=run)
    assert done.returncode == 74, done.stderr
    assert "range_test.png" in done.stdout.split()
    error, remedy = done.stderr[done.stderr.index("crescendo range_test:") :].splitlines()
    assert "/tensorboard/range_test/events.out.tfevents." in error
    assert "cannot be written: No space left on device" in error
    assert remedy == "Free disk space, and give the same command again."
