"""Writes CSV files that divide the classes of an image folder into a source and a target.

    python scripts/benchmarks/make_transfer.py FOLDER --counts=10,50,500

FOLDER has train/<class>/ and val/<class>/. FOLDER/source.csv lists all images of the first half of
the classes, by name. FOLDER/target_10.csv lists the first 10 training images of each other class,
by name, and all their validation images; target_50.csv and target_500.csv do so with 50 and 500.
"""

import argparse
import pathlib
from collections.abc import Sequence


def _lines(folder: pathlib.Path, names: Sequence[str], count: int | None) -> list[str]:
    lines = ["path,label,split"]
    for split, most in (("train", count), ("val", None)):
        for name in names:
            files = sorted((folder / split / name).iterdir())[:most]
            lines += [f"{split}/{name}/{file.name},{name},{split}" for file in files]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--counts", default="10,50,500")
    arguments = parser.parse_args()
    folder = arguments.folder
    names = sorted(path.name for path in (folder / "train").iterdir())
    half = len(names) // 2
    tables = {"source": (names[:half], None)}
    for count in map(int, arguments.counts.split(",")):
        tables[f"target_{count}"] = (names[half:], count)
    for table, (classes, most) in tables.items():
        lines = _lines(folder, classes, most)
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{table}.csv: {len(lines) - 1:,} images of {', '.join(classes)}")


if __name__ == "__main__":
    main()
