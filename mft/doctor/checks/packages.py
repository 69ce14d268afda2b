"""Python and the packages: versions against the ranges that mft declares and the set that it was tested with; whether they import."""

import platform
import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mft.doctor.checks.wanted import wanted_extras
from mft.doctor.child import listen
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, ok, skipped, together, warning

CONSTRAINTS = Path(__file__).resolve().parents[2] / "assets" / "constraints.txt"
"""One tested set, for `pip install mft -c constraints.txt`."""

MODULES = {"pyyaml": "yaml"}
"""Name of a package -> the module that it is imported by, where that is another than its name with underscores."""

IMPORTS_S = 150.0
SHOWN = 4


def check_python(context: Context) -> Finding:
    """The interpreter against mft's `Requires-Python`, and the minor versions that the package's classifiers name."""
    found = platform.python_version()
    try:
        facts = metadata.metadata("mft")
    except metadata.PackageNotFoundError:
        return warning(f"Python {found}; mft runs from a folder and is not installed, so its ranges are not known", "pip install -e .")
    from packaging.specifiers import SpecifierSet

    wanted = SpecifierSet(", ".join(facts.get_all("Requires-Python") or []))
    tested = [name.rpartition(" ")[2] for name in facts.get_all("Classifier") or [] if re.search(r"Python :: 3\.\d+$", name)]
    if not wanted.contains(found, prereleases=True):
        return fault(f"Python {found} is outside of {wanted}", f"use Python {' or '.join(tested)}", version=found)
    if tested and found.rpartition(".")[0] not in tested:
        return warning(f"Python {found} is none of the tested ones ({', '.join(tested)})", f"use Python {tested[-1]} if something breaks",
                       version=found)
    return ok(f"Python {found}", version=found)


def check_packages(context: Context) -> Finding:
    """Every declared requirement: outside of its range is a fault, another than the tested version is noted."""
    declared = requirements(context)
    if not declared:
        return skipped("mft is not installed as a package, so that no ranges are known; pip install -e .")
    tested = constraints()
    versions = {requirement.name: installed(requirement.name) for requirement in declared}
    faults = [problem for requirement in declared if (problem := _range_fault(requirement, versions[requirement.name]))]
    others = {name: version for name, version in versions.items()
              if version and key(name) in tested and _public(version) != tested[key(name)]}
    noted = ", ".join(f"{name} {version} (tested: {tested[key(name)]})" for name, version in list(others.items())[:SHOWN])
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    said = f"{len(declared)} packages within their ranges; " + (f"other than the tested set: {noted}{more}" if others else "the tested set")
    return together([*faults, *_conflicts(declared)], said, versions=versions, other_than_tested=others)


def check_imports(context: Context) -> Finding:
    """Whether each package can be imported; those that are not installed at all are the check before this one's."""
    modules = [module for requirement in requirements(context) if find_spec(module := module_of(requirement.name)) is not None]
    answer = listen("imports", {"modules": modules}, timeout_s=IMPORTS_S)
    ended = {value["imported"]: value for value in answer.values if "imported" in value}
    broken = {name: value["error"] for name, value in ended.items() if value["error"]}
    findings = [fault(f"{name} is installed, but cannot be imported: {error}", _reinstall(name)) for name, error in broken.items()]
    if answer.error is not None:
        last = next((value["importing"] for value in reversed(answer.values) if "importing" in value), "the first package")
        findings.append(fault(f"importing {last} {answer.error}", _reinstall(last)))
    return together(findings, f"{len(ended)} packages can be imported",
                    seconds={name: value["seconds"] for name, value in ended.items()}, broken=broken)


def requirements(context: Context) -> list[Any]:
    """What mft declares that applies here (packaging's Requirement): without extras, and with those that the config asks for."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("mft") or []
    except metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(text) for text in declared]
    extras = ["", *wanted_extras(context)]
    return [one for one in parsed if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)]


def constraints() -> dict[str, str]:
    """Package -> version of the tested set."""
    lines = (line.partition("#")[0].strip() for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines())
    return {key(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def key(name: str) -> str:
    """A package's name as comparisons take it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def module_of(package: str) -> str:
    """The module that a package is imported by."""
    return MODULES.get(key(package), key(package).replace("-", "_"))


def installed(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _range_fault(requirement: Any, version: str | None) -> Finding | None:
    wanted = f"'{requirement.name}{requirement.specifier}'"
    if version is None:
        return fault(f"{requirement.name} is not installed", f"pip install {wanted} -c {CONSTRAINTS}")
    if not requirement.specifier.contains(version, prereleases=True):
        return fault(f"{requirement.name} {version} is outside of {requirement.specifier}", f"pip install {wanted} -c {CONSTRAINTS}")
    return None


def _conflicts(declared: list[Any]) -> list[Finding]:
    """Where a package of the list wants another version of an installed one; `kernels` also, of which transformers says so in an extra."""
    from packaging.requirements import Requirement

    findings = []
    for holder in (requirement.name for requirement in declared if installed(requirement.name)):
        for wanted in map(Requirement, metadata.requires(holder) or []):
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": "kernels" if wanted.name == "kernels" else ""})
            version = installed(wanted.name) if applies else None
            if version and not wanted.specifier.contains(version, prereleases=True):
                findings.append(warning(f"{holder} wants {wanted.name}{wanted.specifier}, and {version} is installed",
                                        f"pip install '{wanted.name}{wanted.specifier}'"))
    return findings


def _reinstall(module: str) -> str:
    packages = [name for name in constraints() if module_of(name) == module]
    return f"pip install --force-reinstall --no-deps {packages[0] if packages else module} -c {CONSTRAINTS}"


def _public(version: str) -> str:
    """Without the local part: the `+cpu` of a build."""
    return version.partition("+")[0]
