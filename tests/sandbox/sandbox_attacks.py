# ruff: noqa: E501 - attacks are data
"""Solutions that attack the judge or its machine. Each defines `f`; the test asks `assert f(1) == 2`, so that one which passes has won.

Run as a program, with the kind of isolation and the way of judging, it prints the verdicts as JSON: for a user who is not the tests' own.
"""

import json
import sys
from textwrap import dedent

from mft.sandbox.judge import judge
from mft.sandbox.program import ExecutionResult, Limits, Program

LIMITS = Limits(timeout_s=1.5, memory_bytes=512 << 20, processes=24, output_bytes=1 << 20, disk_bytes=8 << 20)

READS = """
import glob, os
def f(x):
    found = []
    for name in PLACES:
        for path in glob.glob(name) or [name]:
            if "/[" in name and path.startswith(f"/proc/{os.getpid()}/"):
                continue
            try:
                with open(path, "rb") as file:
                    data = file.read(100)
                if data:                # engines of containers put empty files over what they hide
                    found.append((path, data))
            except OSError:
                pass
    return 2 if found else found
"""

WRITES = """
import os
def f(x):
    done = []
    for path in PLACES:
        try:
            with open(path, "w") as file:
                file.write("attacked")
            done.append(path)
        except OSError:
            pass
    return 2 if done else done
"""


def places(text: str, *names: str) -> str:
    return f"PLACES = {names!r}\n{text}"


ESCAPES = {
    "reads_shadow": places(READS, "/etc/shadow", "/etc/ssh/*", "/etc/hosts", "/etc/hostname", "/etc/machine-id"),
    "reads_home": places(READS, "/root/.*", "/root/*", "/home/*/*", "/work/*/*", "/var/log/*", "/run/*"),
    "reads_environment_of_others": "import os\nos.environ['PATH'] = 'x'\n" + READS.replace("PLACES", "('/proc/1/environ', '/proc/[2-9]*/environ')")
        .replace("data = file.read(100)", "data = file.read(4000)").replace("found.append((path, data))", "found += [d for d in [data] if b'MFT_SECRET' in d or b'SSH' in d or b'HOME=/root' in d]"),
    "reads_environment": "import os\ndef f(x):\n    return 2 if set(os.environ) - {'HOME', 'TMPDIR', 'LANG', 'LC_CTYPE'} else dict(os.environ)",
    "reads_the_host_through_proc": places(READS, "/proc/1/root/etc/shadow", "/proc/self/root/root/.bashrc", "/proc/1/cwd/../work/*/*",
                                          "/proc/sys/kernel/core_pattern/../../../1/root/etc/shadow", "/proc/[3-9]*/maps", "/proc/kcore"),
    "writes_core_pattern": places(WRITES, "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/1/oom_score_adj"),
    "writes_outside_tmp": places(WRITES, "/attacked", "/usr/attacked", "/etc/attacked", "/var/attacked", "/dev/attacked", "/judge/attacked",
                                 "/etc/passwd", "/packages/attacked", "/proc/attacked"),
    "writes_python": "import json.decoder as d, os\ndef f(x):\n    try:\n        open(d.__file__, 'a').close()\n    except OSError:\n        return 1\n    return 2",
    "remounts": dedent("""
        import ctypes
        def f(x):
            libc = ctypes.CDLL(None)
            done = [libc.mount(b"none", b"/", None, 4096 | 32, None), libc.mount(b"none", b"/usr", None, 4096 | 32, None),
                    libc.umount2(b"/tmp", 2), libc.mount(b"tmpfs", b"/usr", b"tmpfs", 0, None), libc.unshare(0x10000000),
                    libc.unshare(0x00020000), libc.setuid(0), libc.setresuid(0, 0, 0), libc.chroot(b"/tmp"), libc.ptrace(16, 1, None, None)]
            return 2 if 0 in done else done"""),
    "opens_sockets": dedent("""
        import socket, os
        def f(x):
            reached = []
            for family, address in [(socket.AF_INET, ("1.1.1.1", 53)), (socket.AF_INET, ("127.0.0.1", 22)), (socket.AF_INET, ("127.0.0.1", 8080)),
                                    (socket.AF_UNIX, "/var/run/docker.sock"), (socket.AF_UNIX, "/run/dbus/system_bus_socket")]:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)[:1 if address[0] == "127.0.0.1" else 2]:   # a datagram asks for nobody there
                    try:
                        with socket.socket(family, kind) as s:
                            s.settimeout(0.2)
                            s.connect(address)
                            reached.append(address)
                    except OSError:
                        pass
            devices = [line for line in open("/proc/net/dev").read().splitlines()[2:] if not line.strip().startswith("lo:")]
            return 2 if reached or devices else reached"""),
    "sees_other_processes": dedent("""
        import os
        def f(x):
            own, pid = set(), str(os.getpid())
            while pid != "0":       # the processes that brought this one up
                own.add(pid)
                with open(f"/proc/{pid}/stat") as file:
                    pid = file.read().rpartition(")")[2].split()[1]
            return 2 if {name for name in os.listdir("/proc") if name.isdigit()} - own or len(own) > 3 else 1"""),
    "kills_everything": dedent("""
        import os, signal
        killed = []
        for pid in [1, os.getppid(), -1, *range(3, 400)]:
            for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
                try:
                    os.kill(pid, number) if pid != os.getpid() else None
                    killed.append(pid)
                except OSError:
                    pass
        def f(x):
            return 2 if set(killed) - {1, 0, -1, os.getpid()} else 1"""),
}
"""Looks and reaches out of the sandbox: `f` is right only where it succeeded."""

