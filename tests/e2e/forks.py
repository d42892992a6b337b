"""Runs of the command line as real processes at the cost of a fork: a helper imports torch once, children fork from it.

A child behaves as ``seekling ARGV`` in a folder of its own, its output in files, and can be told to meet misfortune
at an exact place (``Misfortune``): a kill between two writes, half a line on the disk, a full disk, another user.
Requests and answers are JSON lines over pipes; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[int, Any] = MappingProxyType({})
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Misfortune:
    """What befalls a child. ``at`` names a kind of moment, ``number`` which one of that kind, counted from 1.

    Moments: step (a step was logged), line (any JSONL line), journal (a line of rollouts.jsonl), checkpoint (a file
    or rename of a checkpoint), export (a file of a finished model), sample (rollouts drawn to learn from), eval (or to
    evaluate), sync (anything the disk is waited for), update (an optimizer has changed the weights).
    ``how``: before or after the moment; torn leaves half of what was to be written.

    A disk that is full stays full. An ordinary user has two ways to one: ``room``, from the moment on no file grows
    beyond so many bytes and what is written is cut there by the system itself (RLIMIT_FSIZE: EFBIG); or ``fails``
    with "ENOSPC" at sync, where file systems that allocate late say it.
    """

    at: str = ""
    number: int = 1
    how: str = "before"
    send: int = signal.SIGKILL
    again: bool = False  # the signal twice, one after the other
    user: int = 0  # run as this user
    file_bytes: int = 0  # RLIMIT_FSIZE from the start
    room: int = 0  # RLIMIT_FSIZE from the moment on, in place of a signal
    fails: str = ""  # an errno's name to raise from the moment on, in place of a signal
    breaks: bool = False  # a weight becomes NaN, in place of a signal


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (negative: killed by that signal), its output, what its probes counted."""

    code: int
    out: str
    err: str
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """Everything it said."""
        return self.out + self.err


class Forks:
    """The helper process, and children forked from it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.running: set[int] = set()  # children that nobody has waited for
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200"}
        for name in ("FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE"):
            environment.pop(name, None)
        self.helper = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(
        self,
        argv: Sequence[str],
        cwd: Path,
        misfortune: Misfortune | None = None,
        environment: Mapping[str, str] | None = None,
        call: str = "",
    ) -> Child:
        """Fork a child and return at once. ``call`` names ``module:function`` to run in the command line's place."""
        self.count += 1
        files = {name: str(self.folder / f"{self.count}.{name}") for name in ("out", "err", "counts")}
        asked = {
            "argv": list(argv), "cwd": str(cwd), "misfortune": asdict(misfortune or Misfortune()), **files,
            "environment": dict(environment or {}), "call": call,
        }  # fmt: skip
        child = Child(self, int(self._ask(asked)["pid"]), files)
        self.running.add(child.pid)
        return child

    def crew(
        self, argv: Sequence[str], cwd: Path, size: int, misfortunes: Mapping[int, Misfortune] = NOTHING, call: str = ""
    ) -> list[Child]:
        """Fork children that work together, as torchrun would start them: nobody watches over them."""
        for module in ("seekling.learn.parallel.ranks", "torch._dynamo"):  # which FSDP's hooks import, for seconds
            self._ask({"import": module})
        self.count += 1
        meet = {"SEEKLING_MEET": f"file://{self.folder}/{self.count}.meet", "WORLD_SIZE": str(size)}
        return [
            self.start(argv, cwd, misfortunes.get(rank), {**meet, "RANK": str(rank), **LOOPBACK}, call)
            for rank in range(size)
        ]

    def run_crew(self, argv: Sequence[str], cwd: Path, size: int, call: str = "") -> list[Ended]:
        """Fork children that work together and wait for the end of all."""
        return [child.wait() for child in self.crew(argv, cwd, size, call=call)]

    def run(self, argv: Sequence[str], cwd: Path, misfortune: Misfortune | None = None) -> Ended:
        """Fork a child and wait for its end."""
        return self.start(argv, cwd, misfortune).wait()

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self.helper.stdin is not None and self.helper.stdout is not None
        self.helper.stdin.write(json.dumps(request) + "\n")
        self.helper.stdin.flush()
        answer = self.helper.stdout.readline()
        assert answer, "the helper process has ended"
        return json.loads(answer)

    def close(self) -> None:
        """End the helper, and what a test that failed left running."""
        for pid in self.running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.helper.stdin is not None and self.helper.stdout is not None
        self.helper.stdin.close()
        self.helper.stdout.close()
        self.helper.wait(10)


