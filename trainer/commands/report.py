"""report: writes one HTML page about run directories, without importing TensorFlow."""

import pathlib

from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.reports import run_record
from trainer.system.atomic_file import write_atomic
from trainer.system.output import log, say


def run(config: Config) -> int:
    """Writes the page, and each figure as a PNG file if --pictures is set.

    The command prints the path of the page, and any problems with the runs and folders.

    Raises:
      UserError: if no run can be read, or the page cannot be written.
    """
    if not config.runs:
        raise UserError("no run directories given: name some, as in `report runs/*`.")
    given = [pathlib.Path(path) for path in config.runs]
    folders, left_out = run_record.find(given)
    runs = [
        run_record.read(folder, name)
        for folder, name in zip(folders, run_record.names(folders), strict=True)
    ]
    if not any(run.points or run.result for run in runs):
        damage = f" ({runs[0].name}: {'; '.join(runs[0].notes)})" if runs and runs[0].notes else ""
        raise UserError(
            f"there is no run to read in {', '.join(config.runs[:3])}"
            f"{', …' if len(config.runs) > 3 else ''}{damage}.\n"
            "Name run directories: they hold flags.txt and metrics.jsonl."
        )
    # Importing these modules takes 0.5 s, so the checks above come first.
    from trainer.reports import report_builder
    from trainer.reports.plots import png

    html, pictures = report_builder.report(runs)
    output = pathlib.Path(config.output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, html)
        if config.pictures:
            beside = output.with_name(f"{output.stem}_pictures")
            beside.mkdir(exist_ok=True)
            for picture in pictures:
                write_atomic(beside / f"{picture.name}.png", png(picture))
    except OSError as error:
        raise UserError(
            f"--output={output} cannot be written: {error.strerror} ({error.filename})."
        ) from error
    for path, reason in left_out.items():
        log(f"{path} is left out, because it {reason}.")
    for problem in run_record.unread_sweeps([*given, *(folder.parent for folder in folders)]):
        log(problem)
    for run in runs:
        if run.notes:
            log(f"{run.name}: {'; '.join(run.notes)}")
    say(f"{output}: {report_builder.count(len(runs), 'run')}, {len(pictures)} figures")
    return 0
