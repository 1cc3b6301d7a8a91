import html.parser
import json
import re
import subprocess
import sys

import pytest

from tests.reports.batch_size_plots_test import grid
from tests.support.class_evaluations import CONTENT, HOSTILE
from tests.support.configs import done
from tests.support.run_directories import write
from tests.support.runs import result

_VOID = {"meta", "img", "wbr", "line", "br"}


class Page(html.parser.HTMLParser):
    """Parses a report, and checks that all of its elements are closed."""

    def __init__(self, path):
        super().__init__()
        self.open, self.titles, self.images, self.cells, self.links = [], [], [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        if "tabindex" in found:  # What is stopped at says what it is.
            assert found["role"] == "region"
            assert found["aria-label"]
        if tag == "img":
            self.images.append(found)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "h2":
            self.titles.append("")
        if tag not in _VOID:
            self.open.append(tag)
        assert tag != "script"

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if self.open and self.open[-1] == "h2":
            self.titles[-1] += data


def report(capsys, tmp_path, *arguments):
    output = tmp_path / "report.html"
    status, out, error = done(capsys, "report", *map(str, arguments), f"--output={output}")
    assert status == 0, error
    page = Page(output)
    for link in page.links:
        assert link.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,"))
    assert "url(" not in page.text
    assert "@import" not in page.text
    assert page.images
    for image in page.images:
        assert len(image["alt"]) > 40
    return page, out, error


def test_a_real_run(uninterrupted, capsys, tmp_path):
    model_dir, _ = uninterrupted
    page, out, error = report(capsys, tmp_path, model_dir)
    assert ": 1 run, " in out
    assert error == ""
    assert page.titles == ["Results", "Learning curves", "The schedule over the run", "Every run"]
    ended = result(model_dir)
    for said in (f"{ended['updates']}", f"{100 * ended['top1']:.2f}", f"{ended['loss']:.3f}"):
        assert page.cells.count(said) >= 2  # Of the condition and of the run.
    names = [image["alt"].partition(".")[0] for image in page.images]
    assert "Line chart of evaluation top-1 against updates" in names


def test_thirty_runs_of_a_sweep_one_damaged_one_late_one_begun(capsys, tmp_path):
    runs = tmp_path / "runs"
    for seed in (0, 1, 2):
        grid(runs, (32, 64, 128), (0.1, 0.2, 0.4), f"--seed={seed}")
    write(runs / "late", "--initial_batch_size=256", ended=False)
    write(runs / "with & <b>", "--anneal=cosine")
    (write(runs / "just_begun", ended=False) / "metrics.jsonl").write_text("")
    damaged = write(runs / "damaged", "--anneal=polynomial")
    (damaged / "metrics.jsonl").write_bytes(b"{\n" + bytes(100))
    page, out, error = report(capsys, tmp_path, runs)
    assert "31 runs" in out
    assert "31 runs, 12 conditions<" in page.text
    assert page.cells.count("just_begun") == 1
    note = (
        "line 1 of metrics.jsonl is damaged and left out: it is not JSON: Expecting property name "
        "enclosed in double quotes at line 2, column 1; 1 other line is damaged too"
    )
    assert error == f"crescendo report: damaged: {note}\n"
    assert note in page.cells
    assert "Accuracy by batch size and learning rate" in page.titles
    assert "with & <b>" in page.cells
    assert page.cells.count("3 of 3") == 9


def test_pictures_beside_the_page_and_paths_behind_flags(capsys, tmp_path):
    """Dollar signs in the names of runs stay, in the page and in the pictures."""
    write(tmp_path / "runs" / "a")
    write(tmp_path / "runs" / "$a^$", "--anneal=cosine")
    write_range_test(tmp_path / "runs" / "$b_$")
    page, out, _ = report(capsys, tmp_path, "--pictures", tmp_path / "runs")
    assert page.cells.count("$a^$") == 2
    assert "in $b_$." in page.images[-1]["alt"]
    pngs = sorted((tmp_path / "report_pictures").iterdir())
    assert f"{len(pngs)} figures" in out
    assert {png.read_bytes()[:4] for png in pngs} == {b"\x89PNG"}
    assert "eval_top1_epochs.png" in [png.name for png in pngs]


def test_pictures_of_a_page_beside_the_runs_stay_out_of_their_folder(capsys, tmp_path):
    """The pictures were written between the runs of a sweep, or beside a run's checkpoints."""
    runs, page = tmp_path / "sizes", tmp_path / "sizes.html"
    write(runs / "a")
    before = sorted(runs.rglob("*"))
    status, _, error = done(capsys, "report", str(runs), f"--output={page}", "--pictures")
    assert status == 0, error
    assert sorted(runs.rglob("*")) == before
    assert list((tmp_path / "sizes_pictures").glob("*.png"))


def test_the_same_runs_make_the_same_page(capsys, tmp_path):
    write(tmp_path / "a")
    one, _, _ = report(capsys, tmp_path, tmp_path / "a")
    other, _, _ = report(capsys, tmp_path, tmp_path / "a", tmp_path / "a")
    assert one.text == other.text


def write_range_test(folder, lines=16):
    """One that was stopped, whose rate doubles from 0.001 on."""
    write(folder, "--anneal=range_test", ended=False)
    kept = (folder / "metrics.jsonl").read_text().splitlines()[:lines]
    points = [json.loads(line) for line in kept]
    for point in points:
        point["learning_rate"] = 0.001 * 2 ** (point["update"] - 1)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(point)}\n" for point in points))