class Child:
    """A running child."""

    def __init__(self, forks: Forks, pid: int, files: Mapping[str, str]) -> None:
        self.forks, self.pid, self.files = forks, pid, files

    def send(self, number: int) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = 60) -> Ended:
        """Wait for its end; one that takes longer is killed and fails the test."""
        code = self.forks._ask({"wait": self.pid, "timeout_s": timeout_s})["code"]
        if code is None:
            self.send(signal.SIGKILL)
            self.forks._ask({"wait": self.pid, "timeout_s": 10})
        self.forks.running.discard(self.pid)
        text = {name: Path(file).read_text() if Path(file).exists() else "" for name, file in self.files.items()}
        assert code is not None, f"no end after {timeout_s} s:\n{text['out']}{text['err']}"
        return Ended(code, text["out"], text["err"], json.loads(text["counts"] or "{}"))

    def wait_for(self, text: str, timeout_s: float = 20) -> None:
        """Wait until it has said ``text``."""
        end = time.monotonic() + timeout_s
        while not any(text in Path(self.files[name]).read_text() for name in ("out", "err")):
            assert time.monotonic() < end, f"never said {text!r}"
            time.sleep(0.005)


# The rest runs in the helper and its children.


def serve() -> None:
    """Answer requests until stdin ends."""
    _import_all()
    for line in sys.stdin:
        request = json.loads(line)
        if "import" in request:
            import_module(request["import"])
            print("{}", flush=True)
            continue
        answer = _reap(request) if "wait" in request else {"pid": _fork(request)}
        print(json.dumps(answer), flush=True)


def _import_all() -> None:
    import torch

    import seekling.cli.asking
    import seekling.cli.doctor
    import seekling.cli.main
    import seekling.cli.running
    import seekling.recipes.control
    import seekling.recipes.evaluate
    import seekling.recipes.gathering
    import seekling.recipes.grpo
    import seekling.recipes.pretrain
    import seekling.recipes.reward_model
    import seekling.recipes.sft  # noqa: F401

    torch.optim.AdamW([torch.zeros(1)], fused=True)  # the first optimizer imports a thousand modules


def _reap(request: Mapping[str, Any]) -> dict[str, int | None]:
    end = time.monotonic() + request["timeout_s"]
    while True:
        pid, status = os.waitpid(request["wait"], os.WNOHANG)
        if pid:
            return {"code": os.waitstatus_to_exitcode(status)}
        if time.monotonic() > end:
            return {"code": None}
        time.sleep(0.002)


def _fork(request: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _child(request)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _child(request: Mapping[str, Any]) -> int:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR | (0 if stream == 0 else os.O_CREAT), 0o644), stream)
    os.chdir(request["cwd"])
    misfortune = Misfortune(**request["misfortune"])
    _limit(misfortune)
    counts: dict[str, int] = {}
    _probe(misfortune, counts)
    os.environ.update(request["environment"])
    if request["call"]:
        return _call(request["call"], request["argv"], request["counts"])
    sys.argv = ["seekling", *request["argv"]]
    from seekling.cli.main import main

    try:
        main()
    finally:
        with suppress(OSError):
            Path(request["counts"]).write_text(json.dumps(counts))
    return 0


