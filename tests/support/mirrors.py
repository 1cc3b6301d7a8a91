"""A run directory in several states, and what a bucket has of it."""

import json
import shutil
import struct

from trainer.run_dir.mirror_download import download

RECORD = struct.pack("<Q4x", 5) + b"event" + b"\0" * 4


def write(folder, update):
    """The state of a run after `update` updates; what older states have stays as it is."""
    folder.mkdir(exist_ok=True)
    (folder / "lock").write_text("process 1 on host\n")
    (folder / "secret").write_text("not for the bucket")
    (folder / "flags.txt").write_text("--epochs=1\n")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"update": update}) + "\n")
    events = folder / "tensorboard/train/events.out.tfevents.1.host"
    events.parent.mkdir(parents=True, exist_ok=True)
    with open(events, "ab") as file:
        file.write(RECORD)
    for old in sorted(folder.glob("checkpoints/0*"))[:-1]:
        shutil.rmtree(old)
    checkpoint = folder / f"checkpoints/{update:09d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.index").write_bytes(b"index" * update)
    (checkpoint / "checkpoint.data-00000-of-00001").write_bytes(bytes([update]) * 1000)


def content(folder):
    """Every file that a mirror copies, by path."""
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {k: p.read_bytes() for k, p in found.items() if k not in ("lock", "secret")}


def restored(place, folder):
    folder.mkdir()
    found = download(place.connect(), place.url, folder)
    return found and found[0], content(folder)
