"""Run directories in the real format, written by hand."""

import json

from tests.support.configs import parsed
from trainer.config.flagfile import to_flagfile
from trainer.schedule.averaging import evaluated_with

N = 1000


def write(folder, *flags, top1=0.8, updates=20, seconds=10.0, ended=True, noise=None):
    """A run of two epochs in `updates` updates, whose top-1 rises linearly to `top1`.

    If the flags ask for an average, its top-1 is 0.1 above that of the plain parameters.
    """
    folder.mkdir(parents=True)
    config = parsed("--epochs=2", *flags)
    (folder / "flags.txt").write_text(to_flagfile(config), encoding="utf-8")
    batch = 2 * N // updates
    lines = []
    for update in range(1, updates + 1):
        share = update / updates
        setting = {"batch_size": batch, "learning_rate": 0.1, "momentum": 0.9, "noise_scale": 10.0}
        point = {"update": update, "position": update * batch, "epoch": 2 * share, **setting}
        point |= {"loss": 2 - share, "top1": share * top1, "time": 1.6e9 + update}
        more = {} if noise is None else {"gradient_noise_scale": noise * share}
        lines.append({"split": "train", **point, **more})
        if update % (updates // 2) == 0:
            lines.append({"split": "eval", **point})
            if config.ema_decay is not None:
                lines.append({"split": "eval_ema", **point, "top1": point["top1"] + 0.1})
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    (folder / "lock").write_text("", encoding="utf-8")
    if ended:
        result = {"top1": top1, "loss": 1.0, "updates": updates, "seconds": seconds}
        result |= {"epochs": 2.0, "examples_per_second": 2 * N / seconds, "resumes": 0}
        if config.ema_decay is not None:
            both = {"plain": {"top1": top1, "loss": 1.0}, "ema": {"top1": top1 + 0.1, "loss": 1.0}}
            counts = evaluated_with(config)
            result |= both[counts] | both | {"evaluated_with": counts}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder
