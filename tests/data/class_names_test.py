"""Checks the lines about splits and classes that a user reads."""

import pytest

from trainer.data.class_names import counted, few, places, refuse_unknown, split_summary
from trainer.errors import UserError


def test_the_summary_of_a_split_is_one_line():
    names = ("cat", "dog", "fox", "owl")
    line = split_summary("train", 240, names, [61, 60, 61, 58], {"hidden": 4, ".txt": 8})
    assert line == (
        "train: 240 images, 4 classes (cat 61 … owl 58); 12 files left out (.txt 8, hidden 4)"
    )
    assert split_summary("val", 1, ("cat",), [1]) == "val: 1 image, 1 class (cat 1)"
    assert split_summary("test", 60_000, names) == "test: 60,000 images, 4 classes"
    line = split_summary("val", 9, ("a", "b\n"), [4, 3], {".x\t": 1})
    assert line == (
        r"val: 9 images, 2 classes (a 4, b\n 3), and 2 images of classes that the run does not "
        r"know; 1 file left out (.x\t 1)"
    )


def test_many_names_and_kinds_are_shortened():
    assert few([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 others"
    kinds = {f".{i:02}": i for i in range(1, 13)}
    assert counted(kinds).startswith(".12 12, .11 11, ")
    assert counted(kinds).endswith(", .03 3, others 3")


def test_labels_are_matched_by_name():
    assert places(["dog", "cat", "owl"], ("cat", "dog")) == [1, 0, -1]
    refuse_unknown(["dog", "owl"], ("cat", "dog"), "x val", skip=True)
    with pytest.raises(UserError) as error:
        refuse_unknown(["dog", "owl", "a\nb"], ("cat", "dog"), "x val", skip=False)
    assert str(error.value).splitlines() == [
        r"x val has classes that the run does not know: owl, a\nb. It knows cat, dog.",
        "Remove or rename them, or give --skip_bad_examples to leave their examples out.",
    ]
