"""Rules of language that a machine can check; CONTRIBUTING.md has all of them."""

import ast
import pathlib
import re

# Words that open a fragment and not a sentence, or leave out the verb: "What a run says."
OPENINGS = {
    *("And", "As", "At", "Because", "But", "By", "For", "From", "How", "If", "In", "It", "Not"),
    *("Of", "On", "Or", "So", "That", "These", "They", "This", "Those", "To", "What", "When"),
    *("Where", "Which", "Who", "Whose", "With"),
}
# "is no number" is "is not a number"; "there is no checkpoint" is plain.
NEGATION = re.compile(
    r"(?<!there )(?<!There )\b(?:is|are|was|were|be) "
    r"(?:no (?!longer\b|more than\b|less\b)|none of\b)"
)
FOLDERS = ("trainer", "tests", "scripts")
MODULES = sorted(str(path) for folder in FOLDERS for path in pathlib.Path(folder).rglob("*.py"))
TEXTS = [
    *(str(path) for path in pathlib.Path().glob("*.md")),
    *(str(path) for folder in ("docs", "flags") for path in pathlib.Path(folder).rglob("*.*s")),
    *(str(path) for path in pathlib.Path("docs").rglob("*.md")),
    *(str(path) for path in pathlib.Path("scripts").rglob("*.s[hb]*")),
]


def docstrings(module):
    """Yields the line of each docstring, and its text."""
    tree = ast.parse(pathlib.Path(module).read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def test_docstrings_open_with_a_verb_or_a_noun():
    wrong = [
        f"{module}:{line}: {text.splitlines()[0]}"
        for module in MODULES
        for line, text in docstrings(module)
        if re.split(r"\W", text)[0] in OPENINGS
    ]
    assert not wrong


def test_negations_are_plain():
    wrong = []
    for path in [*MODULES, *TEXTS]:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        # A sentence may go on in the next line of a docstring, comment or message.
        joined = re.sub(r'\s*(?:"\n\s*f?"|\n\s*(?:#\s*)?)', " ", text)
        found = NEGATION.finditer(joined) if path != "tests/language_test.py" else ()
        wrong += [f"{path}: {joined[max(0, m.start() - 40) : m.end() + 20]}" for m in found]
    assert not wrong