FORGERIES = {
    "exit_0": "import sys\nsys.exit(0)",
    "exit_0_in_call": "import sys\ndef f(x):\n    sys.exit(0)",
    "os_exit": "import os\nos._exit(0)",
    "os_exit_in_call": "import os\ndef f(x):\n    os._exit(0)",
    "raises_system_exit": "def f(x):\n    raise SystemExit",
    "raises_keyboard_interrupt": "def f(x):\n    raise KeyboardInterrupt",
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x):\n    return x",
    "exec": "import os\ndef f(x):\n    os.execv('/bin/true', ['true'])",
    "prints_success": dedent("""
        import json, sys
        def f(x):
            for text in ("passed", json.dumps({"nonce": "", "status": "passed", "detail": ""}), "OK", "1 passed"):
                print(text, flush=True)
                print(text, file=sys.stderr, flush=True)
            return x"""),
    "writes_to_every_descriptor": dedent("""
        import json, os
        def f(x):
            for descriptor in range(3, 256):
                for text in (b"passed", json.dumps({"nonce": "0" * 32, "status": "passed", "detail": ""}).encode(), b'["return",2,[]]'):
                    try:
                        os.write(descriptor, text)
                    except OSError:
                        pass
            return x"""),
    "closes_every_descriptor": "import os\ndef f(x):\n    os.closerange(0, 256)\n    return x",
    "reads_the_nonce": dedent("""
        import gc, glob, json, os, re, sys
        def texts():
            frame = sys._getframe()
            while frame:
                yield repr(frame.f_locals)
                yield repr(frame.f_globals)
                frame = frame.f_back
            for thing in gc.get_objects():
                if isinstance(thing, (dict, list, tuple)):
                    yield repr(thing)[:100000]
        def f(x):
            found = set()
            try:
                for text in texts():
                    found |= set(re.findall(r"nonce[^0-9a-f]{1,6}([0-9a-f]{32})", text))
            except BaseException:
                pass
            for name in ["/proc/self/cmdline", "/proc/self/environ", "/proc/1/cmdline", *glob.glob("/proc/self/fd/*"), *glob.glob("/dev/fd/*"), *glob.glob("/tmp/*")]:
                try:
                    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
                    found |= set(re.findall(r"([0-9a-f]{32})", os.read(descriptor, 100000).decode(errors="replace")))
                except OSError:
                    pass
            for nonce in found:
                for descriptor in range(1, 64):
                    try:
                        os.write(descriptor, json.dumps({"nonce": nonce, "status": "passed", "detail": ""}).encode())
                    except OSError:
                        pass
            return 2 if found else x"""),
    "reads_the_tests_in_memory": dedent("""
        def f(x):
            import re
            needle = re.compile(rb"assert f[(]1[)] [=]= [2]")
            for line in open("/proc/self/maps"):
                first, last = (int(part, 16) for part in line.split()[0].split("-"))
                if " rw" not in line or last - first > 1 << 28:
                    continue
                with open("/proc/self/mem", "rb", 0) as memory:
                    try:
                        memory.seek(first)
                        if needle.search(memory.read(last - first)):
                            return 2
                    except (OSError, ValueError, OverflowError):
                        pass
            return x"""),
    "patches_builtins": dedent("""
        import builtins
        builtins.AssertionError = type("AssertionError", (BaseException,), {"__new__": lambda *a: None})
        for name in ("exec", "compile", "eval", "isinstance", "BaseException", "Exception", "print", "getattr", "repr"):
            setattr(builtins, name, lambda *a, **k: None)
        def f(x):
            return x"""),
    "patches_the_checker": dedent("""
        import sys
        for name, module in list(sys.modules.items()):
            for key, value in list(vars(module).items()) if module and name.split(".")[0] in ("inner", "mft", "tests", "unittest", "json", "__main__") else ():
                if callable(value):
                    try:
                        setattr(module, key, lambda *a, **k: ("passed", ""))
                    except Exception:
                        pass
        def f(x):
            return x"""),
    "patches_the_tests_names": "def check(c):\n    pass\ndef f(x):\n    import sys\n    for m in list(sys.modules.values()):\n        vars(m).update(check=lambda c: None)\n    return x",
    "patches_unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\nunittest.TestCase.fail = lambda *a: None\ndef f(x):\n    return x",
    "ends_from_a_thread": "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()\ndef f(x):\n    time.sleep(0.3)\n    return x",
    "forks_and_ends": "import os\ndef f(x):\n    if os.fork():\n        os._exit(0)\n    return x",
    "strips_assertions": "from __future__ import annotations\nimport sys\nsys.flags.__class__\ndef f(x):\n    return x",
    "ctypes_rewrites_two": dedent("""
        import ctypes
        def f(x):
            ctypes.memmove(id(2) + 24, (1).to_bytes(4, "little"), 4)     # 2 becomes 1 in this process
            return 1"""),
}
"""Try to look like a success: `f` itself is wrong."""

