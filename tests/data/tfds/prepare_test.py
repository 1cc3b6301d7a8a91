"""Prepares datasets with real files, processes and servers on this machine."""

import fcntl
import functools
import hashlib
import http.server
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow_datasets as tfds

from trainer.data.tfds import prepare as prepare_module
from trainer.data.tfds.prepare import (
    DEBIAN_FASHION_MNIST,
    find_builder,
    is_prepared,
    prepare,
    restore_gzip_headers,
)
from trainer.errors import UserError

needs_debian = pytest.mark.skipif(
    not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
TINY = {
    "image": tfds.features.Image(shape=(2, 2, 1)),
    "label": tfds.features.ClassLabel(num_classes=2),
}


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Sets a proxy at a port that is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    use_proxy(monkeypatch, port)


def use_proxy(monkeypatch, port: int) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Proxy(http.server.SimpleHTTPRequestHandler):
    """Answers every host's /NAME with the folder's file NAME, in place of the whole internet."""

    def translate_path(self, path: str) -> str:
        return str(pathlib.Path(self.directory) / path.rpartition("/")[2])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def internet(monkeypatch, tmp_path) -> Iterator[pathlib.Path]:
    """A folder whose files can be downloaded from any host by http."""
    folder = tmp_path / "internet"
    folder.mkdir()
    handler = functools.partial(Proxy, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        use_proxy(monkeypatch, server.server_port)
        yield folder
        server.shutdown()


@pytest.fixture
def no_package(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(prepare_module, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")


@needs_debian
def test_restored_files_equal_upstreams(tmp_path):
    restore_gzip_headers(DEBIAN_FASHION_MNIST, tmp_path)
    expected = {
        info.filename: info.checksum
        for info in find_builder("fashion_mnist", None).url_infos.values()
    }
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir()}
    assert found == expected


@needs_debian
def test_a_damaged_package_is_refused_by_the_checksums(monkeypatch, tmp_path):
    """One bit of a label file is flipped; the folder stays unprepared."""
    package = tmp_path / "package"
    shutil.copytree(DEBIAN_FASHION_MNIST, package)
    labels = package / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[2000] ^= 1
    labels.write_bytes(content)
    monkeypatch.setattr(prepare_module, "DEBIAN_FASHION_MNIST", package)
    data_dir = str(tmp_path / "data")
    with pytest.raises(UserError, match=r"could not prepare fashion_mnist .*wrong checksum"):
        prepare("fashion_mnist", data_dir)
    assert not is_prepared(find_builder("fashion_mnist", data_dir))


@needs_debian
def test_one_process_downloads_and_its_child_is_waited_for(internet, no_package, tmp_path):
    """One process begins to prepare a set, and is killed. The other one waits for its child.

    TFDS works on in the child, and a second build at the same time would fail.
    """
    restore_gzip_headers(DEBIAN_FASHION_MNIST, internet)
    program = (
        "import pathlib, sys\n"
        "from trainer.data.tfds import prepare\n"
        "prepare.DEBIAN_FASHION_MNIST = pathlib.Path('/not/installed')\n"
        "print(prepare.prepare('fashion_mnist', sys.argv[1]).info.splits['test'].num_examples)\n"
    )
    data_dir = tmp_path / "data"
    command = [sys.executable, "-c", program, str(data_dir)]

    def start():
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    first = start()
    while not list(data_dir.glob("fashion_mnist/*")):
        assert first.poll() is None
        time.sleep(0.05)
    others = [start() for _ in range(2)]
    first.kill()
    first.wait()
    assert [other.communicate()[0].strip() for other in others] == ["10000", "10000"]
    assert [other.returncode for other in others] == [0, 0]
    assert [path.name for path in (data_dir / "fashion_mnist").iterdir()] == ["3.0.1"]


def test_the_error_without_a_network_says_what_to_do(no_network, tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        prepare("cifar10", str(tmp_path))
    assert time.monotonic() - start < 12
    message = str(error.value)
    assert f"cifar10 is not prepared in {tmp_path} and www.cs.toronto.edu cannot be" in message
    assert "tfds build cifar10" in message
    assert "--data_dir" in message
    assert message.count("\n") == 1


def test_the_error_without_a_network_names_the_package(no_network, no_package, tmp_path):
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        prepare("fashion_mnist", str(tmp_path))


def test_a_server_without_the_file_is_an_error(internet, no_package, tmp_path):
    with pytest.raises(UserError, match=r"cannot be reached \(HTTP status 404\)"):
        prepare("fashion_mnist", str(tmp_path / "data"))


def test_a_server_that_never_answers_is_an_error(monkeypatch, no_package, tmp_path):
    monkeypatch.setattr(prepare_module, "REACH_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        use_proxy(monkeypatch, server.getsockname()[1])
        with pytest.raises(UserError, match="cannot be reached"):
            prepare("fashion_mnist", str(tmp_path))


@needs_debian
def test_preparing_has_a_time_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(prepare_module, "PREPARE_SECONDS", 0.3)
    with pytest.raises(UserError, match="took more than 0 minutes: run `tfds build fashion_mnist"):
        prepare("fashion_mnist", str(tmp_path))
    assert not is_prepared(find_builder("fashion_mnist", str(tmp_path)))


def test_waiting_for_another_process_has_a_time_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(prepare_module, "PREPARE_SECONDS", 0.3)
    with (tmp_path / ".cifar10.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process has been preparing cifar10"):
            prepare("cifar10", str(tmp_path))


def test_a_prepared_set_needs_no_network_and_no_writable_folder(no_network, write_set):
    example = {"image": np.zeros((2, 2, 1), np.uint8), "label": 1}
    data_dir = write_set("tiny", TINY, {"train": [example]})
    before = sorted(os.listdir(data_dir))
    assert prepare("tiny", data_dir).info.splits["train"].num_examples == 1
    assert sorted(os.listdir(data_dir)) == before


def test_a_prepared_folder_runs_no_code_of_its_own(write_set, tmp_path, monkeypatch):
    """features.json names modules, which TFDS would import from the working folder."""
    example = {"image": np.zeros((2, 2, 1), np.uint8), "label": 1}
    data_dir = pathlib.Path(write_set("tiny", TINY, {"train": [example]}))
    (features,) = data_dir.glob("tiny/*/features.json")
    text = features.read_text()
    name = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"
    assert name in text
    features.write_text(text.replace(name, "tiny.evil.Label"))
    (data_dir / "tiny" / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(data_dir)
    monkeypatch.syspath_prepend(str(data_dir))
    with pytest.raises(UserError, match=r"FeatureConnector type: tiny\.evil\.Label"):
        prepare("tiny", str(data_dir))


def test_a_folder_without_a_prepared_set_is_refused(tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cifar10/3.0.2 holds no prepared cifar10: delete it"):
        prepare("cifar10", str(tmp_path))


def test_a_data_dir_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        prepare("cifar10", str(tmp_path / "file" / "data"))


def test_manual_datasets_show_their_instructions(tmp_path):
    with pytest.raises(UserError, match=r"by hand into .*manual: .*ILSVRC2012_img_train.tar"):
        prepare("imagenet2012", str(tmp_path))


@pytest.mark.parametrize(
    "dataset, message",
    [
        (
            "fashion_minst",
            "--dataset=fashion_minst: TFDS has no such dataset; did you mean fashion_mn",
        ),
        ("qqqqqqqq", "choose one of tensorflow.org/datasets"),
        ("fashion mnist", "--dataset=fashion mnist: Parsing builder name string"),
        ("mnist/foo", "--dataset=mnist/foo: BuilderConfig foo not found"),
        ("mnist:9.9.9", "--dataset=mnist:9.9.9: Dataset mnist cannot be loaded at version 9.9.9"),
        ("cifar10/x=3", "unexpected keyword argument 'x'"),
        ("", "--dataset=: "),
    ],
)
def test_names_that_tfds_does_not_know_are_refused(dataset, message, tmp_path):
    with pytest.raises(UserError) as error:
        find_builder(dataset, str(tmp_path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_paths_of_images_are_refused_with_their_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "my-photos"):
        (tmp_path / folder).mkdir()
    folders = ("photos", "photos/", "./photos", "my-photos", str(tmp_path / "photos"))
    for dataset, prefix in (
        *((folder, "image_folder") for folder in folders),
        *((name, "image_csv") for name in ("labels.csv", "photos/Labels.CSV", "./labels.csv")),
    ):
        with pytest.raises(UserError) as error:
            find_builder(dataset, str(tmp_path / "data"))
        assert str(error.value).endswith(f"write --dataset={prefix}:{dataset}.")


def test_a_child_that_cannot_import_tfds_says_why(monkeypatch, tmp_path, capfd):
    """The child's first error names the module, and a child that prints nothing is an error too."""
    broken = tmp_path / "packages"
    broken.mkdir()
    (broken / "tensorflow_datasets.py").write_text("import not_installed")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(
        UserError, match=r"could not prepare tiny .*No module named 'not_installed'"
    ):
        build_tiny(tmp_path)
    monkeypatch.setattr(prepare_module.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"could not prepare tiny in .*: no message"):
        build_tiny(tmp_path)


def build_tiny(folder):
    with (folder / "lock").open("w") as lock:
        prepare_module._build("tiny", str(folder), tfds.core.FileFormat.TFRECORD, "", 60, lock)
