import copy
import json

from tests.support.class_evaluations import CONTENT, row
from tests.support.run_directories import write
from trainer.reports import class_section, html, run_record


def read(folder, content):
    write(folder)
    (folder / "evaluation.json").write_text(json.dumps(content))
    return run_record.read(folder, folder.name)


def test_numbers_of_classes_confusions_and_pictures_are_shown(tmp_path):
    section, pictures = class_section.build(read(tmp_path / "run", CONTENT))
    assert section.title == "Classes of run"
    assert [picture.name for picture in pictures] == ["confusion", "reliability"]
    body = section.body.replace("<wbr>", "")
    assert "image_folder:photographs val, 8 examples, by the model of update 20." in body
    assert "Top-1 75.00%, balanced accuracy 70.00%, loss 0.700" in body
    assert "5.00% in 2 bins" in body
    assert "The split has no examples of owl." in body
    for cell in ("80.00", "66.67", "5"):  # F1 of both classes, and the examples of cat.
        assert f"<td>{cell}</td>" in body
    # The lowest F1 is the first, and a class without examples has no row.
    assert body.index("66.67") < body.index("80.00")
    assert ">owl<" not in body
    assert body.count("data:image/png;base64,") == 2
    assert "<span>number 4 of the split</span>" in body
    assert "<span>cat, 20.00%</span>" in body
    assert "top-5" not in body


def test_hostile_names_and_paths_are_escaped(tmp_path):
    section, _ = class_section.build(read(tmp_path / "run", CONTENT))
    page = html.page("title", [], [section])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "<span>\\udcff6.jpg</span>" in page
    assert "The files are below photographs/val/&lt;script&gt;" in page
    page.encode()


def test_top5_is_shown_for_more_than_ten_classes_and_a_newer_update_is_named(tmp_path):
    content = copy.deepcopy(CONTENT) | {"update": 10}
    content["classes"] += [row(f"class {i}", 0, 0, 0) for i in range(8)]
    section, _ = class_section.build(read(tmp_path / "run", content), number=1)
    assert "top-5 100.00%" in section.body
    assert "by the model of update 10; the run has since reached update 20." in section.body


def test_of_many_classes_the_lowest_100_are_shown(tmp_path):
    content = copy.deepcopy(CONTENT) | {"most_wrong": []}
    content["classes"] = [row(f"c{i}", 100, 100, min(i, 100)) for i in range(150)]
    content["confusion"] = [[i, i, 100] for i in range(150)]
    section, _ = class_section.build(read(tmp_path / "run", content))
    assert section.body.count("</tr>") == 101
    assert "Only in evaluation.csv: 50 of 150 classes, whose F1 is not lower." in section.body
    assert "The most frequent confusions" not in section.body
    assert "The most wrong pictures" not in section.body


def test_a_damaged_evaluation_is_a_note_on_the_run(tmp_path):
    run = read(tmp_path / "run", {**CONTENT, "top1": 2})
    assert run.evaluation is None
    assert run.notes == ["evaluation.json is damaged: top1 is 2, not a number from 0 to 1"]


def test_a_matrix_is_said_to_be_left_out_only_if_it_is(tmp_path):
    content = copy.deepcopy(CONTENT) | {"most_wrong": []}
    for occurring, drawn in ((1000, True), (1001, False)):
        content["classes"] = [row(f"c{i}", 1, 1, 1) for i in range(occurring)]
        content["classes"] += [row(f"absent{i}", 0, 0, 0) for i in range(500)]
        content["confusion"] = [[i, i, 1] for i in range(occurring)]
        section, pictures = class_section.build(read(tmp_path / str(occurring), content))
        assert ("confusion" in [picture.name for picture in pictures]) == drawn
        assert ("classes is not drawn" in section.body) != drawn
