"""The real program drives two real servers on loopback, each with a folder of images of its own.

The folders of the hosts and of the program are copies, so a test can change one of them.
"""

import json
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests.support import pod, runs
from tests.support.bucket_data import write_records
from tests.support.configs import parsed
from tests.support.photographs import write_photographs
from trainer.data import pipeline, sources
from trainer.data.bad_examples import BadExamples
from trainer.training import batches
from trainer.training.balance import Balance
from trainer.training.host import HostService, summary

SIZE, SEED = 16, 3
FLAGS = [
    "--dataset=image_folder:photos",
    "--model=tests.support.models:smooth",
    f"--image_size={SIZE}",
    f"--seed={SEED}",
    "--augment=imagenet,mixup",
    "--ghost_batch_size=16",
    "--micro_batch_size=16",
    "--initial_batch_size=64",
    "--max_batch_size=128",
    "--epochs=2",
    "--anneal=step",
    "--anneal_epochs=50%",
    "--anneal_factor=2",
    "--anneal_with=batch_size",
    "--log_every_updates=2",
    "--ema_decay=0.9",
    "--model_dir=run",
]
# For what does not depend on the model or the images: a step that is traced in half the time.
PLAIN = [
    *(flag for flag in FLAGS if not flag.startswith("--ema_decay")),
    "--model=tests.support.models:reshaping",
    "--augment=none",
]
BAD = 40  # This example is not among the 36 of the first picture.


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """320 images for training and 50 for evaluation, in two classes; one of them is cut off."""
    root = tmp_path_factory.mktemp("photos")
    write_photographs(root, {"train": 320, "val": 50}, size=(20, 24))
    return root


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """The folders of two hosts that wait for programs, and the value of --tpu."""
    found = [tmp_path_factory.mktemp(name) for name in ("host0", "host1")]
    with pod.hosts(*found) as (_, addresses):
        yield found, addresses


@pytest.fixture
def folders(photos, tmp_path, hosts):
    """The folders of host 0, host 1 and the program, each with its own copy of the images."""
    (program := tmp_path / "program").mkdir()
    for folder in (found := [*hosts[0], program]):
        shutil.rmtree(folder / "photos", ignore_errors=True)
        (folder / pod.MADE).unlink(missing_ok=True)
        shutil.copytree(photos, folder / "photos")
    return found


def cut(folder):
    """Cuts an image off, so that it cannot be decoded."""
    path = folder / "photos/train" / str(BAD % 2) / f"{BAD}.jpg"
    path.write_bytes(path.read_bytes()[:300])


