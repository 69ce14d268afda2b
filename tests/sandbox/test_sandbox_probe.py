"""The probe runs a program in each kind of isolation, and believes only what the program saw."""

import sys

import pytest

from mft.sandbox.probe import Probe, best, probe_sandboxes


def tool(folder, name, script):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def probed(monkeypatch, folder, timeout_s=10.0):
    monkeypatch.setenv("PATH", str(folder))
    return {probe.name: probe for probe in probe_sandboxes(timeout_s)}


def test_nothing_on_the_path_is_nothing_and_says_so(tmp_path, monkeypatch):
    found = probed(monkeypatch, tmp_path)
    assert list(found.values()) == [
        Probe("bubblewrap", False, "bwrap is not on PATH"), Probe("unshare", False, "unshare is not on PATH"),
        Probe("podman", False, "podman is not on PATH"), Probe("docker", False, "docker is not on PATH")]
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


@pytest.mark.parametrize(("script", "works", "reason"), [
    ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", False, "the engine does not answer: Cannot connect to the Docker daemon"),
    ("exit 0", False, "the engine answers, but holds no image to run a program in; fetch one: docker pull python:3-slim"),
    ('if [ "$1" = images ]; then echo 4f0c2b; else exit 0; fi', True,
     "a program ran in the image 4f0c2b without network, on a read-only file system"),
    ('if [ "$1" = images ]; then echo 4f0c2b; else echo "no such runtime" >&2; exit 125; fi', False,
     "a program did not run in the image 4f0c2b: no such runtime")])
def test_a_container_engine_counts_where_it_runs_a_program(tmp_path, monkeypatch, script, works, reason):
    tool(tmp_path, "docker", script)
    assert probed(monkeypatch, tmp_path)["docker"] == Probe("docker", works, reason)


def test_an_engine_is_asked_for_a_program_without_network_rights_or_download(tmp_path, monkeypatch):
    tool(tmp_path, "podman", f'if [ "$1" = images ]; then echo 4f0c2b; else echo "$@" > {tmp_path}/asked; fi')
    assert probed(monkeypatch, tmp_path)["podman"].works
    assert (tmp_path / "asked").read_text() == ("run --rm --network none --read-only --cap-drop ALL --user 65534:65534 --pull never "
                                                "--entrypoint true 4f0c2b\n")


def test_what_this_machine_has_works_or_says_why():
    found = probe_sandboxes()
    assert [probe.name for probe in found] == ["bubblewrap", "unshare", "podman", "docker"]
    assert all(probe.reason for probe in found)
    chosen = best(found)
    if chosen is None:
        pytest.skip("no isolation on this machine: " + "; ".join(f"{probe.name}: {probe.reason}" for probe in found))
    assert chosen == next(probe for probe in found[:2] if probe.works)


def test_a_container_engine_alone_is_no_place_to_judge_programs_in():
    assert best([Probe("bubblewrap", False, "absent"), Probe("unshare", False, "absent"), Probe("docker", True, "ran")]) is None
