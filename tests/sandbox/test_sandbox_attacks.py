"""Every attack is scored as a fail and changes nothing on the host, in each isolation, for root and for an ordinary user."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from sandbox_attacks import ATTACKS, CLERKS, ESCAPES, EXHAUSTIONS, FORGERIES, LIARS, LIMITS, VANDALS, program, verdicts

from mft.sandbox.judge import choose, judge
from mft.sandbox.probe import Probe, probe_sandboxes
from mft.sandbox.program import ExecutionResult, SandboxError

ISOLATIONS = ["bubblewrap", "unshare"]
ALL = [*ISOLATIONS, pytest.param("container", marks=pytest.mark.slow)]
"""A container is a second's work, twice for each attack."""
QUICK = {**ESCAPES, **FORGERIES, **LIARS, **VANDALS}
NOBODY = 65534
ENGINES_OWN = ("/containers/", "/docker/", "/netns/")
"""Where engines mount what a container's root is made of, and unmount it some time after its end."""
MARK = "98765.4321"
"""Seconds that a process left behind would sleep; no other process of a machine has this in its command line."""

LEAVES_A_PROCESS = f"import subprocess\nsubprocess.Popen(['sleep', '{MARK}'], start_new_session=True)\ndef f(x):\n    return 1"


@cache
def working() -> frozenset[str]:
    return frozenset(probe.name for probe in probe_sandboxes() if probe.works)


def needs(isolation: str) -> None:
    if isolation not in working():
        pytest.skip(f"{isolation} does not work on this machine")


def host_state() -> dict[str, object]:
    """What an attack would change: files that it writes, the kernel's settings, the network, the hostname."""
    files = ["/attacked", "/usr/attacked", "/etc/attacked", "/var/attacked", "/dev/attacked", "/tmp/left", "/tmp/big", "/tmp/json.py",
             "/tmp/sitecustomize.py", "/dev/shm/big"]
    texts = ["/etc/passwd", "/proc/sys/kernel/core_pattern", "/proc/net/route", "/etc/hostname"]
    return {"files": [name for name in files if os.path.exists(name)], "hostname": os.uname().nodename,
            "devices": [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]],
            "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if not any(map(line.count, ENGINES_OWN))],
            **{name: Path(name).read_bytes() for name in texts if os.path.exists(name)}}


def left_processes() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if MARK.encode() in command.split(b"\0"):
            found.append(str(entry))
    return found


@cache
def quick_verdicts(isolation: str, mode: str) -> dict[str, ExecutionResult]:
    return verdicts(isolation, mode, QUICK | (CLERKS if mode == "inside" else {}))


@pytest.fixture
def unchanged_host() -> Iterator[None]:
    before = host_state()
    yield
    assert host_state() == before


@pytest.mark.parametrize("isolation", ALL)
@pytest.mark.parametrize("name", QUICK)
@pytest.mark.usefixtures("unchanged_host")
def test_an_attack_is_a_fail_and_the_next_program_is_judged_as_ever(name: str, isolation: str):
    needs(isolation)
    results = quick_verdicts(isolation, "separate")
    assert results[name].status in ("failed", "error")
    assert results[f"honest/{name}"].status == "passed"


@pytest.mark.parametrize("isolation", ALL)
@pytest.mark.parametrize("name", {**ESCAPES, **FORGERIES, **VANDALS, **CLERKS})
@pytest.mark.usefixtures("unchanged_host")
def test_the_hardened_judge_inside_fails_the_attack_too(name: str, isolation: str):
    needs(isolation)
    results = quick_verdicts(isolation, "inside")
    assert results[name].status in ("failed", "error")
    assert results[f"honest/{name}"].status == "passed"


def test_what_the_judge_inside_cannot_see_through_is_known():
    needs("unshare")
    assert {attack: result.status for attack, result in quick_verdicts("unshare", "inside").items() if attack in LIARS} == dict.fromkeys(
        LIARS, "passed")


