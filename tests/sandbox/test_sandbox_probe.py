"""The probe runs a program in each kind of isolation, and believes only what the program saw."""

import sys

import pytest

from mft.sandbox.container import look
from mft.sandbox.probe import Probe, best, probe_sandboxes


def tool(folder, name, script):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def probed(monkeypatch, folder, timeout_s=10.0):
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("MFT_CONTAINER_ENGINE", raising=False)
    monkeypatch.delenv("MFT_SANDBOX_IMAGE", raising=False)
    look.cache_clear()
    return {probe.name: probe for probe in probe_sandboxes(timeout_s)}


def test_nothing_on_the_path_is_nothing_and_says_so(tmp_path, monkeypatch):
    found = probed(monkeypatch, tmp_path)
    assert list(found.values()) == [
        Probe("bubblewrap", False, "bwrap is not on PATH"), Probe("unshare", False, "unshare is not on PATH"),
        Probe("container", False, "neither podman nor docker is on PATH")]
    assert best(list(found.values())) is None


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_a_tool_that_isolates_nothing_is_not_believed(tmp_path, monkeypatch):
    # Runs what follows `--` as it is.
    tool(tmp_path, "bwrap", 'while [ "$1" != "--" ]; do shift; done; shift; exec "$@"')
    assert probed(monkeypatch, tmp_path)["bubblewrap"] == Probe(
        "bubblewrap", False, "a program inside still has the host's user namespace, the host's pid namespace, the host's net namespace, "
                             "a writable file system")


def test_a_tool_that_fails_or_hangs_or_says_nothing_does_not_work(tmp_path, monkeypatch):
    tool(tmp_path, "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    tool(tmp_path, "unshare", "/bin/sleep 30")
    found = probed(monkeypatch, tmp_path, timeout_s=0.5)
    assert not found["bubblewrap"].works
    assert found["bubblewrap"].reason.endswith("bwrap ended with 1: bwrap: No permissions to create new namespace")
    assert found["unshare"] == Probe("unshare", False, "unshare did not end within 0.5 s")
    tool(tmp_path, "bwrap", "exit 0")
    assert probed(monkeypatch, tmp_path, timeout_s=0.5)["bubblewrap"].reason.endswith("bwrap ended with 0: without a word")


def test_a_file_that_is_no_program_is_named(tmp_path, monkeypatch):
    (tmp_path / "bwrap").write_bytes(b"\x7fELF")
    (tmp_path / "bwrap").chmod(0o755)
    assert probed(monkeypatch, tmp_path)["bubblewrap"].reason == "bwrap cannot be started: Exec format error"


@pytest.mark.parametrize(("script", "reason"), [
    ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "docker does not answer: Cannot connect to the Docker daemon"),
    ("echo 'Error: No such image: x' >&2; exit 1",
     "the image docker.io/library/python:3.11-slim is not here; fetch it with: docker pull docker.io/library/python:3.11-slim, or name "
     "another one that has Python 3.11 in MFT_SANDBOX_IMAGE"),
    ('case "$1" in image|--version) exit 0;; esac; echo "no such runtime" >&2; exit 125', "a container does not start: no such runtime")])
def test_a_container_engine_that_runs_nothing_says_why(tmp_path, monkeypatch, script, reason):
    tool(tmp_path, "docker", script)
    assert probed(monkeypatch, tmp_path)["container"] == Probe("container", False, reason)


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_an_engine_that_isolates_nothing_is_not_believed(tmp_path, monkeypatch):
    # Runs what follows the image as it is.
    runs = f'while [ "$1" != "-s" ]; do shift; done; exec {sys.executable} "$@"'
    tool(tmp_path, "podman", f'case "$1" in image|--version) exit 0;; esac; {runs}')
    found = probed(monkeypatch, tmp_path)["container"]
    assert not found.works
    assert found.reason.startswith("a program in a container of podman still has the host's pid namespace, the host's net namespace")


def test_an_engine_is_asked_for_a_program_without_network_rights_or_download(tmp_path, monkeypatch):
    tool(tmp_path, "podman", f'case "$1" in image|--version) exit 0;; esac; printf "%s\\n" "$@" > {tmp_path}/asked; exit 1')
    assert not probed(monkeypatch, tmp_path)["container"].works
    asked = (tmp_path / "asked").read_text().split("BOOT")[0].splitlines()
    expected = {"--network": "none", "--cap-drop": "ALL", "--security-opt": "no-new-privileges", "--pull": "never",
                "--entrypoint": "python3"}
    assert {option: asked[asked.index(option) + 1] for option in expected} == expected
    assert {"--read-only", "--rm"} <= set(asked)
    assert "--volume" not in asked
    user = asked[asked.index("--user") + 1].split(":")
    assert user[0] == user[1]
    assert 10_000 <= int(user[0]) < 60_000


def test_an_engine_of_the_users_own_is_taken_as_it_is(tmp_path, monkeypatch):
    tool(tmp_path, "special", 'echo "asked: $*" >&2; exit 1')
    probed(monkeypatch, tmp_path)
    monkeypatch.setenv("MFT_CONTAINER_ENGINE", "special --runtime 'of mine'")
    monkeypatch.setenv("MFT_SANDBOX_IMAGE", "my/python")
    look.cache_clear()
    assert probe_sandboxes()[2].reason == "special does not answer: asked: --runtime of mine image inspect my/python"
    monkeypatch.setenv("MFT_CONTAINER_ENGINE", "nowhere")
    look.cache_clear()
    assert probe_sandboxes()[2].reason == "MFT_CONTAINER_ENGINE names nowhere, which is not on PATH"


def test_what_this_machine_has_works_or_says_why():
    found = probe_sandboxes()
    assert [probe.name for probe in found] == ["bubblewrap", "unshare", "container"]
    assert all(probe.reason for probe in found)
    chosen = best(found)
    if chosen is None:
        pytest.skip("no isolation on this machine: " + "; ".join(f"{probe.name}: {probe.reason}" for probe in found))
    assert chosen == next(probe for probe in found if probe.works)


def test_a_container_is_taken_where_nothing_lighter_works():
    container = Probe("container", True, "ran")
    assert best([Probe("bubblewrap", False, "absent"), Probe("unshare", False, "absent"), container]) == container
    assert best([Probe("bubblewrap", False, "absent"), Probe("unshare", True, "ran"), container]) == Probe("unshare", True, "ran")
