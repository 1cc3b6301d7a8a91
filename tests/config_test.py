import os

import pytest
from absl import flags

from tests.configs import parsed
from trainer import config
from trainer.data.augment import AUGMENTS
from trainer.nn.optimizers import OPTIMIZERS


def test_every_flag_is_a_field_and_every_field_a_flag():
    own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module("trainer.config")}
    assert own == set(config.names())


def test_every_augmentation_is_a_value_of_its_flag():
    # imagenet crops before it decodes, and is no map from images to images.
    assert flags.FLAGS["augment"].parser.enum_values == [*AUGMENTS, "imagenet"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--epochs=0", "flag --epochs=0.0: must be above 0"),
        ("--epochs=-1", "must be above 0"),
        ("--epochs=inf", "must be above 0"),
        ("--epochs=nan", "must be above 0"),
        ("--epochs=long", "could not convert string to float: 'long'"),
        ("--initial_batch_size=0", "flag --initial_batch_size=0: must be above 0"),
        ("--momentum=1", "flag --momentum=1.0: must be from 0 to below 1"),
        ("--anneal_factor=1", "must be above 1"),
        ("--seed=-1", "must be from 0 to 9223372036854775807"),
        ("--warmup_from=0", "must be above 0 and at most 1"),
        ("--epoch=3", "Unknown command line flag 'epoch'. Did you mean: epochs ?"),
        ("--anneal=stairs", "should be one of <constant|step|cosine|"),
        ("--flagfile=flags/nothing.flags", "flags/nothing.flags"),
        ("stray", "unexpected argument 'stray'"),
        ("--flagfile=tests/__pycache__", "tests/__pycache__"),
        ("--base_learning_rate=1e308", "must be above 0 and at most 1e30"),
        ("--epochs=1e305", "must be above 0, from 1e-9 to 1e9"),
        ("--eval_every_epochs=1e-300", "must be above 0, from 1e-9 to 1e9"),
        ("--growth_threshold=1e308", "must be above 1 and at most 1e9"),
        ("--model_dir=~/runs/x", "the shell leaves ~ as it is"),
        ("--seed=9223372036854775808", "must be from 0 to 9223372036854775807"),
        ("--order_version=3", "flag --order_version=3: must be 1 or 2"),
        ("--model_dir=gs://b/x", "flag --model_dir=gs://b/x: is a URL, and only local disks are"),
        ("--model_dir=gs://b/x", "copy with `gcloud storage rsync --recursive`"),
        ("--model_dir=gs:/b/x", "is a URL"),
        ("--model_dir=S3://b/x", "copy with `aws s3 sync`"),
        ("--model_dir=anything://x", "is a URL"),
        ("--model_dir=file:///x", "write the path alone"),
        ("--export_dir=s3://b/x", "flag --export_dir=s3://b/x: is a URL"),
        ("--output=https://x/y.html", "flag --output=https://x/y.html: is a URL"),
        ("--plot=hdfs://x/y.png", "flag --plot=hdfs://x/y.png: is a URL"),
        ("--checkpoint=gs://b/checkpoints/1", "flag --checkpoint=gs://b/checkpoints/1: is a URL"),
        ("--dataset=image_folder:gs://b/x", "flag --dataset=image_folder:gs://b/x: is a URL"),
        ("--dataset=image_folder:", "flag --dataset=image_folder:: is empty"),
        ("--model_dir=", "flag --model_dir=: is empty: the shell variable"),
        ("--model_dir= ", "is empty: the shell variable"),
        ("--export_dir=", "flag --export_dir=: is empty"),
        ("--output=", "flag --output=: "),
        ("--plot=", "flag --plot=: is empty"),
        ("--data_dir=", "flag --data_dir=: is empty"),
        ("--data_dir=gs:/b", "flag --data_dir=gs:/b: is a URL with one slash"),
        ("--dataset=", "flag --dataset=: is empty"),
        ("--model_dir=a\nb", r"--model_dir='a\nb' has a line break"),
        ("--flagfile=/dev/zero", "--flagfile=/dev/zero cannot be read: it is a device, not a"),
        ("--dataset=image_folder:/tmp/caf\udce9", r"caf\udce9' is no UTF-8"),
    ],
)
def test_wrong_flags_are_refused_with_value_and_remedy(argument, message):
    with pytest.raises(config.UserError) as error:
        parsed(argument)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_every_optimizer_is_a_value_of_its_flag():
    assert flags.FLAGS["optimizer"].parser.enum_values == list(OPTIMIZERS)


