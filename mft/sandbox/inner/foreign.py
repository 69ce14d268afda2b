"""Programs of other languages: built and run in one sandbox, tests in the program's own text, so judged inside it.

A program passed if its build and its run ended with 0 within their times, and besides:

| language | built by | run by | and |
|---|---|---|---|
| cpp | `g++ -std=c++17` | the program | `main` returned: a call of `exit` and its like ends it with 97 |
| java | `javac` | `java Judge`, which calls `Main.main` | the secret that `Judge` prints after `Main.main` came back is the last line |
| javascript | - | `node` | nothing on stderr (there `console.assert` says its failures, and nowhere else), and the last line was reached |
| go | `go test -c` | the program, verbose | a test passed, none failed; `os.Exit` in a test is a failure to Go itself |
| rust | `rustc --test` | the program | the test harness says `test result: ok` with a test passed |

This process is closed to the program (it cannot be read or traced), but a program that knows these lines can act them out: who writes to
the process's own outputs, or leaves by a system call of its own, is not caught.
"""

import json
import os
import re
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import system
from .sides import DETAIL, read_text

FOLDER = Path("/tmp/program")

ENVIRONMENT = {"PATH": "/rust/bin:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "GO111MODULE": "off",
               "GOPATH": "/tmp/go", "GOCACHE": "/tmp/go-cache", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0", "GOMAXPROCS": "2"}

CPP_END = """
#include <cstdlib>
#include <unistd.h>
extern "C" {
[[noreturn]] void __real__exit(int);
[[noreturn]] void __wrap_exit(int) { __real__exit(97); }
[[noreturn]] void __wrap__exit(int) { __real__exit(97); }
[[noreturn]] void __wrap__Exit(int) { __real__exit(97); }
[[noreturn]] void __wrap_quick_exit(int) { __real__exit(97); }
}
"""
"""Linked instead of the library's own for calls in the program; what runs after `main` returns is inside the library and not touched."""

JAVA_JUDGE = """
class Judge {
    public static void main(String[] arguments) throws Throwable {
        Main.main(new String[0]);
        System.out.println();
        System.out.println("%s");
    }
}
"""

GO_ASSERT = """
package assert

import (
    "bytes"
    "reflect"
    "testing"
)

type Assertions struct{ t *testing.T }

func New(t *testing.T) *Assertions { return &Assertions{t} }

func same(expected, actual interface{}) bool {
    if a, ok := expected.([]byte); ok {
        b, ok := actual.([]byte)
        return ok && bytes.Equal(a, b)
    }
    return reflect.DeepEqual(expected, actual)
}

func Equal(t *testing.T, expected, actual interface{}, _ ...interface{}) bool {
    t.Helper()
    if !same(expected, actual) {
        t.Errorf("not equal: expected %#v, got %#v", expected, actual)
        return false
    }
    return true
}

func (a *Assertions) Equal(expected, actual interface{}, more ...interface{}) bool {
    a.t.Helper()
    return Equal(a.t, expected, actual, more...)
}

func (a *Assertions) NotEqual(expected, actual interface{}, _ ...interface{}) bool {
    a.t.Helper()
    if same(expected, actual) {
        a.t.Errorf("equal: %#v", actual)
        return false
    }
    return true
}

func (a *Assertions) True(value bool, _ ...interface{}) bool  { a.t.Helper(); return a.Equal(true, value) }
func (a *Assertions) False(value bool, _ ...interface{}) bool { a.t.Helper(); return a.Equal(false, value) }
func (a *Assertions) Nil(value interface{}, _ ...interface{}) bool {
    a.t.Helper()
    if value == nil || (reflect.ValueOf(value).Kind() == reflect.Ptr && reflect.ValueOf(value).IsNil()) {
        return true
    }
    a.t.Errorf("not nil: %#v", value)
    return false
}
"""
"""The part of testify's `assert` that HumanEval-X uses, written anew: the package itself would have to be fetched."""


Build = Callable[[Mapping[str, Any], "_Runner"], None]


class Ended(Exception):
    """A build or a run that did not go well, as (status, detail)."""


def foreign_side(text: int, verdict: int) -> None:
    """Build and run one program, and write the verdict."""
    job = read_text(text)
    os.set_inheritable(verdict, False)
    system.prctl(system.PR_SET_DUMPABLE, 0)
    FOLDER.mkdir()
    os.chdir(FOLDER)
    try:
        (BUILDS if job["build_only"] else LANGUAGES)[job["language"]](job, _Runner(job))
        status, detail = "passed", ""
    except Ended as ended:
        status, detail = ended.args
    os.write(verdict, json.dumps({"nonce": job["nonce"], "status": status, "detail": detail[:DETAIL]}).encode())


class _Runner:
    """Runs commands with the job's bounds."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.output_bytes = job["output_bytes"]
        self.timeout_s, self.build_timeout_s = job["timeout_s"], job["build_timeout_s"]
        self.memory_bytes = job["memory_bytes"]

    def build(self, command: Sequence[str]) -> None:
        code, _, err = self._ended(command, self.build_timeout_s, "built")
        if code:
            raise Ended("error", f"{command[0]} ended with {code}: {_first_line(err)}")

    def run(self, command: Sequence[str]) -> tuple[str, str]:
        """What the program printed; it ended with 0."""
        code, out, err = self._ended(command, self.timeout_s, "done")
        if code:
            status = "failed" if "ssert" in err + out or "panicked" in err + out else "error"
            ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            raise Ended(status, f"{ended}: {_first_line(err or out)}")
        return out, err

    def _ended(self, command: Sequence[str], timeout_s: float, what: str) -> tuple[int, str, str]:
        deadline = time.monotonic() + timeout_s
        texts = {1: bytearray(), 2: bytearray()}
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
                              start_new_session=True) as process, selectors.DefaultSelector() as selector:
            try:
                for number, pipe in ((1, process.stdout), (2, process.stderr)):
                    selector.register(pipe, selectors.EVENT_READ, number)  # type: ignore[arg-type]
                while selector.get_map():
                    events = selector.select(max(0.0, deadline - time.monotonic()))
                    if not events:
                        raise Ended("timeout", f"not {what} within {timeout_s:g} s")
                    for key, _ in events:
                        piece = os.read(key.fd, 1 << 16)
                        texts[key.data] += piece
                        if not piece:
                            selector.unregister(key.fileobj)
                    if sum(map(len, texts.values())) > self.output_bytes:
                        raise Ended("output_limit", f"more than {self.output_bytes} bytes printed")
                try:
                    code = process.wait(max(0.01, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    raise Ended("timeout", f"not {what} within {timeout_s:g} s") from None
            finally:
                if process.poll() is None:
                    process.kill()
        return code, texts[1].decode(errors="replace"), texts[2].decode(errors="replace")


def _first_line(text: str) -> str:
    """The first line that tells of a fault, else the first one."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("# ")]
    return next((line for line in lines if "rror" in line or "ssert" in line or "panic" in line), lines[0] if lines else "without a word")


def _cpp(job: Mapping[str, Any], runner: _Runner) -> None:
    Path("program.cpp").write_text(job["solution"] + CPP_END)
    wrapped = [f"-Wl,--wrap={name}" for name in ("exit", "_exit", "_Exit", "quick_exit")]
    runner.build(["g++", "-std=c++17", "-O1", "program.cpp", "-o", "program", *wrapped, "-lcrypto"] if "openssl" in job["solution"]
                 else ["g++", "-std=c++17", "-O1", "program.cpp", "-o", "program", *wrapped])
    runner.run(["./program"])


def _java(job: Mapping[str, Any], runner: _Runner) -> None:
    secret = secrets.token_hex(16)
    Path("Main.java").write_text(job["solution"])
    Path("Judge.java").write_text(JAVA_JUDGE % secret)
    heap = f"-Xmx{job['memory_bytes'] >> 21}m"
    flags = [heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    runner.build(["javac", *[f"-J{flag}" for flag in flags], "-encoding", "UTF-8", "Main.java", "Judge.java"])
    Path("Judge.java").unlink()
    out, _ = runner.run(["java", *flags, "-ea", "-cp", ".", "Judge"])
    if out.splitlines()[-1:] != [secret]:
        raise Ended("error", "ended before Main.main came back")


def _javascript(job: Mapping[str, Any], runner: _Runner) -> None:
    secret = secrets.token_hex(16)
    Path("program.js").write_text(f"{job['solution']}\n;require('fs').writeSync(1, '\\n{secret}\\n');\n")
    out, err = runner.run(["node", f"--max-old-space-size={job['memory_bytes'] >> 21}", "program.js"])
    if err.strip():
        raise Ended("failed", _first_line(err))
    if secret not in out.splitlines():
        raise Ended("error", "ended before its last line")


def _go(job: Mapping[str, Any], runner: _Runner) -> None:
    package = Path("/tmp/go/src/github.com/stretchr/testify/assert")
    package.mkdir(parents=True)
    (package / "assert.go").write_text(GO_ASSERT)
    home = Path("/tmp/go/src/program")
    home.mkdir()
    (home / "program_test.go").write_text(job["solution"])
    os.chdir(home)
    runner.build(["go", "test", "-vet=off", "-c", "-o", "/tmp/program/program"])
    out, _ = runner.run(["/tmp/program/program", "-test.v"])
    if "--- PASS" not in out or "--- FAIL" in out or out.splitlines()[-1:] != ["PASS"]:
        raise Ended("error", "no test passed")


def _rust(job: Mapping[str, Any], runner: _Runner) -> None:
    Path("program.rs").write_text(job["solution"])
    runner.build(["rustc", "--edition", "2021", "--test", "-A", "warnings", "program.rs", "-o", "program"])
    out, _ = runner.run(["./program", "--test-threads=1"])
    if not any(line.startswith("test result: ok.") and " 0 passed" not in line for line in out.splitlines()):
        raise Ended("error", "no test passed")


LANGUAGES = {"cpp": _cpp, "java": _java, "javascript": _javascript, "go": _go, "rust": _rust}


def _builds(file: str, *command: str) -> Build:
    """The command alone, over a file with the source text: nothing of the program runs, and it needs no `main`."""
    def build(job: Mapping[str, Any], runner: _Runner) -> None:
        Path(file).write_text(job["solution"])
        runner.build([*command, file])

    return build


JAVA_PUBLIC = re.compile(r"^\s*public\s+(?:(?:abstract|final|sealed|strictfp)\s+)*(?:class|interface|enum|record)\s+(\w+)", re.M)
"""The type whose name the file must have."""


def _build_java(job: Mapping[str, Any], runner: _Runner) -> None:
    named = JAVA_PUBLIC.search(job["solution"])
    flags = [f"-J-Xmx{job['memory_bytes'] >> 21}m", "-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-J-Xshare:auto"]
    _builds(f"{named[1] if named else 'Main'}.java", "javac", *flags, "-proc:none", "-encoding", "UTF-8")(job, runner)


def _build_javascript(job: Mapping[str, Any], runner: _Runner) -> None:
    is_module = re.search(r"^\s*(?:import\b[^(]*['\"]|export\b)", job["solution"], re.M)
    _builds("program.mjs" if is_module else "program.js", "node", "--check")(job, runner)


def _build_go(job: Mapping[str, Any], runner: _Runner) -> None:
    home = Path("/tmp/go/src/program")
    home.mkdir(parents=True)
    os.chdir(home)
    _builds("program_test.go", "go", "test", "-vet=off", "-c", "-o", "/tmp/program/program")(job, runner)


BUILDS: Mapping[str, Build] = {
    "c": _builds("program.c", "gcc", "-std=gnu17", "-fsyntax-only"), "cpp": _builds("program.cpp", "g++", "-std=c++17", "-fsyntax-only"),
    "java": _build_java, "javascript": _build_javascript, "go": _build_go,
    "rust": _builds("program.rs", "rustc", "--edition", "2021", "--crate-type", "lib", "--emit", "metadata", "-A", "warnings")}
"""Programs that are built and not run."""

