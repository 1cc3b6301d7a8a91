"""fetch: writes a local copy of a run or a sweep that is in a bucket."""

import pathlib

from trainer.buckets.url import parse
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.run_dir import bucket_reading
from trainer.sweep import fetched_sweep
from trainer.system.output import say


def run(config: Config) -> int:
    """Copies the run or sweep --model_dir to the folder --local_dir, in place of an earlier copy.

    Raises:
      UserError: if a flag is missing, --model_dir has no run in a bucket, or --local_dir is not a
        new folder or an earlier copy of this run or sweep.
    """
    url = parse(config.model_dir or "")
    if url is None:
        raise UserError(
            f"--model_dir={config.model_dir or ''} is not in a bucket: name the URL of a run, as "
            "in gs://bucket/runs/x."
        )
    if config.local_dir is None:
        raise UserError("--local_dir is missing: name the folder of the copy, as in runs/x.")
    folder = pathlib.Path(config.local_dir)
    runs = fetched_sweep.fetch(url, folder)
    if runs is not None:
        say(f"{folder} has the sweep {url}: {runs} {'run' if runs == 1 else 'runs'}")
    elif state := bucket_reading.fetch(url, folder):
        say(f"{config.local_dir} has the {len(state.files)} files of {url}")
    return 0
