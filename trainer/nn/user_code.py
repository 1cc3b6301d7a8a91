"""Errors of the user's own code: a model's function, its layers, and what they import.

Such an error ends the program as a user error, with the file and line of the user's code and its
message; the traceback of the user's frames is shown above. Whose an error is, its traceback says:
the last frame outside of installed packages is the user's, or this program's.
"""

import contextlib
import pathlib
import re
import sysconfig
import textwrap
import traceback
from collections.abc import Iterator

from trainer.errors import UserError
from trainer.system import output

_OURS = pathlib.Path(__file__).parents[1]  # trainer/
_INSTALLED = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
# What Keras writes around a layer's error, and colours.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_AROUND = re.compile(
    r"Exception encountered when calling .*?\.call\(\)\.|Arguments received by .*", re.DOTALL
)
_LONGEST = 400  # characters of a message


@contextlib.contextmanager
def unwrap_user_errors(code: str = "the model's own code") -> Iterator[None]:
    """Raises an error of the user's code within as a UserError; a UserError passes.

    AutoGraph raises another error in the place of each, with the source of every call on the way to
    it: the user's is found again.

    Args:
      code: what the message says has raised the error.
    """
    try:
        with output.kept():
            yield
    except (Exception, SystemExit) as error:  # A script's sys.exit would end the run as its own.
        chain = _chain(error)
        for each in chain:
            if isinstance(each, UserError):
                raise each from None
        for each in reversed(chain):  # What the user raised in the place of another error counts.
            if frames := user_frames(each):
                raise _as_user_error(code, each, frames) from None
        raise


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Returns the frames of the user's files, or [] if the error is not of the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    found = [frame for frame in frames if _is_ours(frame) or not _is_installed(frame)]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        found.append(traceback.FrameSummary(error.filename, error.lineno, "<module>"))
    if not found or _is_ours(found[-1]):
        return []
    return [frame for frame in found if not _is_ours(frame)]


def one_line(error: BaseException) -> str:
    """Returns the kind of an error and its message, without what Keras writes around it."""
    # Of a KeyError, str is what Python would print for its message: with \\n for a line's end.
    wrapped = isinstance(error, KeyError) and "Exception encountered" in str(error)
    message = str(error.args[0]) if wrapped else str(error)
    text = " ".join(_AROUND.sub("", _COLOURS.sub("", message)).split())
    kind = type(error).__name__
    return textwrap.shorten(f"{kind}: {text}" if text else kind, _LONGEST, placeholder=" ...")


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """Whether it is this program's; AutoGraph rewrites its functions, and none that Keras calls."""
    if "__autograph_generated_file" in frame.filename:
        return True
    return pathlib.Path(frame.filename).is_relative_to(_OURS)


def _is_installed(frame: traceback.FrameSummary) -> bool:
    """Whether it is of a package, of the standard library, or of code without a file."""
    path = pathlib.Path(frame.filename)
    return not path.is_file() or any(map(path.is_relative_to, _INSTALLED))


def _chain(error: BaseException) -> list[BaseException]:
    """Returns the error and those that it was raised from or in place of, the first one first."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and not any(each is other for other in chain):
        chain.append(each)
        each = each.__cause__ or each.__context__
    return chain[::-1]


def _as_user_error(
    code: str, error: BaseException, frames: list[traceback.FrameSummary]
) -> UserError:
    last = frames[-1]
    explanation = UserError(
        f"{code} raised {one_line(error)}\n"
        f"Correct {last.filename}, line {last.lineno}, in {last.name}."
    )
    lines = traceback.format_list(frames)
    explanation.above = "".join(["Traceback of the model's own code:\n", *lines])
    return explanation
