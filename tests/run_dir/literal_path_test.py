"""Tests that checkpoints and exports work in folders of any name."""

import os
import pathlib
import threading

import pytest
import tensorflow as tf

from tests.support.models import tiny
from trainer.data.encoded_batch import decoder
from trainer.run_dir import checkpoints, exports
from trainer.run_dir.literal_path import named, plain
from trainer.system.regular_file import NotRegularError

NAMES = ["lr[0.1]", "a\\b", "x*", "?", "{a,b}", "%41", " é\n", "gs:", "[!a]"]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_in_a_folder_of_any_name_is_read(tmp_path, name):
    """A folder beside it whose name the pattern matches is not read instead."""
    folders = [tmp_path / other for other in (name, "lr0", "ab", "xy", "z", "a", "b")]
    for number, folder in enumerate(folders):
        variables = {"weights": [tf.Variable([float(number)])]}
        saving = checkpoints.Checkpoints(folder, variables, keep=1)
        saving.save(3, {"number": number})
        saving.wait()
    before = sorted(tmp_path.rglob("*"))
    for number, folder in enumerate(folders):
        variable = tf.Variable([-1.0])
        progress = checkpoints.read(folder / "000000003", {"weights": [variable]})
        assert progress == {"number": number}
        assert variable.numpy() == [number]
    assert sorted(tmp_path.rglob("*")) == before


def test_errors_name_the_path_of_the_folder(tmp_path):
    folder = tmp_path / "lr[0.1]" / "000000003"
    folder.mkdir(parents=True)
    with pytest.raises(checkpoints.DamagedCheckpointError, match=r"lr\[0.1\]/000000003") as error:
        checkpoints.read(folder, {})
    assert "/proc/" not in str(error.value)
    with pytest.raises(checkpoints.DamagedCheckpointError, match="No such file"):
        checkpoints.read(folder / "none", {})
    assert named("no /proc/self/fd/12/x", pathlib.Path("a\\1")) == "no a\\1/x"


@pytest.mark.parametrize("file", ["checkpoint.index", "checkpoint.data-00000-of-00001"])
def test_a_fifo_or_a_device_in_a_checkpoint_is_damage(tmp_path, file, logged):
    variables = {"weights": [tf.Variable([1.0])]}
    saving = checkpoints.Checkpoints(tmp_path, variables, keep=3)
    for update in (1, 2, 3):
        saving.save(update, {"update": update})
        saving.wait()
    for update, make in ((2, lambda path: path.symlink_to("/dev/zero")), (3, os.mkfifo)):
        path = tmp_path / f"{update:09d}" / file
        path.unlink()
        make(path)
    again = checkpoints.Checkpoints(tmp_path, variables, keep=3)
    assert again.restore() == {"update": 1}
    fifo, device = logged
    assert "000000003 is damaged and left out" in fifo
    assert "it is a FIFO, not a regular file" in fifo
    assert "it is a device, not a regular file" in device


def test_an_export_in_a_folder_of_any_name_is_loaded(tmp_path):
    folder = tmp_path / "\\lr[0.1]*?{a,b}"
    about = exports.ExportInfo("runs/x/checkpoints/000000003", 3, (8, 8, 1), 2, {})
    decode = decoder((8, 8, 1), "none", 10**6)
    exports.write(folder, tiny((8, 8, 1), 2), "", about, ["a", "b"], decode)
    images = tf.zeros([2, 8, 8, 1], tf.uint8)
    with_saved_model = exports.load(folder)(images, training=False)
    with_keras = exports.load(folder / "model.keras")(images, training=False)
    tf.debugging.assert_near(with_saved_model, with_keras)
    (folder / "model.keras").unlink()
    os.mkfifo(folder / "model.keras")
    (folder / "saved_model" / "saved_model.pb").unlink()
    os.mkfifo(folder / "saved_model" / "saved_model.pb")
    for path in (folder, folder / "model.keras"):
        with pytest.raises(exports.UserError, match=r"cannot be loaded.*it is a FIFO"):
            exports.load(path)


def test_renamed_folders_stay_readable_in_each_thread(tmp_path):
    found = {}

    def read(name: str) -> None:
        with plain(tmp_path / name) as path:
            opened.wait()
            renamed.wait()
            found[name] = os.listdir(path)

    opened, renamed = threading.Barrier(3), threading.Event()
    threads = [threading.Thread(target=read, args=(name,)) for name in ("a", "[b]")]
    for name in ("a", "[b]"):
        (tmp_path / name / f"{name}.txt").parent.mkdir()
        (tmp_path / name / f"{name}.txt").touch()
    for thread in threads:
        thread.start()
    opened.wait()
    (tmp_path / "a").rename(tmp_path / "c")
    renamed.set()
    for thread in threads:
        thread.join()
    assert found == {"a": ["a.txt"], "[b]": ["[b].txt"]}
    with pytest.raises(FileNotFoundError), plain(tmp_path / "a"):
        pass
    os.mkfifo(tmp_path / "c" / "fifo")
    with pytest.raises(NotRegularError), plain(tmp_path / "c"):
        pass
