"""The system calls that Python 3.11 has no name for: clone, mount, pivot_root, prctl, capset, and a filter of system calls."""

import ctypes
import os
import platform
import struct

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
ALL_BUT_USER = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
SIGCHLD = 17

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LAST_CAPABILITY = 63

CALLS = {"x86_64": {"clone": 56, "pivot_root": 155, "capset": 126, "unshare": 272, "setns": 308, "clone3": 435},
         "aarch64": {"clone": 220, "pivot_root": 41, "capset": 91, "unshare": 97, "setns": 268, "clone3": 435}}
"""Numbers of the calls that glibc does not wrap. Source: the kernel's syscall tables of these architectures."""

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000      # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with the error's number
EPERM, ENOSYS = 1, 38
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What a filter is told of a call's convention. Source: linux/audit.h."""
OTHER_CONVENTION = 0x40000000
"""From here on, x86_64's numbers are those of its 32-bit pointers."""
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of the filter. Source: linux/bpf_common.h."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _number(name: str) -> int:
    table = CALLS.get(platform.machine())
    if table is None:
        raise OSError(38, f"the numbers of the system calls of {platform.machine()} are not known here")
    return table[name]


def fork_into(flags: int) -> int:
    """Like os.fork, into new namespaces: 0 in the child, which is process 1 where CLONE_NEWPID is among the flags.

    Python's own steps around a fork are taken (locks, a new seed for `random`), glibc's are not: for a process of one thread.
    """
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _libc.syscall(ctypes.c_long(_number("clone")), ctypes.c_ulong(flags | SIGCHLD), None, None, None, None)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _checked(pid, "clone")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    _checked(_libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None),
             f"mount {target}")


def unmount(target: str) -> None:
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(folder: str, old: str) -> None:
    _checked(_libc.syscall(ctypes.c_long(_number("pivot_root")), folder.encode(), old.encode()), "pivot_root")


def set_hostname(name: str) -> None:
    _checked(_libc.sethostname(name.encode(), ctypes.c_size_t(len(name))), "sethostname")


def prctl(option: int, value: int = 0, other: int = 0) -> None:
    _checked(_libc.prctl(option, value, other, 0, 0), f"prctl {option}")


def map_ids(uid: int, gid: int, inside: int) -> None:
    """In a user namespace that was just made: `inside` stands for these ids of the one around it, and nothing else exists."""
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{inside} {uid} 1")
    write("/proc/self/gid_map", f"{inside} {gid} 1")


def write(file: str, text: str) -> None:
    """One write of a small text, which is what the kernel's own files expect."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def drop_capabilities(*, bounding: bool = True) -> None:
    """None is left, none can come back: not by exec of a set-uid file either.

    `bounding`: what exec may give is emptied as well, in 40 calls. With no_new_privs, exec gives nothing whatever stands there.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(LAST_CAPABILITY + 1 if bounding else 0):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break                                   # the kernel knows no such capability, nor a higher one
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)   # version 3, this process
    _checked(_libc.syscall(ctypes.c_long(_number("capset")), header, (ctypes.c_uint32 * 6)()), "capset")


def forbid_namespaces() -> None:
    """No new namespace for this process and all that come from it. For walls that leave user namespaces open; needs no_new_privs.

    `clone3` hides its flags from a filter, so it is not there; the C library then takes `clone`.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise OSError(ENOSYS, f"no filter of system calls is known for {platform.machine()}")
    namespaces = ALL_BUT_USER | CLONE_NEWUSER
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE | EPERM), (LOAD, 0, 0, 0),
               (AT_LEAST, 0, 1, OTHER_CONVENTION), (RETURN, 0, 0, REFUSE | ENOSYS)]
    for name, error in (("unshare", EPERM), ("setns", EPERM), ("clone3", ENOSYS)):
        program += [(EQUAL, 0, 1, _number(name)), (RETURN, 0, 0, REFUSE | error)]
    program += [(EQUAL, 0, 3, _number("clone")), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, namespaces), (RETURN, 0, 0, REFUSE | EPERM),
                (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))
