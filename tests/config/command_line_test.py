import pytest

from tests.support.configs import parsed
from trainer.config.flags import FLAGS
from trainer.errors import UserError
from trainer.nn.optimizers import OPTIMIZERS


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
        ("--base_learning_rate=1e308", "must be above 0, from 1e-30 to 1e30"),
        ("--base_learning_rate=1e-310", "must be above 0, from 1e-30 to 1e30"),
        ("--epochs=1e305", "must be above 0, from 1e-9 to 1e9"),
        ("--eval_every_epochs=1e-300", "must be above 0, from 1e-9 to 1e9"),
        ("--growth_threshold=1e308", "must be above 1 and at most 1e9"),
        ("--model_dir=~/runs/x", "the shell does not expand within a flag: write $HOME"),
        ("--dataset=image_folder:~/photos", "begins with ~, which the shell does not expand"),
        ("--data_dir=~/sets", "begins with ~, which the shell does not expand"),
        ("--plot=~ann/x.png", "begins with ~ann, which the shell does not expand within a flag: "),
        (
            "--plot=~ann/x.png",
            "path of that home folder, or ./~ann/x.png for a file whose name begins with ~",
        ),
        ("--seed=9223372036854775808", "must be from 0 to 9223372036854775807"),
        (f"--train_examples={'9' * 400}", "must be below 2⁶³"),
        (f"--train_examples={'9' * 5000}", "--train_examples"),
        (f"--initial_batch_size={'9' * 400}", "must be below 2⁶³"),
        (f"--image_sizes={'9' * 5000}@0", "a size must be from 1 to 65536 pixels"),
        ("--plan_examples_per_second=1e-308", "must be above 0, from 1e-9 to 1e18"),
        ("--plan_link_bandwidth=1e-308", "must be above 0, from 1e-9 to 1e18"),
        ("--plan_link_latency=1e308", "must be from 0 to 1e12"),
        ("--plan_change_seconds=1e308", "must be from 0 to 1e12"),
        ("--order_version=3", "flag --order_version=3: must be 1 or 2"),
        ("--cache_dir=gs://b/x", "flag --cache_dir=gs://b/x: is a URL, and only local disks are"),
        ("--cache_dir=gs://b/x", "the URL with `gcloud storage rsync --recursive`"),
        ("--cache_dir=S3://b/x", "the URL with `aws s3 sync`"),
        ("--model_dir=gs:/b/x", "is not the URL of a folder in a bucket: write it as in gs://"),
        ("--model_dir=S3://b/x", "is not the URL of a folder in a bucket: write it as in s3://"),
        ("--model_dir=gs://bucket", "names a whole bucket"),
        ("--model_dir=anything://x", "is a URL"),
        ("--model_dir=file:///x", "write the path alone"),
        ("--export_dir=s3://b/x", "flag --export_dir=s3://b/x: is a URL"),
        ("--output=https://x/y.html", "flag --output=https://x/y.html: is a URL"),
        ("--plot=hdfs://x/y.png", "flag --plot=hdfs://x/y.png: is a URL"),
        ("--checkpoint=gs://b/checkpoints/1", "flag --checkpoint=gs://b/checkpoints/1: is a URL"),
        ("--dataset=image_folder:gs://b/x", "is not the URL of a folder in a bucket: write it"),
        ("--dataset=image_folder:gs://bucket/../x", "has a folder . or .., which buckets do not"),
        ("--dataset=image_csv:gs://bucket/x.csv", "is a URL, and only local disks are read"),
        ("--dataset=image_folder:", "flag --dataset=image_folder:: is empty"),
        ("--model_dir=", "flag --model_dir=: is empty: if you wrote a shell variable"),
        ("--model_dir= ", "is empty: if you wrote a shell variable"),
        ("--export_dir=", "flag --export_dir=: is empty"),
        ("--output=", "flag --output=: "),
        ("--plot=", "flag --plot=: is empty"),
        ("--data_dir=", "flag --data_dir=: is empty"),
        ("--data_dir=hdfs:/b", "flag --data_dir=hdfs:/b: is a URL with one slash"),
        ("--data_dir=gs:/bucket", "is not the URL of a folder in a bucket: write it as in gs://"),
        ("--dataset=", "flag --dataset=: is empty"),
        ("--model_dir=a\nb", r"--model_dir='a\nb' has a line break"),
        ("--flagfile=/dev/zero", "--flagfile=/dev/zero cannot be read: it is a device, not a"),
        ("--dataset=image_folder:/tmp/caf\udce9", r"caf\udce9' is not UTF-8"),
    ],
)
def test_a_wrong_flag_is_rejected_with_its_value_and_a_remedy(argument, message):
    flag = FLAGS.get(argument.partition("=")[0][2:])
    with pytest.raises(UserError) as error:
        parsed(argument, command=flag.commands[0] if flag else "train")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_every_optimizer_is_a_value_of_its_flag():
    assert FLAGS["optimizer"].choices == tuple(OPTIMIZERS)


