"""Which kernel calls a program may make: a short list of harmless ones, some of them only with harmless arguments.

All else is refused with EPERM, so what a later kernel adds is refused too. A call in another machine's numbering (32
bit on a 64-bit processor, x32) ends the process. Standard library only: the child's side imports this.

Refusing what is not listed, rather than listing what is dangerous, leaves a program no way to a file but ``open``,
which Landlock judges; none to a process but threads of its own; none to a socket but a connected pair.
"""

from __future__ import annotations

import ctypes
import struct

CALLS = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, close 3 57, lseek 8 62,
open 2 -, openat 257 56, stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291, access 21 -,
faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17,
dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19,
mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, membarrier 324 283,
futex 202 98, set_robust_list 273 99, get_robust_list 274 100, set_tid_address 218 96, rseq 334 293, arch_prctl 158 -,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, setitimer 38 103, getitimer 36 102, alarm 37 -, restart_syscall 219 128,
nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -,
times 100 153, getrusage 98 165, getrlimit 97 163, sched_yield 24 124, sched_getaffinity 204 123, sysinfo 99 179,
uname 63 160, umask 95 166, getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -, getuid 102 174,
geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158, getrandom 318 278, exit 60 93, exit_group 231 94,
recvfrom 45 207, shutdown 48 210, getsockopt 55 209
"""
"""Name, number on x86_64, number on aarch64 of every call that is allowed whatever its arguments."""

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's own names of the numberings that are known here."""

OWN = 0xFFFF_FFF1
"""Stands for the process's own id until there is one; far above the largest id there can be."""

JUDGED: dict[str, tuple[int, int, tuple[tuple[int, tuple[int, ...]], ...]]] = {
    "clone": (56, 220, ((0, (0x3D0F00, 0x7D0F00)),)),  # as glibc and musl make a thread: never a process
    "kill": (62, 129, ((0, (OWN,)),)),
    "tgkill": (234, 131, ((0, (OWN,)),)),
    "prlimit64": (302, 261, ((0, (0, OWN)), (4, (0,)), (5, (0,)))),  # may look, not set
    "fcntl": (72, 25, ((2, (0, 1, 2, 3, 4, 1030, 1032)),)),  # no owner, no locks: F_SETOWN signals others
    "ioctl": (16, 29, ((2, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C542A)),)),
    "socketpair": (53, 199, ((0, (1,)), (2, (1, 0x801, 0x80001, 0x80801)))),  # UNIX streams, for event loops
    "sendto": (44, 206, ((8, (0,)), (9, (0,)))),  # to its other end, to no address
}
"""Calls allowed with these arguments only: numbers, then (word, values); argument n is words 2n (low) and 2n+1."""

_NO_SUCH_CALL = 435
"""clone3: its flags lie in memory, which no filter can read. libc falls back to clone where it does not exist."""
_LATER = 440
"""Calls from this number on are new: a libc that uses one falls back where it does not exist, as it is told here."""

_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x4000_0000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

LIBC = ctypes.CDLL(None, use_errno=True)

Code = list[bytes]


def numbers(machine: str) -> dict[str, int]:
    """Name -> number of the calls allowed whatever their arguments."""
    rows = (row.split() for row in CALLS.replace("\n", " ").split(","))
    columns = {name: (on_x86, on_arm)[machine == "aarch64"] for name, on_x86, on_arm in rows}
    return {name: int(number) for name, number in columns.items() if number != "-"}


def assembled(machine: str) -> bytes:
    """The filter for ``machine`` (``platform.machine()``), ``OWN`` still in it. Raises KeyError for an unknown one."""
    code = [_step(_LOAD, _MACHINE_AT), _step(_EQUAL, MACHINES[machine], yes=1), _step(_RETURN, _KILL)]
    code += [_step(_LOAD, _NUMBER_AT)]
    if machine == "x86_64":
        code += [_step(_AT_LEAST, _X32, no=1), _step(_RETURN, _KILL)]
    for number in numbers(machine).values():
        code += _when(number, [_step(_RETURN, _ALLOW)])
    for on_x86, on_arm, conditions in JUDGED.values():
        code += _when(on_arm if machine == "aarch64" else on_x86, _judging(conditions))
    code += _when(_NO_SUCH_CALL, [_step(_RETURN, _ERRNO | _ENOSYS)])
    code += [_step(_AT_LEAST, _LATER, no=1), _step(_RETURN, _ERRNO | _ENOSYS), _step(_RETURN, _ERRNO | _EPERM)]
    return b"".join(code)


def install(code: bytes, pid: int) -> None:
    """Hold this process to the filter, for good; it must have given up new privileges. Raises OSError."""
    code = code.replace(struct.pack("=I", OWN), struct.pack("=I", pid))
    steps = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(steps))
    if LIBC.prctl(_PR_SET_SECCOMP, _MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; of a comparison, ``yes`` and ``no`` are how many to skip."""
    return struct.pack("=HBBI", code, yes, no, value)


def _when(number: int, then: Code) -> Code:
    return [_step(_EQUAL, number, no=len(then)), *then]


def _judging(conditions: tuple[tuple[int, tuple[int, ...]], ...]) -> Code:
    """Refuse unless every word is one of its values."""
    code: Code = []
    for word, values in conditions:
        code.append(_step(_LOAD, _ARGUMENTS_AT + 4 * word))
        code += [_step(_EQUAL, value, yes=len(values) - place) for place, value in enumerate(values)]
        code.append(_step(_RETURN, _ERRNO | _EPERM))
    return [*code, _step(_RETURN, _ALLOW)]