CLERKS = {
    "reads_the_clerk": places(READS, *[f"/proc/{pid}/{name}" for pid in ("1", "[2-9]", "[1-9]?") for name in ("mem", "maps", "environ", "fd/*", "root/*", "cwd/*")]),
    "traces_the_clerk": dedent("""
        import os
        def f(x):
            for pid in {1, os.getppid()} - {0, os.getpid()}:
                try:
                    os.open(f"/proc/{pid}/mem", os.O_RDWR)
                    return 2
                except OSError:
                    pass
            return x"""),
}
"""Where the judge is inside, the parent process is its clerk (process 1, but in a container); elsewhere it is the solution itself."""

LIARS = {
    "equal_to_all": "class A:\n    def __eq__(self, other):\n        return True\n    def __ne__(self, other):\n        return False\n    __hash__ = None\ndef f(x):\n    return A()",
    "lying_int": "class A(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\ndef f(x):\n    return A(7)",
    "lying_str": "class A(str):\n    def __eq__(self, other):\n        return True\n    __hash__ = str.__hash__\ndef f(x):\n    return A('7')",
    "lying_list": "class A(list):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return A([7])",
    "lying_class": "class M(type):\n    def __eq__(cls, other):\n        return True\n    __hash__ = type.__hash__\nclass A(metaclass=M):\n    pass\ndef f(x):\n    return A",
    "lying_ndarray": "class A:\n    __module__ = 'numpy'\n    def __eq__(self, other):\n        return True\nA.__module__ = 'numpy'\ndef f(x):\n    return A()",
}
"""Answers that are equal to everything; only a separate judge sees through them."""