def test_one_device_with_several_virtual_devices_is_rejected():
    with pytest.raises(UserError, match="one_device uses only one of --virtual_devices=4"):
        parsed("--strategy=one_device", "--virtual_devices=4")


SLICE = "10.0.0.2:8470,10.0.0.3:8470"


def test_the_hosts_of_a_slice_need_no_zone():
    assert parsed("--strategy=tpu", f"--tpu={SLICE}").tpu == SLICE


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_a_slice_is_rejected_by_commands_that_do_not_train(command):
    with pytest.raises(UserError, match="names several hosts, which only train and range_test"):
        parsed("--strategy=tpu", f"--tpu={SLICE}", command=command)


def test_virtual_devices_with_several_workers_are_rejected():
    with pytest.raises(UserError, match="--virtual_devices=2 splits the CPU of one process"):
        parsed("--strategy=multi_worker", "--virtual_devices=2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--strategy=tpu", "--strategy=tpu needs --tpu: give --tpu=local on a TPU VM, or else"),
        ("--strategy=tpu --tpu=v5", "--tpu=v5 is a name, which is looked up by zone and project"),
        ("--strategy=tpu --tpu=v5 --tpu_zone=a", "--tpu=v5 is a name"),
        ("--strategy=tpu --tpu=10.0.0.2:8470", "flag --tpu=10.0.0.2:8470: must be a name"),
        ("--strategy=tpu --tpu=local --virtual_devices=8", "--virtual_devices=8 splits the CPU"),
        ("--tpu=local", "--tpu=local needs --strategy=tpu: add it, or leave --tpu out"),
        ("--strategy=tpu --tpu=a:8470,a:8470", "the different addresses of several hosts"),
        ("--strategy=tpu --tpu=a:8470,b:99999", "the different addresses of several hosts"),
        ("--strategy=tpu --tpu=grpc://1.2.3.4:8470", "flag --tpu=grpc://1.2.3.4:8470: must be a"),
        ("--tpu_zone=../x", "flag --tpu_zone=../x: must be a name"),
    ],
)
def test_incomplete_tpu_flags_are_rejected(arguments, message):
    with pytest.raises(UserError) as error:
        parsed(*arguments.split())
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    "model", ["wide_resnet_10_1", "resnet_500", "vit_mine:build", "ResNet50", "my.vit_ti_7:build"]
)
def test_stochastic_depth_of_a_model_without_it_is_rejected(model):
    with pytest.raises(UserError, match=f"--model={model} has no stochastic depth"):
        parsed("--drop_path=0.1", f"--model={model}")
    for other in ("resnet_50", "vit_ti_7"):
        assert parsed("--drop_path=0.1", f"--model={other}").drop_path == 0.1


def test_a_tpu_without_xla_is_rejected():
    with pytest.raises(UserError, match="--xla=off has no effect with --strategy=tpu"):
        parsed("--strategy=tpu", "--tpu=local", "--xla=off")
    assert parsed("--strategy=tpu", "--tpu=local", "--xla=on").xla == "on"


def test_an_unset_precision_is_left_to_the_run():
    assert parsed().precision == parsed("--strategy=tpu", "--tpu=local").precision == "auto"
    assert parsed("--precision=float32").precision == "float32"


def test_report_rejects_urls_and_empty_paths():
    with pytest.raises(UserError, match=r"report cannot read 'hdfs://b/x': it is a URL"):
        parsed("hdfs://b/x", command="report")
    assert parsed("gs://bucket/x", command="report").runs == ("gs://bucket/x",)
    with pytest.raises(UserError, match="report cannot read '': it is empty"):
        parsed("--runs=", command="report")


def test_a_tilde_is_a_home_unless_a_file_has_such_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("~draft.jpg", "a~b"):
        (tmp_path / name).touch()
    names = ("~draft.jpg", "a~b", "x/~y")
    assert parsed(*names, command="predict").images == names
    (tmp_path / "~").mkdir()
    with pytest.raises(UserError, match=r"predict cannot read '~/x.jpg': it begins with ~, which"):
        parsed("~/x.jpg", command="predict")
    with pytest.raises(UserError, match=r"predict cannot read '~bob': it begins with ~bob, which"):
        parsed("~bob", command="predict")