def _leave_room(num_bytes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def _call(name: str, argv: Sequence[str], counts: str) -> int:
    """What a function of the tests returns, as JSON in the place of counts."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    module, _, function = name.partition(":")
    Path(counts).write_text(json.dumps(getattr(import_module(module), function)(*argv)))
    return 0


def _limit(misfortune: Misfortune) -> None:
    if misfortune.file_bytes:
        _leave_room(misfortune.file_bytes)
    if misfortune.user:
        os.setgid(misfortune.user)
        os.setuid(misfortune.user)


def _probe(misfortune: Misfortune, counts: dict[str, int]) -> None:
    """Watch the places where a run touches the disk, the sampler or the weights."""
    from seekling.learn.optim import Optimizers
    from seekling.recipes import evaluate, policy, scenes
    from seekling.recipes.stage import Stage
    from seekling.runlog import files

    strike = _striker(misfortune, counts)
    append, rename, replace, sample, log, sync, update = (
        files.Lines.append, Path.rename, Path.replace, policy.sample_groups, Stage.log, os.fsync, Optimizers._update,
    )  # fmt: skip

    def appended(self: Any, record: Any, **options: Any) -> None:
        def half() -> None:
            self._handle.write(json.dumps(record).encode()[: len(json.dumps(record)) // 2])
            self._handle.flush()

        moments = ["line", *(["journal"] if self.file.name == "rollouts.jsonl" else [])]
        strike(moments, lambda: append(self, record, **options), half)

    def moved(original: Any) -> Any:
        def move(self: Path, target: Any) -> Any:
            where = "checkpoint" if "checkpoints" in self.parts else "export" if self.parent.name == "model" else "file"

            def half() -> None:
                if self.is_file():
                    os.truncate(self, self.stat().st_size // 2)

            return strike([where], lambda: original(self, target), half)

        return move

    def sampled(moment: str) -> Any:
        return lambda *given, **options: strike([moment], lambda: sample(*given, **options), lambda: None)

    def updated(self: Any, step: int) -> None:
        update(self, step)
        strike(["update"], lambda: None, lambda: None, next(iter(self.names)).data)

    def logged(*given: Any, **options: Any) -> Any:
        return strike(["step"], lambda: log(*given, **options), lambda: None)

    files.Lines.append = appended  # type: ignore[method-assign]
    Path.rename, Path.replace = moved(rename), moved(replace)  # type: ignore[method-assign]
    scenes.sample_groups, evaluate.sample_groups = sampled("sample"), sampled("eval")
    Stage.log, Optimizers._update = logged, updated  # type: ignore[method-assign]
    os.fsync = lambda handle: strike(["sync"], lambda: sync(handle), lambda: None)


def _striker(misfortune: Misfortune, counts: dict[str, int]) -> Any:
    def strike(moments: Sequence[str], act: Any, half: Any, weight: Any = None) -> Any:
        for moment in moments:
            counts[moment] = counts.get(moment, 0) + 1
        count = counts[misfortune.at] if misfortune.at in moments else 0
        is_due = count == misfortune.number or bool(misfortune.fails and count > misfortune.number)
        if is_due and misfortune.how != "after":
            if misfortune.how == "torn":
                half()
            _befall(misfortune, weight)
        result = act()
        if is_due and misfortune.how == "after":
            _befall(misfortune, weight)
        return result

    return strike


def _befall(misfortune: Misfortune, weight: Any) -> None:
    if misfortune.fails:
        import errno

        number = getattr(errno, misfortune.fails)
        raise OSError(number, os.strerror(number))
    if misfortune.room:
        return _leave_room(misfortune.room)
    if misfortune.breaks:
        weight[..., 0] = float("nan")
        return None
    os.kill(os.getpid(), misfortune.send)
    if misfortune.again:
        os.kill(os.getpid(), misfortune.send)
    return None


if __name__ == "__main__":
    # Under its own name, so that Misfortune is one class: this file is no part of an installed package.
    serve()