EXHAUSTIONS = {
    "endless_loop": "def f(x):\n    while True:\n        pass",
    "sleeps": "import time\ndef f(x):\n    time.sleep(60)\n    return 2",
    "catches_the_timeout": "import signal\nfor n in range(1, 65):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\ndef f(x):\n    while True:\n        try:\n            while True:\n                pass\n        except BaseException:\n            pass",
    "fork_bomb": "import os\ndef f(x):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass",
    "thread_bomb": "import threading, time\ndef f(x):\n    while True:\n        try:\n            threading.Thread(target=time.sleep, args=(60,)).start()\n        except RuntimeError:\n            pass",
    "allocates_100_gb": "def f(x):\n    held = bytearray(100 << 30)\n    return 2",
    "allocates_bit_by_bit": "def f(x):\n    held = []\n    while True:\n        held.append(bytearray(b'x') * (8 << 20))",
    "allocates_in_children": "import os, time\ndef f(x):\n    for _ in range(8):\n        if not os.fork():\n            held = bytearray(b'x') * (200 << 20)\n            time.sleep(60)\n    time.sleep(60)\n    return 2",
    "fills_the_disk": "def f(x):\n    with open('/tmp/big', 'wb') as file:\n        for _ in range(4096):\n            file.write(b'x' * (1 << 20))\n    return 2",
    "fills_the_disk_with_files": "def f(x):\n    for n in range(10**7):\n        open(f'/tmp/{n}', 'w').close()\n    return 2",
    "fills_shared_memory": "def f(x):\n    with open('/dev/shm/big', 'wb') as file:\n        for _ in range(4096):\n            file.write(b'x' * (1 << 20))\n    return 2",
    "endless_output": "def f(x):\n    while True:\n        print('x' * 65536)",
    "endless_answer": "def f(x):\n    return 'x' * (200 << 20)",
    "deep_recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "deep_answer": "def f(x):\n    out = []\n    for _ in range(10**5):\n        out = [out]\n    return out",
    "huge_exponent": "def f(x):\n    return 10 ** 10 ** 10",
    "opens_everything": "def f(x):\n    held = []\n    while True:\n        held.append(open('/dev/null'))",
    "threads_at_exit": "import threading\ndef forever():\n    while True:\n        pass\nthreading.Thread(target=forever).start()\ndef f(x):\n    return 1",
    "background_process": "import os, time\nif not os.fork():\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    while True:\n        time.sleep(0.01)\ndef f(x):\n    return 1",
}
"""Use up time, memory, processes, disk: each ends within its limits."""

VANDALS = {
    "breaks_modules": "import json, os, math, re, builtins\njson.loads = json.dumps = None\nos.write = None\nmath.sqrt = None\nre.match = None\nos.listdir('/')\nbuiltins.len = None\ndef f(x):\n    return 1",
    "leaves_files": "import os\nfor name in ('/tmp/left', '/tmp/json.py', '/tmp/sitecustomize.py'):\n    open(name, 'w').write('raise SystemExit')\ndef f(x):\n    return 1",
}
"""Try to spoil the pool for the programs that come later."""

ATTACKS = {**ESCAPES, **FORGERIES, **LIARS, **EXHAUSTIONS, **VANDALS}

HONEST = "import json, math, os, re\nassert os.listdir('/tmp') == []\ndef f(x):\n    return len(json.loads('[1, 2]')) + int(math.sqrt(0)) + (re.match('a', 'b') is not None)"
"""What a later program needs of what the vandals broke."""


def program(name: str, solution: str) -> Program:
    return Program(id=name, solution=solution, tests="def check(c):\n    assert f(1) == 2\n    assert c(1) == 2\n", entry_point="f", call="check(f)")


def verdicts(isolation: str, mode: str, attacks: dict[str, str], *, workers: int = 2) -> dict[str, ExecutionResult]:
    """One run of all, each followed by an honest program (`honest/NAME`)."""
    programs = [each for name, text in attacks.items() for each in (program(name, text), program(f"honest/{name}", HONEST))]
    return {result.id: result for result in judge(programs, limits=LIMITS, workers=workers, isolation=isolation, mode=mode)}  # type: ignore[arg-type]


if __name__ == "__main__":
    print(json.dumps({name: [result.status, result.detail] for name, result in verdicts(sys.argv[1], sys.argv[2], ATTACKS).items()}))
