"""The house's rules, checked on the source: imports point down, light areas stay light, files and functions stay small."""

import ast
import doctest
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mft"

FLOORS = {
    0: "errors hashes log extras files reading process journal config",
    1: "conversation",
    2: "formats sandbox problems",
    3: "data",
    4: "tokenization",
    5: "modeling",
    6: "generation scoring",
    7: "training merging quantization",
    8: "evaluation synthesis serving release",
    9: "report runs doctor",
    10: "cli",
    11: "__main__",
}
FLOOR_OF = {area: floor for floor, areas in FLOORS.items() for area in areas.split()}
GROUND = {"errors": 0, "hashes": 0, "log": 1, "extras": 1, "files": 1, "reading": 1, "process": 1, "journal": 2, "config": 2}
"""Within floor 0: errors and hashes below log, extras, files, reading and process, these below journal and config."""

LIGHT_FLOORS = 3
"""Floors up to this one, and every `config.py`, import neither torch nor transformers."""

OPTIONAL = ["ray"]
"""Packages of extras that one file imports at its top, after its callers have asked for them by `require`."""

MOST_FILE_LINES, MOST_FUNCTION_LINES = 400, 60
NAMES_THAT_SAY_NOTHING = {"utils.py", "util.py", "common.py", "misc.py", "helpers.py"}


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "assets" not in path.relative_to(PACKAGE).parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def area_of(module: str) -> str:
    """`mft.training.losses` -> `training`; the package itself -> ``."""
    return module.split(".")[1] if "." in module else ""


def imported_modules(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, module of mft) of every import anywhere in a file: in functions and under TYPE_CHECKING too."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(package.split(".")[:len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [parent, node.module]))
            found = [f"{base}.{alias.name}" for alias in node.names] if base == "mft" else [base]
        else:
            continue
        yield from ((node.lineno, name) for name in found if name == "mft" or name.startswith("mft."))


def import_faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a file that do not point down."""
    faults = []
    area = area_of(module)
    for line, target in imported_modules(ast.parse(source), module, is_package):
        other = area_of(target)
        if other == area or not other or other == "__version__":
            continue
        if other not in FLOOR_OF:
            faults.append(f"{module}:{line} imports {target}, which is on no floor")
        elif FLOOR_OF[other] > FLOOR_OF[area]:
            faults.append(f"{module}:{line} imports {target}, from a floor above")
        elif FLOOR_OF[other] == FLOOR_OF[area] and GROUND.get(other, 0) >= GROUND.get(area, 0):
            faults.append(f"{module}:{line} imports {target}, from its own floor")
    return faults


@pytest.mark.parametrize(("module", "source", "fault"), [
    ("mft.data.recipe", "from mft.formats import get", None),
    ("mft.config.load", "from mft.errors import ConfigError", None),
    ("mft.config.load", "from mft.files import read_json", None),
    ("mft.training.trainer", "from .losses import task_loss", None),
    ("mft.data.recipe", "from mft import __version__", None),
    ("mft.data.recipe", "from mft.training.config import TrainingConfig", "from a floor above"),
    ("mft.data.recipe", "def f():\n    import mft.cli.main", "from a floor above"),
    ("mft.formats.base", "if TYPE_CHECKING:\n    from mft.data.split import is_validation", "from a floor above"),
    ("mft.training.trainer", "from mft.merging.reader import read", "from its own floor"),
    ("mft.training.trainer", "from ..merging import reader", "from its own floor"),
    ("mft.training.trainer", "from mft import merging", "from its own floor"),
    ("mft.files", "from mft.log import shows_progress", "from its own floor"),
    ("mft.errors", "from mft.files import read_json", "from its own floor"),
    ("mft.extras", "from mft.config.model import StrictModel", "from its own floor"),
    ("mft.data.recipe", "from mft.toolbox import hammer", "which is on no floor"),
])
def test_the_import_check_tells_down_from_sideways_and_up(module: str, source: str, fault: str | None):
    faults = import_faults(source, module)
    assert [message.rpartition(", ")[2] for message in faults] == ([fault] if fault else [])


def test_imports_point_down_and_never_sideways():
    faults = [fault for path in sources() if path != PACKAGE / "__init__.py"
              for fault in import_faults(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")]
    assert faults == []


def test_every_area_stands_on_a_floor():
    areas = {area_of(module_name(path)) for path in sources()} - {""}
    assert areas - FLOOR_OF.keys() == set()


def test_light_areas_and_every_config_import_without_torch():
    light = [module_name(path) for path in sources()
             if FLOOR_OF.get(area_of(module_name(path)), 0) <= LIGHT_FLOORS or path.name in ("config.py", "__init__.py")]
    program = """
import importlib, json, sys
heavy = []
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in json.loads(sys.argv[2]):
            raise
    loaded = sorted({"torch", "transformers"} & sys.modules.keys())
    if loaded:
        heavy.append(f"{name} brings {' and '.join(loaded)}")
        break
print(json.dumps(heavy))
"""
    command = [sys.executable, "-c", program, json.dumps(light), json.dumps(OPTIONAL)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert "mft.data.split" in light
    assert "mft.config.load" in light


def init_faults(source: str, module: str) -> list[str]:
    """What a package does at import besides naming things: only `typing`, `importlib` and its own modules may be imported."""
    faults = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            own = (isinstance(node, ast.ImportFrom) and node.level > 0) or all(name.startswith(f"{module}.") for name in names)
            if not own and not all(name.split(".")[0] in ("typing", "importlib", "collections") for name in names):
                faults.append(f"{module}:{node.lineno} imports {', '.join(names)}")
        elif isinstance(node, ast.For | ast.While | ast.With | ast.Try | ast.ClassDef):
            faults.append(f"{module}:{node.lineno} does work at import")
    return faults


def test_a_package_is_empty_or_lazy():
    faults = [fault for path in sources() if path.name == "__init__.py"
              for fault in init_faults(path.read_text(encoding="utf-8"), module_name(path))]
    assert faults == []
    assert init_faults("import torch", "mft.training") == ["mft.training:1 imports torch"]
    assert init_faults("from mft.data.build import build", "mft.training") == ["mft.training:1 imports mft.data.build"]


def test_files_and_functions_stay_short():
    faults = []
    for path in [*sources(), *sorted((ROOT / "scripts").rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(ROOT)
        if len(text.splitlines()) > MOST_FILE_LINES:
            faults.append(f"{where} has {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    faults.append(f"{where}:{node.lineno} {node.name} has {lines} lines")
    assert faults == []


def test_no_file_has_a_name_that_says_nothing():
    assert [str(path) for path in sources() if path.name in NAMES_THAT_SAY_NOTHING] == []


def test_nothing_below_the_command_line_prints():
    faults = [f"{module_name(path)}:{node.lineno}" for path in sources() if area_of(module_name(path)) not in ("cli", "__main__")
              for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert faults == []


def test_nothing_is_a_stub():
    faults = [f"{module_name(path)}:{node.lineno}" for path in sources()
              for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
              if isinstance(node, ast.Name) and node.id == "NotImplementedError"]
    assert faults == []


def test_examples_in_docstrings_are_true():
    modules = [module_name(path) for path in sources() if ">>> " in path.read_text(encoding="utf-8")]
    assert "mft.tokenization.packing" in modules
    results = {name: doctest.testmod(importlib.import_module(name)) for name in modules}
    assert {name: result.failed for name, result in results.items() if result.failed} == {}