EXPECTED = {
    "endless_loop": "timeout", "sleeps": "timeout", "catches_the_timeout": "timeout", "fork_bomb": "timeout",
    "allocates_100_gb": "out_of_memory", "allocates_bit_by_bit": "out_of_memory", "allocates_in_children": "out_of_memory",
    "fills_the_disk": "error", "fills_the_disk_with_files": "error", "fills_shared_memory": "error", "endless_output": "output_limit",
    "deep_answer": "error", "huge_exponent": "timeout", "opens_everything": "error", "threads_at_exit": "failed",
    "background_process": "failed",
}


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.parametrize("isolation", [*ISOLATIONS, "container"])
@pytest.mark.usefixtures("unchanged_host")
def test_what_uses_up_the_machine_ends_within_its_limits(isolation: str):
    needs(isolation)
    results = verdicts(isolation, "separate", EXHAUSTIONS)
    found = {name: results[name].status for name in EXPECTED}
    if isolation == "container" and found["fills_the_disk_with_files"] == "timeout":
        found["fills_the_disk_with_files"] = "error"    # podman's /tmp has no bound of their number
    assert found == EXPECTED
    assert [name for name in EXHAUSTIONS if results[name].passed] == []
    assert [name for name in EXHAUSTIONS if results[f"honest/{name}"].status != "passed"] == []
    assert max(result.seconds for result in results.values()) < 4.5 * LIMITS.timeout_s


@pytest.mark.parametrize("isolation", ALL)
def test_a_process_left_behind_is_killed_with_its_program(isolation: str):
    needs(isolation)
    result, = judge([program("leaves", LEAVES_A_PROCESS)], limits=LIMITS, isolation=isolation)  # type: ignore[arg-type]
    assert result.status == "failed"
    assert left_processes() == []


def other_users_python() -> str:
    """An interpreter that an ordinary user may run, or a skip."""
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            done = subprocess.run(command, check=False, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True)
            if done.returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip("no interpreter here that another user may run")


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.skipif(os.geteuid() != 0, reason="the tests' own user is an ordinary one")
@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.usefixtures("unchanged_host")
def test_attacks_fail_where_an_ordinary_user_judges(isolation: str, tmp_path_factory: pytest.TempPathFactory):
    needs(isolation)
    python, root, here = other_users_python(), Path(__file__).resolve().parents[2], Path(__file__).resolve().parent
    if not os.stat(root).st_mode & 0o005:
        pytest.skip("another user may not read this checkout")
    environment = {"PYTHONPATH": f"{root}:{here}", "PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1", "MFT_SECRET": "1"}
    done = subprocess.run([python, str(here / "sandbox_attacks.py"), isolation, "separate"], env=environment, user=NOBODY, group=NOBODY,
                          extra_groups=[], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    statuses = {name: status for name, (status, _) in json.loads(done.stdout).items()}
    assert [name for name in ATTACKS if statuses[name] == "passed"] == []
    assert [name for name in ATTACKS if statuses[f"honest/{name}"] != "passed"] == []


def test_the_attacks_succeed_without_a_sandbox():
    """So the tests above are about the sandbox: the same looks find something where there is none."""
    looks = {name: ESCAPES[name] for name in ("sees_other_processes", "reads_home", "reads_shadow") if os.geteuid() == 0 or name[0] == "s"}
    results = verdicts("unsafe", "separate", looks)
    assert {name: results[name].status for name in looks} == dict.fromkeys(looks, "passed")


def test_without_isolation_nothing_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mft.sandbox.judge.probed", lambda name: Probe(name, False, f"{name} is off"))
    with pytest.raises(SandboxError, match="bubblewrap is off; unshare: unshare is off; container: container is off"):
        list(judge([program("a", "def f(x): return 2")]))


def test_what_is_lighter_is_taken_and_the_rest_is_not_tried(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("mft.sandbox.judge.probed", lambda name: asked.append(name) or Probe(name, name != "bubblewrap", "as it is"))
    assert choose("auto") == "unshare"
    assert choose("container") == "container"
    assert asked == ["bubblewrap", "unshare", "container"]
