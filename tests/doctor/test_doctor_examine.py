"""Checks run apart from each other: one that raises, hangs or crashes is a fault of its own, and no more."""

import threading
import time

import pytest

from mft.doctor.child import ProbeFailed, ask, listen
from mft.doctor.context import Context
from mft.doctor.examine import examine
from mft.doctor.finding import Check, Finding, fault, ok, skipped, together, warning


def hangs(context):
    threading.Event().wait(30)
    return ok("never")


def breaks(context):
    raise KeyError("odd\nmore")


def passes(context):
    return ok("fine", number=7)


def test_a_check_that_raises_or_hangs_is_a_fault_and_the_others_are_made():
    began = time.monotonic()
    told = []
    checks = [Check("hangs", hangs, 0.3), Check("breaks", breaks), Check("hangs too", hangs, 0.3), Check("passes", passes)]
    found = examine(checks, Context(), lambda checked, done, total: told.append((checked.name, done, total)))
    assert [(checked.name, checked.state) for checked in found] == [
        ("hangs", "fault"), ("breaks", "fault"), ("hangs too", "fault"), ("passes", "ok")]
    assert found[0].finding.found == "did not end within 0.3 s"
    assert found[1].finding.found == "the check could not be made: KeyError: 'odd\\nmore'"
    assert all(checked.finding.remedy for checked in found[:3])
    assert [done for _, done, _ in told] == [1, 2, 3, 4]
    assert {total for _, _, total in told} == {4}
    assert time.monotonic() - began < 10


def test_a_checked_one_as_json():
    checked, = examine([Check("passes", passes)], Context())
    facts = checked.to_json()
    assert facts.pop("seconds") < 1
    assert facts == {"name": "passes", "state": "ok", "found": "fine", "remedy": "", "facts": {"number": 7}}


def test_what_checks_share_is_made_once_and_its_failure_is_told_to_each(monkeypatch):
    calls = []

    def no_torch(*_, **__):
        calls.append(1)
        raise ProbeFailed("torch is broken")

    monkeypatch.setattr("mft.doctor.context.ask", no_torch)
    context = Context()
    for _ in range(3):
        with pytest.raises(ProbeFailed, match="torch is broken"):
            context.torch()
    assert calls == [1]


def test_several_findings_are_one_with_the_worst_state_and_each_remedy_once():
    assert together([skipped("x"), ok("y")], "all is well", a=1) == Finding("ok", "all is well", "", {"a": 1})
    assert together([warning("small", "grow"), fault("broken", "mend"), fault("lost", "mend")], "unused") == Finding(
        "fault", "broken; lost; small", "mend; grow")


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Make a probe of this source, which children find on their path."""
    def make(source):
        (tmp_path / "probe_under_test.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        # A name relative to mft.doctor.probes: importlib takes the absolute one apart, so the module is put beside by its search path.
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\n"
            f"spec = __import__('importlib.util').util.spec_from_file_location('mft.doctor.probes.planted', {str(tmp_path)!r} + "
            "'/probe_under_test.py')\n"
            "class Finder:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        return spec if name == 'mft.doctor.probes.planted' else None\n"
            "sys.meta_path.insert(0, Finder())\n")
        return "planted"
    return make


def test_a_probe_gives_values_whatever_is_printed_meanwhile(probe):
    name = probe("import os\ndef run(number):\n    print('chatter')\n    os.write(1, b'more chatter')\n    yield {'twice': 2 * number}\n")
    assert ask(name, {"number": 21}, timeout_s=30) == {"twice": 42}


@pytest.mark.parametrize(("body", "error"), [
    ("raise ValueError('wrong\\nmore')", "ValueError: wrong"),
    ("os.kill(os.getpid(), 9)", "was killed, perhaps for memory"),
    ("os.abort()", "the interpreter crashed (SIGABRT)"),
    ("sys.stderr.write('last words'); sys.stderr.flush(); os._exit(9)", "ended with exit code 9: last words"),
    ("sys.exit('enough')", "SystemExit: enough"),
    ("time.sleep(60)", "did not end within 3 s")])
def test_a_probe_that_fails_has_told_what_it_knew(probe, body, error):
    name = probe(f"import os, sys, time\ndef run():\n    yield 1\n    {body}\n    yield 2\n")
    answer = listen(name, {}, timeout_s=3)
    assert (answer.values, answer.error) == ([1], error)


def test_a_probe_whose_parent_is_gone_ends_by_itself(probe):
    name = probe("import signal\ndef run():\n    yield signal.alarm(0)\n")
    assert 30 < ask(name, {}, timeout_s=30) <= 35
