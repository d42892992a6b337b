"""Hostile programs that prove the box before it serves: each tries one way out, and says whether it got there.

None does harm where it succeeds: it forks once, connects to a socket that waits for it, writes into a folder made for
it, signals with signal 0. ``act`` is Python that returns something true when it is out, and anything false, or raises
OSError or MemoryError, when it is held. Whatever else happens, a mistake in a canary included, does not count as held.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seekling.records import Verdict
from seekling.verify.sandbox.limits import Layer, Limits

PRELUDE = """
import ctypes, errno, os, platform, resource, signal, socket, sys, threading, time

def call(on_x86, on_arm, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    number = on_arm if platform.machine() == "aarch64" else on_x86
    result = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return result, ctypes.get_errno() if result < 0 else 0

def reached(*numbers_and_arguments):
    "Whether the kernel looked at a call at all: a refusal by rule is EPERM, a call that is not there ENOSYS."
    return call(*numbers_and_arguments)[1] not in (errno.EPERM, errno.ENOSYS)

def escape(bait):
    try:
        return bool(act(bait))
    except (OSError, MemoryError):
        return False
"""


@dataclass(frozen=True, slots=True)
class Canary:
    """``ends`` are the verdicts, beside its own False, that say it was held."""

    name: str
    layer: Layer
    act: str
    ends: tuple[Verdict, ...] = ()

    @property
    def program(self) -> str:
        """The whole program, to be called as ``escape(bait)``."""
        body = "".join(f"    {line}\n" for line in self.act.strip().splitlines())
        return f"{PRELUDE}\ndef act(bait):\n{body}"


def _kernel(name: str, on_x86: int, on_arm: int, *arguments: int) -> Canary:
    numbers = ", ".join(str(number) for number in (on_x86, on_arm, *arguments))
    return Canary(f"kernel: {name}", Layer.SECCOMP, f"return reached({numbers})")


_NOWHERE = 2**40
"""An address where nothing is: a call that is looked at fails there, and does nothing."""

FILES = (
    Canary("read /etc/passwd", Layer.LANDLOCK, "return open('/etc/passwd').read()"),
    Canary("read a file of the user's", Layer.LANDLOCK, "return open(bait['folder'] + '/secret').read()"),
    Canary("read through a link", Layer.LANDLOCK, "return open(bait['folder'] + '/link').read()"),
    Canary("list a folder", Layer.LANDLOCK, "return os.listdir(bait['folder'])"),
    Canary("list the root", Layer.LANDLOCK, "return os.listdir('/')"),
    Canary("read its environment from /proc", Layer.LANDLOCK, "return open('/proc/self/status').read()"),
    Canary("read another process's command line", Layer.LANDLOCK,
           "return open(f'/proc/{bait[\"pid\"]}/cmdline').read()"),
    Canary("see other processes", Layer.LANDLOCK, "return [name for name in os.listdir('/proc') if name.isdigit()]"),
    Canary("write a file", Layer.LANDLOCK, "return open(bait['folder'] + '/new', 'w') is not None"),
    Canary("write over a file", Layer.LANDLOCK, "return open(bait['folder'] + '/open', 'r+') is not None"),
    Canary("empty a file", Layer.LANDLOCK, "return os.open(bait['folder'] + '/open', os.O_WRONLY | os.O_TRUNC)"),
    Canary("write into shared memory files", Layer.LANDLOCK,
           "return os.open(f'/dev/shm/{bait[\"name\"]}', os.O_RDWR | os.O_CREAT)"),
    Canary("make a nameless file", Layer.LANDLOCK, "return os.open(bait['folder'], os.O_TMPFILE | os.O_RDWR)"),
    Canary("make a folder", Layer.SECCOMP, "os.mkdir(bait['folder'] + '/deep')\nreturn True"),
    Canary("remove a file", Layer.SECCOMP, "os.unlink(bait['folder'] + '/doomed')\nreturn True"),
    Canary("rename a file", Layer.SECCOMP,
           "os.rename(bait['folder'] + '/movable', bait['folder'] + '/moved')\nreturn True"),
    Canary("link to a file", Layer.SECCOMP, "os.symlink('/etc/passwd', bait['folder'] + '/passwd')\nreturn True"),
    Canary("make a pipe with a name", Layer.SECCOMP, "os.mkfifo(bait['folder'] + '/fifo')\nreturn True"),
    Canary("change a file's mode", Layer.SECCOMP, "return reached(268, 53, -100, b'', 0)"),
    Canary("set a file's times", Layer.SECCOMP, "return reached(280, 88, -1, 0, 0, 0)"),
    Canary("watch files", Layer.SECCOMP, "return reached(294, 26, 0)"),
)  # fmt: skip

NETWORK = (
    Canary("connect by TCP", Layer.SECCOMP,
           "socket.create_connection(('127.0.0.1', bait['port']), 1).close()\nreturn True"),
    Canary("listen", Layer.SECCOMP, "socket.create_server(('127.0.0.1', 0)).close()\nreturn True"),
    Canary("send by UDP", Layer.SECCOMP,
           "return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', bait['udp']))"),
    Canary("connect to an abstract socket", Layer.SECCOMP,
           "socket.socket(socket.AF_UNIX).connect('\\0' + bait['name'])\nreturn True"),
    Canary("connect to a socket file", Layer.SECCOMP,
           "socket.socket(socket.AF_UNIX).connect(bait['folder'] + '/socket')\nreturn True"),
    Canary("send through a pair to an address", Layer.SECCOMP,
           "one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
           "return one.sendto(b'x', bait['folder'] + '/datagrams')"),
    Canary("ask the kernel by netlink", Layer.SECCOMP, "return socket.socket(16, socket.SOCK_RAW, 0)"),
    Canary("reach the hypervisor", Layer.SECCOMP, "return socket.socket(40, socket.SOCK_STREAM, 0)"),
    Canary("use the kernel's ciphers", Layer.SECCOMP, "return reached(41, 198, 38, 5, 0)"),
)  # fmt: skip

PROCESSES = (
    Canary("be root", Layer.IDENTITY, "return os.geteuid() == 0 or 0 in os.getgroups() or os.getegid() == 0"),
    Canary("become root again", Layer.IDENTITY, "return not call(105, 146, 0)[0]"),
    Canary("fork", Layer.SECCOMP, "child = os.fork()\nif not child: os._exit(0)\nos.waitpid(child, 0)\nreturn True"),
    Canary("start a program", Layer.SECCOMP, "return os.posix_spawn('/bin/true', ['true'], {})"),
    Canary("become another program", Layer.SECCOMP, "return reached(59, 221, 0, 0, 0)"),
    Canary("leave its session", Layer.SECCOMP, "return reached(109, 154, bait['pid'], 0)"),
    Canary("signal another process", Layer.SECCOMP, "return reached(62, 129, bait['pid'], 0)"),
    Canary("signal its own group", Layer.SECCOMP, "return reached(62, 129, 0, 0)"),
    Canary("signal by owning a pipe", Layer.SECCOMP, "import fcntl\nreturn fcntl.fcntl(0, 8, bait['pid']) == 0"),
    Canary("trace another process", Layer.SECCOMP, f"return reached(101, 117, 2, bait['pid'], 0, {_NOWHERE})"),
    Canary("read another process's memory", Layer.SECCOMP, "return reached(310, 270, bait['pid'], 0, 0, 0, 0, 0)"),
    Canary("take another process's descriptors", Layer.SECCOMP, "return reached(438, 438, -1, 0, 0)"),
    Canary("lower its niceness", Layer.SECCOMP, "return reached(141, 140, 0, 0, 0)"),
    Canary("type into a terminal", Layer.SECCOMP, "import fcntl\ntry:\n    fcntl.ioctl(0, 0x5412, b'x')\n"
           "except OSError as error:\n    return error.errno != errno.EPERM\nreturn True"),
    Canary("hold on to life when its parent dies", Layer.SECCOMP, "return reached(157, 167, 1, 0, 0, 0, 0)"),
)  # fmt: skip

RESOURCES = (
    Canary("see the environment", Layer.ENVIRONMENT, "return dict(os.environ)"),
    Canary("find open descriptors", Layer.DESCRIPTORS,
           "for number in range(4, 256):\n    try: os.fstat(number)\n    except OSError: continue\n    return True\n"
           "return False"),
    Canary("take more memory", Layer.RLIMITS, "import mmap\nreturn mmap.mmap(-1, bait['memory_bytes'])"),
    Canary("raise its own limits", Layer.SECCOMP, f"return reached(302, 261, 0, 4, {_NOWHERE}, 0)"),
    Canary("start threads without end", Layer.RLIMITS,
           "import _thread\n_thread.stack_size(2**15)\ngate = _thread.allocate_lock()\ngate.acquire()\n"
           "try:\n    for _ in range(bait['threads']): _thread.start_new_thread(gate.acquire, ())\n"
           "except RuntimeError: return False\n"
           "for _ in range(100):\n    if _thread._count() >= bait['threads']: return True\n    time.sleep(0.01)"),
    Canary("keep memory in a nameless file", Layer.SECCOMP, "return os.memfd_create('x') is not None"),
    Canary("keep memory in System V segments", Layer.SECCOMP, "return reached(29, 194, 0, 0, 0)"),
    Canary("lock memory", Layer.SECCOMP, "return reached(151, 230, 0)"),
    Canary("keep messages in the kernel", Layer.SECCOMP, "return reached(68, 186, 0x7FFFFFFF, 0)"),
    Canary("sleep for ever", Layer.CLOCK, "time.sleep(bait['sleep_s'])\nreturn True", (Verdict.TIMEOUT,)),
    Canary("spin and ignore every signal", Layer.CLOCK,
           "for number in range(1, 65):\n    try: signal.signal(number, signal.SIG_IGN)\n"
           "    except (OSError, ValueError): pass\n"
           "end = time.monotonic() + bait['sleep_s']\nwhile time.monotonic() < end: pass\nreturn True",
           (Verdict.TIMEOUT,)),
    Canary("print without end", Layer.OUTPUT,
           "for _ in range(3):\n    os.write(1, b'x' * bait['output_bytes'])\nreturn True", (Verdict.OUTPUT_LIMIT,)),
    Canary("print errors without end", Layer.OUTPUT,
           "for _ in range(3):\n    os.write(2, b'x' * bait['output_bytes'])\nreturn True", (Verdict.OUTPUT_LIMIT,)),
)  # fmt: skip

KERNEL = (
    _kernel("new namespaces", 272, 97, 0),
    _kernel("enter a namespace", 308, 268, -1, 0),
    _kernel("mount", 165, 40, _NOWHERE, _NOWHERE, _NOWHERE, 0, 0),
    _kernel("change the root", 161, 51, _NOWHERE),
    _kernel("bpf", 321, 280, 0, _NOWHERE, 8),
    _kernel("perf events", 298, 241, _NOWHERE, 0, -1, -1, 0),
    _kernel("user faults", 323, 282, 0x10000),
    _kernel("io_uring", 425, 425, 1, _NOWHERE),
    _kernel("keys", 250, 219, 11, 0, 0, 0, 0),
    _kernel("open by handle", 304, 265, -1, _NOWHERE, 0),
    _kernel("swap", 167, 224, _NOWHERE, 0),
    _kernel("set the clock", 227, 112, 0, _NOWHERE),
    _kernel("personality", 135, 92, 0xFFFFFFFF),
    _kernel("splice user memory", 278, 75, -1, 0, 0, 0),
    _kernel("asynchronous input and output", 206, 0, 0, _NOWHERE),
    _kernel("filters of its own", 317, 277, 1, 0, _NOWHERE),
    _kernel("clone with flags in memory", 435, 435, _NOWHERE, 64),
)

CANARIES = (*FILES, *NETWORK, *PROCESSES, *RESOURCES, *KERNEL)

_SLEEP_S = 0.6
WALL_S = 0.15
"""What canaries of the clock get; they sleep longer."""


@contextmanager
def baited(limits: Limits, threads: int) -> Iterator[dict[str, Any]]:
    """What canaries look for: a folder with files that anybody may write, sockets that wait, a process to signal."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seekling-canary-")))
        folder.chmod(0o777)
        stack.callback(Path("/dev/shm", folder.name).unlink, missing_ok=True)
        for name in ("secret", "open", "doomed", "movable"):
            (folder / name).write_text("bait")
            (folder / name).chmod(0o666)
        (folder / "link").symlink_to(folder / "secret")
        yield _sockets(stack, folder) | {
            "folder": str(folder),
            "pid": os.getpid(),
            "name": folder.name,
            "memory_bytes": limits.memory_bytes,
            "output_bytes": min(limits.output_bytes + 1, 2**20),
            "threads": threads + 1,
            "sleep_s": _SLEEP_S,
        }


def _sockets(stack: ExitStack, folder: Path) -> dict[str, Any]:
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.1", 0))
    for kind, address in (
        (socket.SOCK_STREAM, f"\0{folder.name}"),
        (socket.SOCK_STREAM, str(folder / "socket")),
        (socket.SOCK_DGRAM, str(folder / "datagrams")),
    ):
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        waiting.bind(address)
        if kind == socket.SOCK_STREAM:
            waiting.listen()
        else:
            os.chmod(address, 0o777)
    os.chmod(folder / "socket", 0o777)
    return {"port": tcp.getsockname()[1], "udp": udp.getsockname()[1]}
