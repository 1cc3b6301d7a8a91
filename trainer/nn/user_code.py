"""Reports errors of the user's own code: a model's function, its layers, and their imports.

Such an error ends the program as a UserError. The message gives the original error, and the file
and line of the user's code; a traceback of the user's frames stands above it. An error is the
user's if the last frame outside installed packages is not in this program.
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
# Colour codes, and text that Keras adds to the error of a layer.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_AROUND = re.compile(
    r"Exception encountered when calling .*?\.call\(\)\.|Arguments received by .*", re.DOTALL
)
_LONGEST = 400  # Longest message, in characters.


@contextlib.contextmanager
def unwrap_user_errors(code: str = "the model's own code") -> Iterator[None]:
    """Converts an error of the user's code, called `code` in the message, to a UserError.

    AutoGraph replaces an error by another one, whose message has the source of every call that led
    to the error. This function finds the original error. It raises a UserError unchanged.
    """
    try:
        with output.kept():
            yield
    except (Exception, SystemExit) as error:  # A sys.exit in user code must not look like success.
        chain = _chain(error)
        for link in chain:
            if isinstance(link, UserError):
                raise link from None
        for link in reversed(chain):  # The message names the last error of the user's code.
            if frames := _user_frames(link):
                raise _as_user_error(code, link, frames) from None
        raise


@contextlib.contextmanager
def explain_refusal(name: str, problem: str) -> Iterator[None]:
    """Converts an error in the block to a UserError: the model `name` has this `problem`.

    For a model of this program, only a ValueError is converted: Keras raises it, for example, if
    the image is too small. Any other error is a bug and keeps its traceback.
    """
    try:
        with unwrap_user_errors(f"--model={name}"):
            yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, ValueError) and ":" not in name:
            raise
        raise UserError(f"--model={name} {problem}: {one_line(error)}") from error


def _user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Returns the frames in the user's files, or [] if the error is not from the user's code."""
    traced = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in traced if _is_ours(frame) or not _is_installed(frame)]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        frames.append(traceback.FrameSummary(error.filename, error.lineno, "<module>"))
    if not frames or _is_ours(frames[-1]):
        return []
    return [frame for frame in frames if not _is_ours(frame)]


def one_line(error: BaseException) -> str:
    """Returns the type of an error and its message, without the text that Keras adds."""
    # The str of a KeyError is the repr of its message, which has \\n in place of a new line.
    wrapped = isinstance(error, KeyError) and "Exception encountered" in str(error)
    message = str(error.args[0]) if wrapped else str(error)
    text = " ".join(_AROUND.sub("", _COLOURS.sub("", message)).split())
    kind = type(error).__name__
    return textwrap.shorten(f"{kind}: {text}" if text else kind, _LONGEST, placeholder=" ...")


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """Returns True if the frame is in this program, or in code that AutoGraph generated from it.

    Keras calls the user's functions, and AutoGraph does not convert functions that Keras calls. So
    generated code is never the user's.
    """
    generated = "__autograph_generated_file" in frame.filename
    return generated or pathlib.Path(frame.filename).is_relative_to(_OURS)


def _is_installed(frame: traceback.FrameSummary) -> bool:
    """Returns True if the frame is in Python's library or an installed package, or has no file."""
    path = pathlib.Path(frame.filename)
    return not path.is_file() or any(map(path.is_relative_to, _INSTALLED))


def _chain(error: BaseException) -> list[BaseException]:
    """Returns the error and its causes or contexts, in the order in which they were raised."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and not any(link is other for other in chain):
        chain.append(link)
        link = link.__cause__ or link.__context__
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
