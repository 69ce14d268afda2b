"""Projects to begin with: each template is a folder of files that run as they stand, with comments on what to change for a real run.

    mft/assets/templates/NAME/project.yaml    a project, its recipes and rows beside it, README.md with the commands
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mft.data.config import load_recipe
from mft.errors import ConfigError, OutputError
from mft.files import atomic_folder, link_file
from mft.runs.config import NAME, DataStage, load_project
from mft.runs.shipped import PACKAGE

FOLDER = PACKAGE / "assets" / "templates"
PROJECT, README = "project.yaml", "README.md"
SOURCE = "tree: {path: ../my-repository}"
"""The line of a template that names a code base; a template that has none takes no source."""

STAND_IN = "rich"
"""A package that mft needs itself: the code base of a project that names none."""


@dataclass(frozen=True, slots=True)
class Template:
    """A folder to begin with. `summary` is the heading of its README."""

    name: str
    summary: str
    takes_source: bool


def templates() -> list[Template]:
    """The templates that come with mft, by name."""
    return [Template(path.parent.name, path.with_name(README).read_text(encoding="utf-8").splitlines()[0].lstrip("# "),
                     SOURCE in path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob(f"*/{PROJECT}"))]


def find_template(name: str | None) -> Template:
    """The template of this name.

    Raises:
        ConfigError: there is none, or none was named.
    """
    known = {template.name: template for template in templates()}
    if name in known:
        return known[name]
    close = get_close_matches(name or "", known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"templates: {', '.join(known)}"
    raise ConfigError([f"--template: '{name}' is no template; {hint}" if name else f"give a --template; {hint}"])


def write_template(template: Template, out: Path, source: Path | None = None, *, overwrite: bool = False) -> dict[str, Any]:
    """Write a template into the folder `out`, as a project that is called like it; whole or not at all.

    `source`: the code base of a template that takes one; without it the stand-in. With `overwrite` the template's files take the place of
    those of the same names, and whatever else `out` holds stays.
    Returns `template`, `name`, `folder`, `project`, `files`, and `source` where there is one.

    Raises:
        OutputError: `out` holds something and `overwrite` is False; it is a file, or the current folder.
        ConfigError: a source for a template that takes none; it is no folder.
    """
    folder = Path(os.path.abspath(out))
    if folder == Path.cwd():
        raise OutputError(f"{out}: is the current folder, which cannot be put in place as a whole; name a folder that is to be made")
    if folder.is_file():
        raise OutputError(f"{out}: is a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(f"{out}: exists and is not empty; give another folder, or --overwrite to write the template's files into it")
    tree = _source(template, source)
    name = project_name(folder)
    with atomic_folder(folder, replace=overwrite) as partial:
        if overwrite and folder.is_dir():
            shutil.copytree(folder, partial, symlinks=True, copy_function=link_file, dirs_exist_ok=True)
        files = _copy(template, partial, name, tree)
        _check(partial)
    return {"template": template.name, "name": name, "folder": str(out), "project": str(out / PROJECT), "files": files,
            **({"source": str(tree)} if tree else {})}


def project_name(folder: Path) -> str:
    """What a project in this folder is called, so that two of one template keep their runs apart.

    >>> project_name(Path("/tmp/My project"))
    'My-project'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")
    return plain if re.match(NAME, plain) else "project"


def stand_in() -> Path:
    """The folder of the package that stands in for a code base."""
    spec = find_spec(STAND_IN)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _source(template: Template, source: Path | None) -> Path | None:
    if not template.takes_source:
        if source is not None:
            takes = ", ".join(other.name for other in templates() if other.takes_source)
            raise ConfigError([f"--source: template '{template.name}' reads no code base; templates that do: {takes}"])
        return None
    if source is not None and not source.is_dir():
        fault = "is a file; give the folder that holds the code" if source.exists() else "no such folder"
        raise ConfigError([f"--source: {source}: {fault}"])
    return source.resolve() if source is not None else stand_in()


def _copy(template: Template, out: Path, name: str, tree: Path | None) -> list[str]:
    """Copy the files, with the project's name and the code base in their places; returns their relative paths."""
    files = sorted(path.relative_to(FOLDER / template.name) for path in (FOLDER / template.name).rglob("*") if path.is_file())
    for file in files:
        text = (FOLDER / template.name / file).read_text(encoding="utf-8")
        if file.name == PROJECT:
            text = _replaced(text, f"\nname: {template.name}\n", f"\nname: {json.dumps(name)}\n")
            if tree is not None:
                text = _replaced(text, SOURCE, "tree: {path: " + json.dumps(tree.as_posix(), ensure_ascii=False) + "}")
        target = out / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)   # never written through: it may be a second name of a file that stays if this fails
        target.write_text(text.replace("runs/NAME", f"runs/{name}") if file.name == README else text, encoding="utf-8")
    return [file.as_posix() for file in files]


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in a template"
    return text.replace(old, new)


def _check(folder: Path) -> None:
    """What was written is a project whose recipes find their files."""
    project = load_project(folder / PROJECT)
    for stage in project.stages:
        if isinstance(stage, DataStage):
            load_recipe(folder / stage.recipe, parameters=stage.values(folder, folder), must_exist=True)
