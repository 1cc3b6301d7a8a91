"""The house stands as DESIGN §3 draws it: imports point down, and BUILD says the same."""

import ast
import configparser
import pathlib
import sys

import pytest

# From the bottom up; a module may import from levels below its own, and from its own folder.
LEVELS = [
    {"trainer.errors"},
    {"trainer.system"},
    {"trainer.buckets"},
    {"trainer.config"},
    {"trainer.schedule"},
    {"trainer.nn"},
    {"trainer.nn.models"},
    {"trainer.distributed"},
    {"trainer.run_dir"},
    {"trainer.data"},
    {"trainer.training"},
    {"trainer.sweep"},
    {"trainer.reports"},
    {"trainer.commands"},
    {"trainer.api"},
    {"trainer.main"},
    {"trainer.__main__"},
]


def modules(folder):
    return {
        ".".join(path.with_suffix("").parts): path
        for path in sorted(pathlib.Path(folder).glob("**/*.py"))
        if path.name != "__init__.py"
    }


FILES = modules("trainer")
TESTS = modules("tests")


def room(module):
    """The entry of LEVELS that `module` belongs to."""
    rooms = {name for level in LEVELS for name in level}
    return max((name for name in rooms if f"{module}.".startswith(f"{name}.")), key=len)


def level(module):
    return next(i for i, names in enumerate(LEVELS) if room(module) in names)


def inner_imports(module):
    """All names that `module` imports, with the module they come from: absl.flags, os."""
    found = set()
    for node in ast.walk(ast.parse({**FILES, **TESTS}[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports(module):
    """All modules that `module` imports, wherever in it the import stands."""
    names = inner_imports(module)
    return {name if name in FILES else name.rpartition(".")[0] or name for name in names}


def own(module):
    return {name for name in imports(module) if name.startswith("trainer.")}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    for imported in own(module):
        assert imported in FILES, f"{module} imports the folder {imported}, not a module"
        same_folder = room(module) == room(imported) and module != imported
        assert same_folder or level(imported) < level(module), f"{module} imports {imported}"


def test_no_imports_in_a_circle():
    done = set()

    def visit(module, path):
        assert module not in path, " → ".join([*path, module])
        if module not in done:
            for imported in own(module):
                visit(imported, [*path, module])
            done.add(module)

    for module in FILES:
        visit(module, [])


def test_config_imports_nothing_that_takes_long():
    outside = {
        name.partition(".")[0]
        for module in FILES
        if module.startswith("trainer.config.")
        for name in imports(module)
    }
    assert outside - {*sys.stdlib_module_names, "trainer"} == {"absl"}


def test_one_module_touches_absl_flags():
    touching = {module for module in FILES if "absl.flags" in inner_imports(module)}
    assert touching == {"trainer.config.command_line"}


def test_one_module_asks_which_cores_are_ours():
    """The machine's number is another one where a scheduler gives a task a part of a node."""
    asking = ("cpu_count", "sched_getaffinity")
    found = {
        m for m, path in FILES.items() if any(word in path.read_text("utf-8") for word in asking)
    }
    assert found == {"trainer.system.cores"}


def test_nothing_is_unpickled():
    """Run directories and datasets from elsewhere are data, and run no code."""
    for module in FILES:
        names = {name.partition(".")[0] for name in inner_imports(module)}
        assert not names & {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}, module
        text = FILES[module].read_text(encoding="utf-8")
        assert "allow_pickle" not in text, module
        assert "unsafe" not in text, module


def test_one_module_parses_json():
    """Parsed files are checked in one place; messages between workers, where they arrive."""
    found = {m for m, path in FILES.items() if "json.load" in path.read_text("utf-8")}
    messages = {"trainer.distributed.rendezvous", "trainer.distributed.rendezvous_server"}
    assert found - messages == {"trainer.system.typed_json"}


def test_the_schedule_is_pure_python():
    for module in FILES:
        if module.startswith("trainer.schedule"):
            first = {name.partition(".")[0] for name in imports(module)}
            assert not first & {"tensorflow", "keras", "numpy"}, module


def test_no_room_without_a_name_of_its_own():
    assert not {"utils", "util", "common", "helpers", "base", "misc"} & {
        p.stem for p in FILES.values()
    }


def targets():
    """BUILD's targets, as Bazel's own language reads it: name → what it was called with."""
    found = {}

    def glob(patterns):
        return sorted({str(path) for pattern in patterns for path in pathlib.Path().glob(pattern)})

    def rule(name, **attributes):
        assert name not in found
        found[name] = attributes

    rules = dict.fromkeys(["py_library", "py_binary", "py_test"], rule)
    words = {**rules, "glob": glob, "load": lambda *_: None, "package": lambda **_: None}
    exec(pathlib.Path("BUILD").read_text(encoding="utf-8"), words)
    return found


def sources(target):
    """The modules that one of `targets()` holds."""
    names = {".".join(pathlib.Path(p).with_suffix("").parts) for p in target["srcs"]}
    return names & {*FILES, *TESTS}


# Those with modules of their own: a test's are those of tests.
HOLDERS = {name: target for name, target in targets().items() if "args" not in target}


def test_build_holds_every_module_once():
    listed = sorted(module for target in HOLDERS.values() for module in sources(target))
    assert listed == sorted([*FILES, *TESTS])


@pytest.mark.parametrize("name", HOLDERS)
def test_build_deps_are_the_imports(name):
    owner = {module: holder for holder, t in HOLDERS.items() for module in sources(t)}
    mine = sources(HOLDERS[name])
    needed = {owner[imported] for module in mine for imported in own(module)} - {name}
    if "trainer.main" in mine:  # It imports the module that a command line names.
        needed.add("commands")
    assert {dep.removeprefix(":") for dep in HOLDERS[name].get("deps", [])} == needed


def test_build_has_every_test_once():
    listed = {name: target["args"][0] for name, target in targets().items() if "args" in target}
    files = [path for path in TESTS.values() if path.match("*_test.py")]
    assert listed == {str(path.with_suffix("")): str(path) for path in files}


def test_a_wheel_has_every_package_and_the_recipes():
    config = configparser.ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    folders = {".".join(path.parent.parts) for path in FILES.values()}
    assert sorted(listed) == sorted({*folders, "trainer.recipes"})
    assert config["options"]["package_dir"].split() == ["trainer.recipes", "=", "flags"]