def test_one_of_several_devices_is_refused():
    with pytest.raises(config.UserError, match="one_device uses one of --virtual_devices=4"):
        parsed("--strategy=one_device", "--virtual_devices=4")


def test_virtual_devices_of_several_workers_are_refused():
    with pytest.raises(config.UserError, match="--virtual_devices=2 splits one process"):
        parsed("--strategy=multi_worker", "--virtual_devices=2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--strategy=tpu", "--strategy=tpu needs --tpu: local on a TPU VM, or else"),
        ("--strategy=tpu --tpu=v5", "--tpu=v5 is a name, which is looked up by zone and project"),
        ("--strategy=tpu --tpu=v5 --tpu_zone=a", "--tpu=v5 is a name"),
        ("--strategy=tpu --tpu=local --virtual_devices=8", "--virtual_devices=8 splits a CPU"),
        ("--tpu=local", "--tpu=local is for --strategy=tpu: add that, or leave --tpu out"),
        ("--strategy=tpu --tpu=grpc://1.2.3.4:8470", "flag --tpu=grpc://1.2.3.4:8470: must be a"),
        ("--tpu_zone=../x", "flag --tpu_zone=../x: must be a name"),
    ],
)
def test_a_tpu_is_named_whole(arguments, message):
    with pytest.raises(config.UserError) as error:
        parsed(*arguments.split())
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_precision_is_said_where_it_is_not_given():
    on_tpu = ["--strategy=tpu", "--tpu=local"]
    assert parsed().precision == config.defaults().precision == "float32"
    assert parsed(*on_tpu).precision == "bfloat16"
    assert parsed(*on_tpu, "--precision=float32").precision == "float32"


def test_a_binary_flagfile_is_refused(tmp_path):
    (tmp_path / "x.flags").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(config.UserError):
        parsed(f"--flagfile={tmp_path}/x.flags")


def test_a_fifo_as_a_flagfile_is_refused_at_once(tmp_path):
    """Also one that another flagfile names; as bash's <(...) is one."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "x.flags").write_text(f"--epochs=2\n--flagfile={tmp_path}/fifo\n")
    for given in ([f"--flagfile={tmp_path}/fifo"], ["--flagfile", f"{tmp_path}/x.flags"]):
        with pytest.raises(config.UserError) as error:
            parsed(*given)
        what, remedy = str(error.value).splitlines()
        assert "/fifo cannot be read: it is a FIFO, not a regular file" in what
        assert remedy == "Write the flags into a file, or give them on the command line."
    nested = tmp_path / "own.flags"
    nested.write_text(f"--flagfile={nested}\n--epochs=3\n")  # absl warns, and goes on
    assert parsed(f"--flagfile={nested}").epochs == 3


def test_a_report_reads_local_disks():
    with pytest.raises(config.UserError, match=r"report cannot read 'gs://b/x': it is a URL"):
        config.from_flags(["crescendo", "gs://b/x"], "runs")
    with pytest.raises(config.UserError, match="report cannot read '': it is empty"):
        config.from_flags(["crescendo", "--runs="], "runs")


@pytest.mark.parametrize("name", ["a:b", "lr[0.1]", "a\\b", "x{a,b}*?", "%41", "é 1", "gs", "c:/d"])
def test_other_names_are_paths(name):
    asked = parsed(
        f"--model_dir=runs/{name}", f"--dataset=image_folder:{name}", "--data_dir=gs://b"
    )
    assert asked.model_dir == f"runs/{name}"
    assert parsed(f"--model_dir=./{name}://x").model_dir == f"./{name}://x"
