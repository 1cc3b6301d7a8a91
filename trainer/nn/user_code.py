"""Reports errors of the user's own code: a model's function, its layers, and their imports.

Such an error ends the program as a UserError. The message gives the original error, and the file
and line of the user's code; a traceback of the user's frames stands above the message. To find
whose code raised an error, this module leaves out the frames in installed packages. If the last
frame that remains is not in this program, the error is from the user's code.
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
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Codes that set a terminal's colour.
# Text that Keras adds before and after the message of a layer's error.
_AROUND = re.compile(
    r"Exception encountered when calling .*?\.call\(\)\.|Arguments received by .*", re.DOTALL
)
_LONGEST = 400  # Longest message, in characters.


@contextlib.contextmanager
def unwrap_user_errors(code: str = "the model's own code") -> Iterator[None]:
    """Converts an error of the user's code in the `with` block to a UserError.

    `code` is the name of the user's code in the message. AutoGraph wraps an error into another
    error with a long message, so this function finds the original error. A UserError passes
    unchanged.
    """
    try:
        with output.kept():
            yield
    except (Exception, SystemExit) as error:  # A sys.exit in user code must not look like success.
        chain = _chain(error)
        for link in chain:
            if isinstance(link, UserError):
                raise link from None
        for link in reversed(chain):  # If the user's code raised several errors, take the last one.
            if frames := _user_frames(link):
                raise _as_user_error(code, link, frames) from None
        raise


@contextlib.contextmanager
def explain_refusal(name: str, problem: str) -> Iterator[None]:
    """Converts an error in the `with` block to a UserError: "--model=`name` `problem`: error".

    If the model is not the user's, only a ValueError is converted. Keras raises a ValueError, for
    example, if the image is too small. Any other error is a bug of this program and keeps its
    traceback.
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
    """Returns an error's type and message in one line, without the text that Keras adds."""
    # The str of a KeyError is the repr of its message, where a line break is written as \n.
    wrapped = isinstance(error, KeyError) and "Exception encountered" in str(error)
    message = str(error.args[0]) if wrapped else str(error)
    text = " ".join(_AROUND.sub("", _COLOURS.sub("", message)).split())
    kind = type(error).__name__
    return textwrap.shorten(f"{kind}: {text}" if text else kind, _LONGEST, placeholder=" ...")


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """Returns True if the frame is in this program's code, or in code that AutoGraph generated.

    AutoGraph generates code from this program's functions only. Keras calls the user's functions,
    and AutoGraph does not convert functions that Keras calls.
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
