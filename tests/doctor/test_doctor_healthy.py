"""A healthy machine without a GPU: exit code 0, every check made, and what can and cannot be done told with the remedy."""

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
from doctor.doctor_command import QUICKSTART, ROOT, doctor
from packaging.requirements import Requirement

from mft.doctor.capabilities import Capability
from mft.doctor.examine import Checked
from mft.doctor.finding import ok
from mft.doctor.verdict import Verdict

NAMES = ["environment", "python", "packages", "imports", "extras", "torch", "all-reduce", "4-bit", "attention", "memory", "shared-memory",
         "open-files", "storage", "hub", "base", "tokenizer", "recipes", "sandbox"]


@pytest.mark.slow
def test_a_healthy_machine_with_a_config(tmp_path):
    answer = doctor(QUICKSTART, "--out", tmp_path / "run", environment={"HF_HUB_OFFLINE": "1"})
    assert (answer.code, answer.result["ok"]) == (0, True), answer.stderr
    assert list(answer.checks) == NAMES
    assert {check["state"] for check in answer.result["checks"]} <= {"ok", "warning"}
    for name in ("imports", "torch", "all-reduce", "4-bit", "attention", "base", "tokenizer", "recipes"):
        assert answer.state(name) == "ok", answer.told(name)
    assert all(set(check) == {"name", "state", "found", "remedy", "seconds", "facts"} for check in answer.result["checks"])
    able = {one["name"]: one for one in answer.result["capabilities"]}
    assert able["4-bit"]["can"]
    assert able["several-ranks"]["can"]
    assert all(one["remedy"] for one in able.values() if not one["can"])
    assert not any(one["remedy"] for one in able.values() if one["can"])
    assert not (tmp_path / "run").exists()   # it looks, and leaves nothing
    assert "18/18 " in answer.stderr


def test_without_a_config_its_checks_are_skipped():
    answer = doctor(only=["extras", "base", "tokenizer", "recipes", "hub"])
    assert answer.code == 0
    assert [answer.state(name) for name in ("extras", "base", "tokenizer", "recipes", "hub")] == ["skipped"] * 4 + ["ok"]


def test_a_person_reads_each_check_with_its_remedy(tmp_path):
    command = [sys.executable, "-m", "mft", "-q", "doctor", "--only", "sandbox", "--only", "python"]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert re.match(r"ok       python   Python 3\.\d+\.\d+$", lines[0])
    assert lines[1].startswith("warning  sandbox  no sandbox: bubblewrap: bwrap is not on PATH")
    assert lines[2].startswith("                  -> install bubblewrap")
    assert "  run generated programs in a sandbox: no sandbox: bubblewrap: " in ended.stdout.partition("this machine cannot:")[2]
    assert ended.stderr == ""


def test_nothing_is_headed_where_there_is_nothing_to_tell():
    sandbox = Checked("sandbox", ok("bubblewrap", chosen="bubblewrap"), 0.1)
    able = Capability("sandbox", "run generated programs in a sandbox", True, "bubblewrap")
    assert Verdict([sandbox], [able], 0.1).lines() == ["ok       sandbox  bubblewrap", "", "this machine can:",
                                                       "  run generated programs in a sandbox: bubblewrap"]
    unable = Capability("sandbox", "run generated programs in a sandbox", False, "no bwrap", "install it")
    assert Verdict([sandbox], [unable], 0.1).lines()[2:] == ["this machine cannot:", "  run generated programs in a sandbox: no bwrap",
                                                            "    -> install it"]


def test_a_fault_is_read_by_a_person_too():
    given = [str(QUICKSTART), "model.base=/no/such/folder"]
    command = [sys.executable, "-m", "mft", "-q", "doctor", *given, "--only", "base", "--only", "python"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "mft: 1 of 2 checks found a fault\n  base: /no/such/folder: no such folder" in ended.stderr
    assert "ok       python" in ended.stderr


def test_unknown_names_are_refused_with_the_likely_one():
    answer = doctor("--need", "sandbx", "--need", "gpus", only=["imprts"])
    assert answer.code == 2
    assert [line.split(";")[-1] for line in answer.result["error"].splitlines()] == [
        " did you mean 'imports'?", " did you mean 'sandbox'?", " did you mean 'gpu'?"]


def test_a_mistake_in_the_config_is_told_as_such():
    answer = doctor(QUICKSTART, "model.contxt=5", only=["python"])
    assert (answer.code, "did you mean 'context'?" in answer.result["error"]) == (2, True)


def test_a_need_brings_the_checks_that_it_rests_on():
    answer = doctor("--need", "sandbox", only=["python"])
    assert list(answer.checks)[:2] == ["python", "sandbox"]


def test_the_command_starts_without_torch():
    program = ("import sys\nimport mft.cli.doctor, mft.doctor.verdict, mft.doctor.registry, mft.runs.config\n"
               "print(sorted({'torch', 'transformers', 'huggingface_hub', 'pyarrow'} & sys.modules.keys()))")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


CONSTRAINTS = ROOT / "mft" / "assets" / "constraints.txt"


def pinned():
    lines = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), "a name, ==, a public version"
    return dict(line.split("==") for line in lines)


TESTED_EXTRAS = ("secrets", "plot", "eval", "serve-transformers")
"""Extras that the tests need; constraints.txt says so too."""


def asked_by(package, extras=()):
    """What a package requires, with these extras of it."""
    parsed = map(Requirement, metadata.requires(package) or [])
    return [one for one in parsed if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))]


def test_the_tested_set_pins_every_requirement_within_its_range():
    pins = pinned()
    declared = asked_by("mft", TESTED_EXTRAS)
    assert len(declared) > 35
    assert [str(requirement) for requirement in declared
            if requirement.name.lower() not in pins or not requirement.specifier.contains(pins[requirement.name.lower()])] == []
    assert ", ".join(TESTED_EXTRAS[:-1]) + f" and {TESTED_EXTRAS[-1]}" in CONSTRAINTS.read_text(encoding="utf-8")


def test_the_tested_set_leaves_nothing_of_what_its_packages_bring_along_open():
    pins, missing = pinned(), set()
    for name in pins:
        try:
            missing |= {f"{one.name} of {name}" for one in asked_by(name) if re.sub(r"[-_.]+", "-", one.name).lower() not in pins}
        except metadata.PackageNotFoundError:
            continue
    # torch brings CUDA's packages along where its build is one for CUDA
    assert {one for one in missing if not one.endswith(" of torch")} == set()


def test_the_tested_set_goes_together():
    """What each pinned package of this environment asks of the others."""
    pins = pinned()
    wrong = []
    for name in pins:
        try:
            asked = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:
            continue
        if metadata.version(name).partition("+")[0] != pins[name]:
            continue
        for wanted in asked:
            key = wanted.name.lower().replace("_", "-").replace(".", "-")
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if applies and key in pins and not wanted.specifier.contains(pins[key], prereleases=True):
                wrong.append(f"{name} wants {wanted}, pinned is {pins[key]}")
    assert wrong == []