def one_process(folder, position, size):
    """The digest of each micro-batch of an update that one process makes."""
    source = sources.load(
        f"image_folder:{folder / 'photos'}", "train", None, SIZE, augment="imagenet"
    )
    stream = batches.stream(parsed(*FLAGS), source, BadExamples(skip=True), Balance())
    dataset = pipeline.training(
        stream,
        position=position,
        micro_batch_size=16,
        replicas=2 * pod.DEVICES,
        local_replicas=range(2 * pod.DEVICES),
    )
    made = map(tf.nest.flatten, dataset.take(size // 16).as_numpy_iterator())
    return {int(first): pod.digest(*values) for *values, first in made}


def test_two_hosts_make_their_shares_and_train_as_one_process_does(folders, hosts):
    *own, program = folders
    for folder in folders:
        cut(folder)
    flags = [*FLAGS, "--skip_bad_examples"]
    pod.train(hosts[1], program, *flags, "--stop_at_epoch=1")
    shares = [dict(pod.made(host)) for host in own]
    pod.train(hosts[1], program, *flags)  # The batch grows after the run has resumed.

    replicas = [{position // 16 % 4 for position in share} for share in shares]
    assert replicas == [{0, 1}, {2, 3}]
    expected = one_process(program, 0, 320)
    assert {**shares[0], **shares[1]}.items() >= expected.items()

    alone = program / "alone"
    devices = ["--strategy=mirrored", f"--virtual_devices={2 * pod.DEVICES}"]
    data = f"--dataset=image_folder:{program / 'photos'}"
    runs.train(alone, *flags, data, f"--model_dir={alone}", *devices)
    result, own = runs.result(program / "run"), runs.result(alone)
    assert result["bad_examples"] == own["bad_examples"] == 1
    assert (result["updates"], result["resumes"]) == (own["updates"], 1)
    assert (result["hosts"], own["hosts"]) == (2, 1)
    for split in ("train", "eval"):
        of_hosts, of_one = (runs.points(run, split) for run in (program / "run", alone))
        assert [p["batch_size"] for p in of_hosts] == [p["batch_size"] for p in of_one]
        assert {p["batch_size"] for p in of_one} == {64, 128}
        losses = [[p["loss"] for p in points] for points in (of_hosts, of_one)]
        np.testing.assert_allclose(*losses, rtol=2e-5)


def test_an_error_of_a_host_ends_the_run_with_its_name(folders, hosts):
    _, second, program = folders
    cut(second)
    # Images that are cropped anew are decoded as they are used, so the run has begun by then.
    flags = [*PLAIN, "--augment=imagenet", "--epochs=30"]
    lines = pod.train(hosts[1], program, *flags, status=2)
    assert runs.points(program / "run")
    assert lines[-2].startswith("crescendo train: host 1: photos/train/0/40.jpg cannot be used: ")
    assert lines[-1].startswith("Repair or remove it, or give --skip_bad_examples")


def test_hosts_without_the_same_data_are_refused_before_training(folders, hosts):
    first, second, program = folders
    (second / "photos/train/0/0.jpg").unlink()
    problem, remedy = pod.train(hosts[1], program, *PLAIN, status=2)[-2:]
    assert "host 1 has 319 examples" in problem
    assert remedy.endswith("give all hosts the same data.")
    shutil.rmtree(first / "photos")
    lines = pod.train(hosts[1], program, *PLAIN, status=2)
    assert lines[-2].startswith("crescendo train: host 0: ")
    assert "photos" in lines[-2]


def test_the_loss_of_a_host_ends_the_run_with_status_76(photos, tmp_path):
    """A host that is stopped, and one that is killed; meanwhile, no other program gets a host."""
    names = ("host0", "host1", "program", "other")
    *own, program, other = (tmp_path / name for name in names)
    for folder in (*own, program, other):
        shutil.copytree(photos, folder / "photos")
    flags = [*PLAIN, "--epochs=1000", "--worker_timeout=5"]
    with pod.hosts(*own) as (processes, addresses):
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            process = pod.start(addresses, program, *flags)
            pod.wait_for(program / "program.log", "eval loss", process)
            if sent == signal.SIGSTOP:
                lines = pod.train(addresses, other, *flags, status=75)
                assert lines[-1].startswith("crescendo train: host 0 (127.0.0.1:")
                assert lines[-1].endswith("is in use by another program: wait for it, or end it.")
            processes[1].send_signal(sent)
            assert process.wait(timeout=100) == 76
            lines = (program / "program.log").read_text().splitlines()
            (first,) = [line for line in lines if line.startswith("crescendo train: ")]
            assert first.startswith("crescendo train: host 1 ")
            assert " is lost: " in first  # By TensorFlow's error, or because TensorFlow waits.
            remedy = lines[lines.index(first) + 1]
            assert remedy.startswith("Start all hosts and the program again")
            if sent == signal.SIGSTOP:
                processes[1].send_signal(signal.SIGCONT)


def test_a_host_answers_only_the_program_that_started_it_last(photos):
    using = ["one"]
    service = HostService(using.__contains__)
    flags = [f"--dataset=image_folder:{photos}", *FLAGS[1:], "--skip_bad_examples"]

    def ask(token, **request):
        return json.loads(service.ask(json.dumps({**request, "token": token}).encode()))

    def make(token, number, element):
        request = {"make": "training", "number": number, "replicas": [0, 1], "of": 1}
        request |= {"position": 0, "micro_batch_size": 16, "image_size": None, "token": token}
        return service.make(json.dumps(request).encode(), np.int64(element))

    first = ask("one", do="start", flags=flags)["summary"]
    batches = [make("one", 1, element) for element in (0, 1)]
    with pytest.raises(RuntimeError, match=r"batch 3 of .* is asked for, and not 2"):
        make("one", 1, 3)
    with pytest.raises(RuntimeError, match="another program uses this host"):
        make("two", 2, 0)
    assert "another program uses this host" in ask("two", do="start", flags=flags)["refused"]
    using[:] = ["two"]
    assert ask("two", do="start", flags=flags)["summary"] == first
    assert "another program uses this host" in ask("one", do="report")["refused"]
    with pytest.raises(RuntimeError, match="another program uses this host"):
        make("one", 1, 2)
    again = [make("two", 1, element) for element in (0, 1)]
    for one, other in zip(batches, again, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def summary_of(dataset, *flags, splits=("train", "val")):
    config = parsed(f"--dataset={dataset}", *flags)
    loaded = [
        sources.load(dataset, split, config.data_dir, SIZE, augment="imagenet") for split in splits
    ]
    return summary(config, *loaded)


def test_files_in_another_order_differ_in_the_summary(photos, tmp_path):
    def found(folder):
        return summary_of(f"image_folder:{folder}")

    shutil.copytree(photos, tmp_path / "copy")
    assert found(tmp_path / "copy") == found(photos)
    (tmp_path / "copy/val/0/0.jpg").rename(tmp_path / "copy/val/0/other.jpg")
    train, val = found(tmp_path / "copy")
    assert train == found(photos)[0]
    assert val != found(photos)[1]


def test_other_labels_differ_in_the_summary(photos, tmp_path):
    """The names, the order and the numbers of the files are equal."""
    found = []
    for name, classes in (("right", "01"), ("wrong", "10")):
        table = tmp_path / f"{name}.csv"
        rows = [
            f"{path},{split},{classes[int(path.parent.name)]}"
            for split in ("train", "val")
            for path in sorted((photos / split).glob("*/*.jpg"))
        ]
        table.write_text("\n".join(["path,split,label", *rows]))
        found.append(summary_of(f"image_csv:{table}"))
    (train, names), (other, other_names) = found[0][0], found[1][0]
    assert names == other_names
    assert train != other


def test_other_files_of_a_prepared_set_differ_in_the_summary(tmp_path):
    for folder, shards in (("one", 2), ("same", 2), ("other", 3)):
        write_records(tmp_path / folder, {"train": 60, "test": 10}, shards)
    one, same, other = (
        summary_of("colour", f"--data_dir={tmp_path / folder}", splits=("train", "test"))
        for folder in ("one", "same", "other")
    )
    assert one == same
    assert one != other
