"""Builds a report on runs; a section is left out if no run has data for it."""

import functools
import itertools
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from trainer.reports import (
    batch_size_plots,
    class_section,
    curves,
    html,
    range_test,
    tables,
)
from trainer.reports.conditions import Condition, conditions
from trainer.reports.plots import Picture
from trainer.reports.run_record import DIVERGED, RunRecord

_Part = tuple[html.Section, list[Picture]]  # The list holds the pictures in the section.


def report(runs: Sequence[RunRecord]) -> tuple[str, list[Picture]]:
    """Returns the HTML page on `runs`, and its pictures."""
    tests = [run for run in runs if run.is_range_test and _rises(_ramp(run))]
    groups = conditions(list(filter(_is_compared, runs)))
    drawn = [each for each in groups if any(run.points for run in each.runs)]
    shown = [_comparisons(groups), _results(groups), _learned(drawn), _schedule(drawn)]
    tested = [run for run in runs if run.evaluation]
    shown += [_range_tests(tests)]
    shown += [
        class_section.build(run, number if len(tested) > 1 else None)
        for number, run in enumerate(tested)
    ]
    shown += [_runs(groups, itertools.filterfalse(_is_compared, runs))]
    sections = [(section, pictures) for section, pictures in shown if section.body]
    text = html.page(
        f"Crescendo: {count(len(runs), 'run')}, {count(len(groups), 'condition')}",
        tables.summary(groups) if groups else [],
        [section for section, _ in sections],
    )
    return text, list(itertools.chain.from_iterable(pictures for _, pictures in sections))


def _is_compared(run: RunRecord) -> bool:
    """Returns whether `run` has data or a recorded failure, and is not a range test."""
    known = run.points or run.result or (run.flags and run.state in (DIVERGED, "failed"))
    return bool(known) and not run.is_range_test


def _results(groups: Sequence[Condition]) -> _Part:
    spread = "Each condition has one run, so its spread is unknown."
    if any(len(each.ended) > 1 for each in groups):
        spread = "Means ± one sample standard deviation (n − 1) over runs that differ in the seed."
    body = html.table(tables.by_condition(groups))
    if first := tables.reference(groups):
        savings = f"Savings are relative to {first.label}, the first condition with a finished run."
        seconds = "Seconds are training time: compare them only between runs of one machine."
        note = f"{spread} Only finished runs count. {savings} {seconds}"
        if averaged := [each.label for each in groups if _averages(each)]:
            which = ", ".join(averaged) if len(averaged) < len(groups) else "all conditions"
            note += f" Top-1 and loss are of the average of the parameters in {which}."
        if twice := [each.label for each in groups if each.repeats_a_seed]:
            note += (
                f" These conditions have several runs of one seed: {', '.join(twice)}. Runs of a "
                "condition have the same flags, but may differ in the model of a Python program "
                "or in other code."
            )
        body += html.paragraphs([note], "note")
    if tables.flags_apart(groups):
        body += html.paragraphs(["The flags in which the conditions differ (–: unset):"])
        body += html.table(tables.flags(groups))
    return html.Section("Results", body if groups else ""), []


def _averages(condition: Condition) -> bool:
    """Returns whether any run in `condition` has the results of its averaged parameters."""
    return any(run.evaluated_with == "ema" for run in condition.runs)


def _comparisons(groups: Sequence[Condition]) -> _Part:
    pictures = batch_size_plots.against_batch(groups) + batch_size_plots.heat_maps(groups)
    section = html.Section("Accuracy by batch size and learning rate", html.figures(pictures))
    return section, pictures


def _learned(groups: Sequence[Condition]) -> _Part:
    drawn = curves.lines(groups)
    pictures = curves.learned(groups, drawn)
    body = html.legend(drawn) + html.figures(pictures) + _how_drawn(groups)
    return html.Section("Learning curves", body if pictures else ""), pictures


def _how_drawn(groups: Sequence[Condition]) -> str:
    """Returns a paragraph on the thickness, colours and symbols of the curves."""
    notes = []
    if any(len(each.runs) > 1 for each in groups):
        notes.append("Thin: single runs. Thick: the mean of the finished runs.")
    if len(groups) > curves.COLOURED:
        notes.append(
            f"Coloured: the first condition and the {curves.COLOURED - 1} with the highest top-1."
        )
    if any(run.state == DIVERGED for each in groups for run in each.runs):
        notes.append("×: the last point at which the loss was finite.")
    return html.paragraphs([" ".join(notes)], "note") if notes else ""


def _schedule(groups: Sequence[Condition]) -> _Part:
    drawn = curves.lines(groups)
    pictures, still = curves.schedule(groups, drawn)
    body = html.paragraphs(still)
    if pictures:
        body = html.legend(drawn) + html.figures(pictures) + body
    return html.Section("The schedule over the run", body), pictures


def _ramp(run: RunRecord) -> list[range_test.Point]:
    return range_test.whole(run.points_of("train"))


def _rises(ramp: Sequence[range_test.Point]) -> bool:
    return bool(ramp) and ramp[0]["learning_rate"] < ramp[-1]["learning_rate"]


def _range_tests(tests: Sequence[RunRecord]) -> _Part:
    pictures = []
    for i, run in enumerate(tests):
        found = range_test.suggest(_ramp(run), run.state)
        rates = f"{found.lowest:.3g} to {found.highest:.3g}" if found.is_found else "none"
        scale = run.flags.get("range_scale", "geometric")
        pictures.append(
            Picture(
                name="range_test" + (f"_{i}" if len(tests) > 1 else ""),
                alt=f"Training loss and top-1 against a rising learning rate, in {run.name}. "
                f"Suggested learning rates: {rates}.",
                caption=f"{run.name}: {found.why}",
                draw=functools.partial(
                    _draw_range_test, run=run, found=found, rates=rates, scale=scale
                ),
                height=4.2,
            )
        )
    return html.Section("Learning rate range tests", html.figures(pictures)), pictures


def _draw_range_test(
    figure: Figure, run: RunRecord, found: range_test.Interval, rates: str, scale: str
) -> None:
    range_test.plot(figure, _ramp(run), found, scale)
    figure.axes[0].set_title(f"{run.name}: rates {rates}")


def _runs(groups: Sequence[Condition], others: Iterable[RunRecord]) -> _Part:
    runs = [*(run for each in groups for run in each.runs), *others]
    return html.Section("Every run", html.table(tables.by_run(runs))), []


def count(n: int, what: str) -> str:
    """Returns the number and the noun, such as 1 run or 2 runs."""
    return f"{n} {what}" + ("" if n == 1 else "s")