@pytest.mark.parametrize("name", ["a:b", "lr[0.1]", "a\\b", "x{a,b}*?", "%41", "é 1", "gs", "c:/d"])
def test_names_that_resemble_urls_or_patterns_are_paths(name):
    asked = parsed(
        f"--model_dir=runs/{name}", f"--dataset=image_folder:{name}", "--data_dir=gs://bucket"
    )
    assert asked.model_dir == f"runs/{name}"
    assert parsed(f"--model_dir=./{name}://x").model_dir == f"./{name}://x"


def test_a_flag_of_another_command_is_rejected_unless_a_flagfile_holds_it(tmp_path):
    with pytest.raises(UserError) as error:
        parsed("--plan_replicas=8", command="train")
    refusal = "--plan_replicas is a flag of plan, not of train.\n"
    assert str(error.value).startswith(refusal)
    assert "`python -m trainer train --help`" in str(error.value)
    file = tmp_path / "x.flags"
    file.write_text("--plan_replicas=8\n--runs=runs/x\n--epochs=3\n", encoding="utf-8")
    assert parsed(f"--flagfile={file}").epochs == 3
    with pytest.raises(UserError, match="--sweep_retry is a flag of sweep"):
        parsed(f"--flagfile={file}", "--nosweep_retry", command="train")
    file.write_text("--replica=8\n", encoding="utf-8")  # No command has this flag.
    with pytest.raises(UserError, match="Unknown command line flag 'replica'"):
        parsed(f"--flagfile={file}")


def test_a_choice_of_another_command_is_rejected():
    assert parsed("--format=csv", command="predict").format == "csv"
    for command in ("plan", "evaluate", "sweep"):
        with pytest.raises(UserError) as error:
            parsed("--format=csv", command=command)
        assert str(error.value) == (
            f"--format=csv is for predict, not for {command}: use table or json."
        )


def test_pictures_may_have_any_name_and_no_flag():
    asked = parsed(
        "a.jpg", "--images=b", "--top_k=2", "caf\udce9.jpg", "--", "-x", command="predict"
    )
    assert asked.images == ("b", "a.jpg", "caf\udce9.jpg", "-x")
    with pytest.raises(UserError, match=r"predict cannot read .s3://b/x.jpg.: it is a URL"):
        parsed("s3://b/x.jpg", command="predict")
    with pytest.raises(UserError, match="flag --top_k=0: must be above 0"):
        parsed("--top_k=0", command="predict")


def test_parsing_keeps_no_state_of_an_earlier_command_line():
    assert parsed("--epochs=3", "--deterministic").given == {
        "epochs": "--epochs=3.0",
        "deterministic": "--deterministic",
    }
    assert parsed().given == {}
    assert parsed() == parsed()


def test_runs_may_be_given_without_the_flags_name():
    asked = parsed("a", "--runs=b", "--output=x.html", "c", command="report")
    assert asked.runs == ("b", "a", "c")


def test_no_flag_is_named_like_another_with_a_no_prefix():
    """Otherwise a line of flags.txt could mean two things: --no_x, or x switched off."""
    assert not {f"no{name}" for name in FLAGS} & set(FLAGS)


@pytest.mark.parametrize("line", ["--epoch=3", "epochs=3", "--epochs=long"])
def test_the_error_of_a_wrong_line_in_a_flagfile_names_the_file(tmp_path, line):
    inner, outer = tmp_path / "inner.flags", tmp_path / "outer.flags"
    inner.write_text(f"--seed=1\n{line}\n", encoding="utf-8")
    outer.write_text("--flagfile=inner.flags\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        parsed(f"--flagfile={outer}", command="train")
    assert str(error.value).startswith(f"{inner}: ")
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize("flag", [flag for flag in FLAGS.values() if flag.formerly])
def test_an_earlier_name_of_a_flag_is_accepted(flag):
    name = next(name for name, each in FLAGS.items() if each is flag)
    command, value = flag.commands[0], "1/2" if name == "sweep_shard" else "3"
    wanted = parsed(f"--{name}={value}", command=command)
    for arguments in ([f"--{flag.formerly}={value}"], [f"-{flag.formerly}", value]):
        assert parsed(*arguments, command=command) == wanted
    with pytest.raises(UserError, match=f"--{name} is a flag of .*, not of report"):
        parsed(f"--{flag.formerly}={value}", command="report")
    assert flag.formerly not in FLAGS