def test_a_range_test_is_no_condition_and_names_alone_break(capsys, tmp_path):
    """Names break at their words, and numbers do not break."""
    write(tmp_path / "runs" / "one_run", updates=1200)
    write_range_test(tmp_path / "runs" / "range")
    page, _, _ = report(capsys, tmp_path, tmp_path / "runs")
    assert "one_<wbr>run</th>" in page.text
    assert page.text.count("<td>1,200</td>") == 2
    assert "Learning rate range tests" in page.titles
    assert "2 runs, 1 condition<" in page.text
    assert re.search(r"Suggested learning rates: 0.00[0-9]+ to 2\.05", page.images[-1]["alt"])


def test_a_run_that_diverged_at_once_is_compared(capsys, tmp_path):
    """Checks a run without a logged point, which has a row and not an empty cell."""
    grid(tmp_path / "runs", (32, 64), (0.1, 0.2), skip=[(64, 0.2)])
    flags = ["--initial_batch_size=64", "--base_learning_rate=0.2"]
    folder = write(tmp_path / "runs" / "diverged", *flags, ended=False)
    (folder / "metrics.jsonl").write_text("")
    (folder / "diverged.txt").write_text("the loss is nan at update 1\n")
    page, _, _ = report(capsys, tmp_path, tmp_path / "runs")
    assert "4 runs, 4 conditions<" in page.text
    assert page.cells.count("0 of 1") == 1
    assert page.cells.count("diverged") == 3  # As a condition, and as a run and its state.
    (section,) = re.findall("<h2>Learning curves.*?</section>", page.text, re.DOTALL)
    assert section.count("</li>") == 3  # Nothing of it is drawn.


def test_a_range_test_that_has_just_begun_is_in_the_table(capsys, tmp_path):
    write(tmp_path / "runs" / "a")
    write_range_test(tmp_path / "runs" / "range", lines=1)
    page, _, _ = report(capsys, tmp_path, tmp_path / "runs")
    assert page.cells.count("range") == 1
    assert "Learning rate range tests" not in page.titles


def test_evaluations_by_class_have_a_section_for_each_run(capsys, tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / name)
    for name in ("a", "c"):
        (tmp_path / name / "evaluation.json").write_text(json.dumps(CONTENT))
    page, _, error = report(capsys, tmp_path, "--pictures", *(tmp_path / x for x in "abc"))
    assert error == ""
    assert page.titles[-3:] == ["Classes of a", "Classes of c", "Every run"]
    assert [" ".join(cell.split()) for cell in page.cells].count("cat (1)") == 2
    assert page.cells.count(HOSTILE.replace("\x1b", "\\x1b")) == 2 * 3
    assert sum(image["src"].startswith("data:image/png") for image in page.images) == 2 * 2
    names = {path.name for path in (tmp_path / "report_pictures").iterdir()}
    assert {"confusion_0.png", "confusion_1.png", "reliability_1.png"} <= names


def test_it_needs_no_tensorflow(tmp_path):
    write(tmp_path / "a")
    (tmp_path / "a" / "evaluation.json").write_text(json.dumps(CONTENT))
    code = (
        "import sys; from trainer.main import main; "
        f"status = main(['', 'report', {str(tmp_path)!r}, '--output', '{tmp_path}/x.html']); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    Page(tmp_path / "x.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run directories given"),
        (["{}/none"], "there is no run to read in {}/none"),
        (["{}/empty", "{}/damaged"], "there is no run to read"),
        (["{}/a", "--output={}/a/flags.txt/x.html"], "cannot be written"),
        (["{}/a", "--output="], "flag --output=: is empty"),
        (["{}/a", "--output={}/report", "--pictures"], "must end with .html"),
        (["{}/a", "--outptu=x"], "Did you mean: output ?"),
    ],
)
def test_mistakes(capsys, tmp_path, arguments, message):
    write(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    damaged = write(tmp_path / "damaged", ended=False)
    (damaged / "metrics.jsonl").write_text("{")
    status, _, error = done(capsys, "report", *(each.format(tmp_path) for each in arguments))
    assert status == 2
    assert message.format(tmp_path) in error
    assert len(error.strip().splitlines()) <= 2
