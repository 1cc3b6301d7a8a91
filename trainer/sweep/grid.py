"""Parses --sweep, a grid over the values of any flags, into the points of a sweep.

A point is one combination of values, with which one run is trained. Examples of grids:

initial_batch_size=128,256;augment=none,strong      four points; the last flag changes fastest
initial_batch_size/ghost_batch_size=2/2,128/32      two points: the flags change together
anneal_epochs={30%,60%},{50%,75%}                   two points: braces enclose a value with commas
flagfile=flags/a.flags,flags/b.flags;seed=0,1       four points: two recipes with two seeds each
"""

import itertools
import math
import pathlib
import re
from collections import Counter
from collections.abc import Sequence

from trainer.errors import UserError

# Maps each swept flag to its value as --sweep gives it. The flags are in the order of --sweep.
Point = dict[str, str]

# Each outcome rewrites the whole sweep.json, in which a point takes from 300 to over 1,000 bytes.
MOST_POINTS = 10_000
# Longest folder name, in bytes. Most file systems allow 255, but temporary names have a suffix.
_LONGEST_NAME = 240


def parse(text: str) -> list[Point]:
    """Returns the points of the grid `text`, which is the value of --sweep.

    Raises:
      UserError: if `text` is not a grid, repeats a flag, or has too many points; if two points have
        the same folder; or if a folder's name is too long.
    """
    axes = [_axis(part) for part in _split(text, ";") if part]
    if not axes:
        raise UserError(
            '--sweep does not name a flag: write it as in --sweep="momentum=0.9,0.98;seed=0,1".'
        )
    named = [name for names, _ in axes for name in names]
    for name, times in Counter(named).items():
        if times > 1:
            raise UserError(f"--sweep names {name} twice: list all its values in one place.")
    count = math.prod(len(values) for _, values in axes)
    if count > MOST_POINTS:
        raise UserError(
            f"--sweep has {count:,} points, and at most {MOST_POINTS:,} are allowed: "
            "remove values, or run several sweeps."
        )
    points = [
        dict(zip(named, itertools.chain(*values), strict=True))
        for values in itertools.product(*(values for _, values in axes))
    ]
    for name, times in Counter(map(folder, points)).items():
        if times > 1:
            raise UserError(
                f"--sweep gives {times} points the same folder {name}: remove repeated values, "
                "or choose values that differ in letters or digits."
            )
        if len(name.encode()) > _LONGEST_NAME:
            raise UserError(
                f"--sweep has a point whose folder name is longer than {_LONGEST_NAME} bytes: "
                "put some of its flags into flagfiles, and sweep the flagfiles."
            )
    return points


def part(points: Sequence[Point], text: str | None) -> list[Point]:
    """Returns the points of a shard: every n-th point from the i-th on, counted from 1.

    `text` is the value of --sweep_shard, "i/n". If it is None, returns all points.

    Raises:
      UserError: if `text` is not i/n with 1 ≤ i ≤ n.
    """
    if text is None:
        return list(points)
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    i, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= i <= n:
        raise UserError(
            f"--sweep_shard={text} is not a shard: write 1/4 for the first of four, up to 4/4."
        )
    return list(points[i - 1 :: n])


def folder(point: Point) -> str:
    """Returns the name of a point's run directory, which depends on this point alone."""
    return ",".join(
        f"{name}={re.sub(r'[^A-Za-z0-9.%_+-]+', '-', shown(name, value).replace(',', '+'))}"
        for name, value in point.items()
    )


def shown(name: str, value: str) -> str:
    """Returns a flag's value as tables show it; a flagfile loses its folder and its suffix."""
    return pathlib.PurePath(value).stem if name == "flagfile" else value


def _axis(text: str) -> tuple[list[str], list[list[str]]]:
    """Parses a part between semicolons: a/b=1/2,3/4 gives names [a, b], values [[1, 2], [3, 4]]."""
    left, equals, right = text.partition("=")
    names = [name.strip() for name in left.split("/")]
    if not equals or not all(re.fullmatch(r"[a-z]\w*", name) for name in names):
        raise UserError(f"--sweep has {text!r}: write flag=value,value there.")
    found = []
    for one in _split(right, ","):
        values = _split(one, "/") if len(names) > 1 else [one]
        if len(values) != len(names) or not all(values):
            wanted = "a value" if len(names) == 1 else f"{len(names)} values separated by slashes"
            raise UserError(
                f"--sweep has {one!r} for {left}: write {wanted} there. "
                "Enclose a value that contains a comma, a slash or a semicolon in {}."
            )
        found.append([v[1:-1] if v.startswith("{") and v.endswith("}") else v for v in values])
    return names, found


def _split(text: str, separator: str) -> list[str]:
    """Splits `text` at each `separator` outside braces, and strips spaces around the parts."""
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
        raise UserError(
            f"--sweep has an unmatched brace in {text.strip()!r}: write a }} for each {{."
        )
    return [part.strip() for part in parts]
