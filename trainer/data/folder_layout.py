"""Decides whether the folders in an image folder are splits or classes.

The rule, for image_folder:PATH:

1. If PATH has an entry named train, val, validation or test, the folders in PATH are splits.
2. Otherwise, the folders are classes if at least one of them directly holds a picture. A hash of
   the paths then divides the pictures into the splits train and val.
3. If rule 1 does not hold, three cases are ambiguous. They raise an error that names the folders:
   - The name of a folder is nearly the name of a split, such as Train.
   - A folder in PATH holds no picture directly, but holds a folder with the same name as a folder
     in PATH: for example, PATH holds Fold1/cat and cat.
   - No folder in PATH directly holds a picture.

A split with a name other than train and val always means the folder of that name, as in
--train_split=more.
"""

import collections
import os
from collections.abc import Sequence
from typing import NoReturn

from trainer.data import class_folder
from trainer.data.class_folder import is_hidden
from trainer.data.class_names import few, printable
from trainer.data.image_files import EVALUATION, EVALUATION_SPLITS, TRAIN
from trainer.errors import UserError

PREFIX = "image_folder:"
_SPLITS = (TRAIN, *EVALUATION_SPLITS)
# A folder with one of these names, in capital or small letters, may be meant as a split.
_NEARLY = {*_SPLITS, "training", "valid", "testing", "dev", "eval", "evaluation"}


def holds_classes(root: str, parts: Sequence[str]) -> bool:
    """Returns whether the folders in `root` are classes, not splits.

    Args:
      root: path of the image folder.
      parts: names of the splits that the user asks for: train and more for train[:90%]+more.

    Raises:
      UserError: if the folders in `root` could be either splits or classes.
    """
    if not {*parts} <= {TRAIN, EVALUATION} or not os.path.isdir(root):
        return False
    if any(os.path.lexists(os.path.join(root, name)) for name in _SPLITS):
        return False
    if all(map(is_hidden, folders(root))):
        return False
    names, _ = class_folders(root)
    paths = {name: os.path.join(root, name) for name in names}
    for name in names:
        if name.lower() in _NEARLY:
            _refuse(root, f"{printable(name)} may be a split or a class")
    deeper = [name for name in names if not class_folder.holds_picture(paths[name])]
    if len(deeper) == len(names):
        few_names = few(names)
        _refuse(root, f"no folder in it directly holds a picture, so {few_names} may be splits")
    for name in deeper:
        if repeated := sorted({*names} & {*folders(paths[name])}):
            both = f"{name}/{repeated[0]} and {repeated[0]}"
            _refuse(root, f"it has {printable(both)}, so {printable(name)} may be a split")
    return True


def _refuse(root: str, reason: str) -> NoReturn:
    raise UserError(
        f"{root} has no folder named train, val, validation or test, and {reason}.\n"
        "If they are splits, name them with --train_split and --eval_split. If they are classes, "
        f"move them into {root}/train, with --train_split=train[:90%] --eval_split=train[90%:]."
    )


def evaluation_split(root: str) -> str:
    """Returns the first of the splits val, validation and test that exists.

    If the folders in `root` are classes, the result is val.

    Raises:
      UserError: if none of the three exists, or the folders could be either splits or classes.
    """
    if holds_classes(root, [EVALUATION]):
        return EVALUATION
    existing = folders(root)
    for name in EVALUATION_SPLITS:
        if name in existing:
            return name
    raise UserError(
        f"{root} has no folder named val, validation or test; it holds "
        f"{few(existing) or 'no folders'}.\nSet --eval_split, for example "
        "--train_split=train[:90%] --eval_split=train[90%:]."
    )


def class_folders(path: str) -> tuple[list[str], collections.Counter[str]]:
    """Returns the sorted class names in a folder, and the number of other entries of each kind.

    Raises:
      UserError: if the folder cannot be read or has no class folders, or a link in it is broken.
    """
    names, left_out = folders(path), collections.Counter[str]()
    around = class_folder.enclosing(path)
    classes = []
    for name in names:
        if is_hidden(name):
            left_out[class_folder.HIDDEN] += 1
        elif class_folder.identity(os.path.join(path, name)) in around:
            left_out[class_folder.REPEATED] += 1
        else:
            classes.append(name)
    if not classes:
        raise UserError(
            f"{path} has no class folders: put the images of each class in a folder of their own, "
            "as in train/cat/1.jpg."
        )
    with os.scandir(path) as entries:
        for entry in entries:
            if class_folder.is_broken_link(entry) and not is_hidden(entry.name):
                # Without this error, a disk that is not mounted would silently remove a class.
                raise UserError(
                    f"{printable(entry.path)} is a link that leads nowhere: restore its target, "
                    "or remove the link."
                )
            if entry.name not in names:
                hidden = is_hidden(entry.name)
                left_out[class_folder.HIDDEN if hidden else "outside of class folders"] += 1
    return classes, left_out


def folders(path: str) -> list[str]:
    """Returns the sorted names of the folders, and of the links to folders, in the folder `path`.

    Raises:
      UserError: if the folder cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if class_folder.leads_to_folder(entry))
    except OSError as error:
        parent = os.path.dirname(path)
        existing = few(folders(parent)) if os.path.isdir(parent) else ""
        remedy = f"Correct --dataset={PREFIX}PATH."
        if existing:
            remedy = f"Name a folder that exists in {parent}: {existing}."
        raise UserError(f"{path} cannot be read: {error.strerror}.\n{remedy}") from error
