"""The points of a sweep: a grid over the values of any flags, as --sweep writes it.

initial_batch_size=128,256;augment=none,strong      four points, the last flag changing fastest
initial_batch_size/ghost_batch_size=2/2,128/32      two: flags that move together
anneal_epochs={30%,60%},{50%,75%}                   two: braces hold a value together
flagfile=flags/a.flags,flags/b.flags;seed=0,1       four: two recipes, with two seeds each
"""

import itertools
import math
import pathlib
import re
from collections import Counter
from collections.abc import Sequence

from trainer.errors import UserError

# The values of the swept flags, as written, in the order of --sweep.
Point = dict[str, str]

# sweep.json has 300 bytes a point and more, and is read up to 16 MiB.
_MOST_POINTS = 10_000
# Of most file systems; with what is written beside it.
_LONGEST_NAME = 240


def parse(text: str) -> list[Point]:
    """The points that --sweep asks for.

    Raises:
      UserError: where `text` is no grid, names a flag or a value twice, or gives two points one
        folder.
    """
    axes = [_axis(part) for part in _split(text, ";") if part]
    if not axes:
        raise UserError(
            '--sweep names no flag: write it as in --sweep="momentum=0.9,0.98;seed=0,1".'
        )
    named = [name for names, _ in axes for name in names]
    for name, times in Counter(named).items():
        if times > 1:
            raise UserError(f"--sweep names {name} twice: give all its values at once.")
    count = math.prod(len(values) for _, values in axes)
    if count > _MOST_POINTS:
        raise UserError(
            f"--sweep has {count:,} points, and {_MOST_POINTS:,} are the most: sweep a part."
        )
    points = [
        dict(zip(named, itertools.chain(*values), strict=True))
        for values in itertools.product(*(values for _, values in axes))
    ]
    for name, times in Counter(map(folder, points)).items():
        if times > 1:
            raise UserError(
                f"--sweep has {times} points that would have the folder {name}: leave the same "
                "values out, or tell their names apart by letters and digits."
            )
        if len(name.encode()) > _LONGEST_NAME:
            raise UserError(
                f"--sweep has a point whose folder's name is longer than {_LONGEST_NAME} bytes: "
                "put some of its flags into flagfiles, and sweep these."
            )
    return points


def part(points: Sequence[Point], text: str | None) -> list[Point]:
    """Every n-th of `points` from the i-th on, for `text` i/n counted from 1; all for None.

    Raises:
      UserError: where `text` is something else.
    """
    if text is None:
        return list(points)
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    i, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= i <= n:
        raise UserError(
            f"--sweep_shard={text} cannot be used: write 1/4 for the first of four, up to 4/4."
        )
    return list(points[i - 1 :: n])


def folder(point: Point) -> str:
    """The name of a point's run directory, the same whatever else the sweep has."""
    return ",".join(
        f"{name}={re.sub(r'[^A-Za-z0-9.%_+-]+', '-', shown(name, value).replace(',', '+'))}"
        for name, value in point.items()
    )


def shown(name: str, value: str) -> str:
    """A value as tables show it: a flagfile without its folder and suffix."""
    return pathlib.PurePath(value).stem if name == "flagfile" else value


def _axis(text: str) -> tuple[list[str], list[list[str]]]:
    """What one part between semicolons stands for: flags, and the values they take together."""
    left, equals, right = text.partition("=")
    names = [name.strip() for name in left.split("/")]
    if not equals or not all(re.fullmatch(r"[a-z]\w*", name) for name in names):
        raise UserError(f"--sweep has {text!r}, and wants flag=value,value there.")
    found = []
    for one in _split(right, ","):
        values = _split(one, "/") if len(names) > 1 else [one]
        if len(values) != len(names) or not all(values):
            raise UserError(
                f"--sweep has {one!r} for {left}, and wants {_wanted(len(names))} there; a value "
                "that holds a comma, a slash or a semicolon stands in {}."
            )
        found.append([_without_braces(value) for value in values])
    return names, found


def _wanted(n: int) -> str:
    return "a value" if n == 1 else f"{n} values with a slash between"


def _without_braces(text: str) -> str:
    return text[1:-1] if text.startswith("{") and text.endswith("}") else text


def _split(text: str, separator: str) -> list[str]:
    """The parts of `text` between separators that stand outside braces, without spaces around."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            break
        if letter == separator and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise UserError(f"--sweep has a brace without its other half in {text.strip()!r}.")
    return [part.strip() for part in parts]
