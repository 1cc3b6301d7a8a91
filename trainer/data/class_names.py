"""Finds labels by class name, and formats names and counts for messages."""

from collections.abc import Mapping, Sequence

from trainer.errors import UserError

_SHOWN = 10


def places(names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Returns the index of each of `names` in `class_names`; −1 if the name is absent."""
    place_of = {name: place for place, name in enumerate(class_names)}
    return [place_of.get(name, -1) for name in names]


def printable(text: str) -> str:
    r"""Escapes control characters, as in \n, because a file's name may hold any bytes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def few(names: Sequence[str]) -> str:
    """Returns up to ten names as text; longer lists end with a count, such as "and 3 others"."""
    shown = ", ".join(map(printable, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else "")


def logit_names(class_names: Sequence[str], logits: int) -> list[str]:
    """Returns a printable name for each logit: its class, or unused_<number> if it has no class."""
    names = [printable(name) for name in class_names]
    return names + [f"unused_{number}" for number in range(len(names), logits)]


def counted(kinds: Mapping[str, int]) -> str:
    """Returns the number of files of each kind as text, largest first, such as .txt 8, hidden 4."""
    most_first = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    parts = [f"{printable(kind)} {kinds[kind]:,}" for kind in most_first[:_SHOWN]]
    others = sum(kinds[kind] for kind in most_first[_SHOWN:])
    return ", ".join(parts + ([f"others {others:,}"] if others else []))


def split_summary(
    split: str,
    examples: int,
    class_names: Sequence[str],
    counts: Sequence[int] = (),
    left_out: Mapping[str, int] | None = None,
) -> str:
    """Describes a split in one line.

    An example is "train: 240 images, 4 classes (cat 61 … owl 58); 9 files left out (.txt 9)". The
    line names the largest and the smallest class, or all classes if there are at most three.
    `counts` has the number of images of each class, and is empty if these numbers are unknown.
    `left_out` has the number of files left out, by kind.
    """
    line = f"{split}: {number(examples, 'image')}, {number(len(class_names), 'class', 'es')}"
    classes = list(zip(class_names, counts, strict=False))
    if classes:
        separator = ", "
        if len(classes) > 3:
            largest = max(classes, key=lambda pair: pair[1])
            smallest = min(reversed(classes), key=lambda pair: pair[1])
            classes, separator = [largest, smallest], " … "
        line += f" ({separator.join(f'{printable(name)} {n:,}' for name, n in classes)})"
        if unknown := examples - sum(counts):
            line += f", and {number(unknown, 'image')} of classes that the run does not know"
    if left_out:
        line += f"; {number(sum(left_out.values()), 'file')} left out ({counted(left_out)})"
    return line


def refuse_unknown(
    own_names: Sequence[str], class_names: Sequence[str], name: str, skip: bool
) -> None:
    """Refuses classes that are not among the run's classes, unless `skip` is True.

    Raises:
        UserError: if one of `own_names` is not in `class_names`, and `skip` is False.
    """
    known = set(class_names)
    unknown = [own for own in dict.fromkeys(own_names) if own not in known]
    if unknown and not skip:
        raise UserError(
            f"{name} has classes that the run does not know: {few(unknown)}. It knows "
            f"{few(class_names)}.\n"
            "Remove or rename them, or give --skip_bad_examples to leave their examples out."
        )


def refuse_twice(names: Sequence[str], owner: str, remedy: str) -> None:
    """Refuses a list of class names in which a name occurs twice.

    Args:
        names: the class names.
        owner: text that names the list, for the message.
        remedy: what the reader can do.

    Raises:
        UserError: if a name occurs twice.
    """
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"{owner} has {twice[0]!r} twice: {remedy}.")


def number(count: int, what: str, plural: str = "s") -> str:
    """Returns a count and its noun as text, such as 1 image or 2 images."""
    return f"{count:,} {what}{'' if count == 1 else plural}"
