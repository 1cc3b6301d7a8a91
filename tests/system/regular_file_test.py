import os
import socket

import pytest

from trainer.system.regular_file import NotRegularError, ReadError, opener, read_regular


def test_a_regular_file_is_read_through_a_link_too(tmp_path):
    (tmp_path / "x[1]").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x[1]")
    assert read_regular(tmp_path / "x[1]", 9) == read_regular(str(tmp_path / "link"), 3) == b"abc"
    with pytest.raises(ReadError, match="more than 2 bytes") as error:
        read_regular(tmp_path / "link", 2)
    assert error.value.filename == str(tmp_path / "link")
    for nothing in (tmp_path / "none", tmp_path / "link" / "none"):
        with pytest.raises(FileNotFoundError):
            read_regular(nothing, 9)


def test_a_read_that_fails_names_the_file():
    """Reads as from a damaged disk: no process may read address 0, and the kernel returns EIO."""
    with pytest.raises(ReadError, match="Input/output error: '/proc/self/mem'"):
        read_regular("/proc/self/mem", 9)


@pytest.mark.parametrize("mode", ["rb", "wb", "ab", "a+b"])
@pytest.mark.parametrize("kind", ["FIFO", "folder", "device", "socket"])
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, monkeypatch, kind, mode):
    monkeypatch.chdir(tmp_path)
    match kind:
        case "FIFO":
            os.mkfifo("x")
        case "folder":
            os.mkdir("x")
        case "device":
            os.symlink("/dev/zero", "x")
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind("x")
    with pytest.raises(NotRegularError, match=f"{kind}.*not a regular file") as error:
        open("x", mode, opener=opener)  # noqa: SIM115
    assert error.value.filename == "x"


def test_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(NotRegularError):
            read_regular(tmp_path / "fifo", 9)
    assert os.listdir("/proc/self/fd") == before
