"""One zygote and the runs in it: started when needed, kept between runs, started anew when it is lost."""

from __future__ import annotations

import json
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import seekling
from seekling.errors import UserError
from seekling.records import Verdict
from seekling.verify.sandbox.cgroup import Group
from seekling.verify.sandbox.jail import jailed
from seekling.verify.sandbox.limits import Layer, Limits, Outcome
from seekling.verify.sandbox.talk import Cut, Lost, Talk
from seekling.verify.sandbox.zygote import MESSAGE_BYTES

PACKAGE_ROOT = str(Path(seekling.__file__).resolve().parents[1])
_BEGIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); from seekling.verify.sandbox.zygote import main; "
    "del sys.path[0], sys.argv[1:]; main()"
)
_FIRST_UID, _UIDS = 60_600, 580
"""Users that no distribution gives away (between those of homes and those of services)."""
_START_S, _GRACE_S = 20.0, 5.0
_TRIES = 2
_OWN_THREADS, _OTHERS_THREADS = 64, 1024
"""Threads a program may have as a user of its own; and beyond those that the user who runs it has by now."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs happen: the ``bwrap`` program to stand a jail around the zygote (or ""), whether in a control group,
    and which layers are left out."""

    bwrap: str = ""
    grouped: bool = True
    without: frozenset[Layer] = frozenset()


@dataclass(frozen=True, slots=True)
class _Zygote:
    process: subprocess.Popen[bytes]
    control: socket.socket
    stderr: IO[bytes]
    group: Group | None
    parent: int


class Cell:
    """Runs one program at a time; threads wait for each other."""

    def __init__(self, limits: Limits, place: Place) -> None:
        self.limits, self.place = limits, place
        self._zygote: _Zygote | None = None
        self._end: weakref.finalize[..., Cell] | None = None
        self._lock = threading.Lock()
        self._fault = ""

    def call(self, program: str, function: str, inputs: Sequence[Any], limits: Limits | None = None) -> list[Outcome]:
        """One outcome for each of ``inputs``, every one a list of arguments, from one fork.

        ``limits`` may be others than the cell's in what is held from outside: wall clock, output and answers.
        """
        encoded = [_encoded(arguments) for arguments in inputs]
        calling = _Work(b"call", b"", lambda talk: _Calling(talk, encoded).all(program, function))
        return self._tried(calling, limits or self.limits) or [self._lost()] * len(inputs)

    def run(self, program: str, stdin: str, limits: Limits | None = None) -> Outcome:
        """A whole program; ``value`` is its exit status. ``limits`` as in ``call``."""
        running = _Work(b"run", stdin.encode("utf-8", "surrogatepass"), lambda talk: [_ran(talk, program)])
        return (self._tried(running, limits or self.limits) or [self._lost()])[0]

    def begin(self) -> None:
        """Start the zygote, if there is none. Raises UserError with its words when it cannot be bound."""
        with self._lock:
            try:
                self._begin()
            except (Lost, OSError) as error:
                raise _no_start(str(error)) from None

    def close(self) -> None:
        """Kill the zygote, if there is one, and whatever runs in it."""
        with self._lock:
            self._drop()

    def threads(self) -> int:
        """How many threads this user's processes may have while a program runs, its own included."""
        return int(_terms(self.limits, self.place)["tasks"])

    def group(self) -> Group | None:
        """The control group that the zygote is in, if it is in one."""
        return self._zygote.group if self._zygote else None

    def _tried(self, work: _Work, limits: Limits) -> list[Outcome] | None:
        """Once more, in a new zygote, when the first is lost; then None."""
        for _ in range(_TRIES):
            with self._lock:
                try:
                    self._begin()
                    assert self._zygote is not None
                    return work.done(self._zygote.control, limits, self.place.without)
                except (Lost, OSError) as error:
                    self._fault = str(error)
                    self._drop()
                except BaseException:  # the zygote is in the middle of something that nobody will hear the end of
                    self._drop()
                    raise
        return None

    def _lost(self) -> Outcome:
        return Outcome(Verdict.INFRA_ERROR, said=f"the sandbox was lost: {self._fault}")

    def _begin(self) -> None:
        if self._zygote is not None and self._zygote.parent == os.getpid():  # a forked copy leaves it alone
            return
        group = Group.make(self.limits.memory_bytes) if self.place.grouped else None
        try:
            self._zygote = _start(self.limits, self.place, group)
        except OSError:
            if group is not None:
                group.remove()
            raise
        self._end = weakref.finalize(self, _kill, self._zygote)
        try:
            self._zygote.control.settimeout(_START_S)
            answer = json.loads(self._zygote.control.recv(MESSAGE_BYTES))
        except (OSError, ValueError):
            raise Lost(_last_words(self._zygote)) from None
        if "letter" in answer:
            self._drop()
            raise _no_start(answer["letter"])

    def _drop(self) -> None:
        if self._end is not None:
            self._end()
        self._zygote = self._end = None


def _no_start(fault: str) -> UserError:
    return UserError(f"the sandbox does not start: {fault}", next_step="Ask: seekling sandbox doctor")


@dataclass(frozen=True, slots=True)
class _Work:
    """What a fork is for, and how to talk with it."""

    kind: bytes
    stdin: bytes
    talk: Callable[[Talk], list[Outcome]]

    def done(self, control: socket.socket, limits: Limits, without: Collection[Layer]) -> list[Outcome]:
        """The run from its fork to its end. Raises Lost, or OSError, when the zygote is gone."""
        talk = Talk(control, limits, self.stdin, without)
        try:
            talk.send_theirs(self.kind)
            return self.talk(talk)
        finally:
            talk.close()


class _Calling:
    """A run that is asked one input at a time, each under an id of its own."""

    def __init__(self, talk: Talk, inputs: Sequence[str]) -> None:
        self.talk, self.inputs = talk, inputs
        self.found: list[Outcome] = []

    def all(self, program: str, function: str) -> list[Outcome]:
        """An outcome for every input; those a program did not live to hear share the reason."""
        try:
            _bound(self.talk)
            loaded = self._asked(f'"program": {json.dumps(program)}, "function": {json.dumps(function)}')
            if loaded.verdict is not None:
                self._rest(loaded)
            while len(self.found) < len(self.inputs):
                self.found.append(self._asked(f'"arguments": {self.inputs[len(self.found)]}'))
        except Cut as cut:
            self._rest(_cut_short(cut, self.talk))
        else:
            self.talk.end(_GRACE_S)
        stdout, stderr = self.talk.said()
        return [Outcome(o.verdict, o.value, o.said, stdout, stderr, o.seconds) for o in self.found]

    def _rest(self, outcome: Outcome) -> None:
        self.found += [outcome] * (len(self.inputs) - len(self.found))

    def _asked(self, question: str) -> Outcome:
        name, start = secrets.token_hex(8), time.monotonic()
        reply = _read(self.talk.ask(f'{{"id": "{name}", {question}}}\n'.encode()), name)
        return _outcome(reply, time.monotonic() - start)


def _encoded(arguments: Any) -> str:
    """Raises UserError for what is no list of JSON values: the caller's mistake, not the program's."""
    try:
        if not isinstance(arguments, list | tuple):
            raise ValueError("an input is a list of arguments")
        return json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"a program cannot be asked this: {error}", where=f"an input of type {type(arguments).__name__}"
        ) from None


def _ran(talk: Talk, program: str) -> Outcome:
    start = time.monotonic()
    try:
        _bound(talk)
        talk.hear_out(json.dumps({"program": program}).encode() + b"\n")
        status = talk.end(_GRACE_S)
        code = os.waitstatus_to_exitcode(int(status["status"]))
        outcome = Outcome(None, code) if code >= 0 else _died(status, talk.limits)
    except Cut as cut:
        outcome = _cut_short(cut, talk)
    return Outcome(outcome.verdict, outcome.value, outcome.said, *talk.said(), time.monotonic() - start)


def _bound(talk: Talk) -> None:
    """Wait until the fork is bound. Whatever goes wrong before that is no fault of the program: it has not come yet."""
    try:
        talk.ask(b"")
    except Cut as cut:
        raise Lost(f"a run could not begin: {cut.said} {talk.end(_GRACE_S)}") from None
    talk.start_clock()


def _read(line: bytes, name: str) -> dict[str, Any]:
    """The reply to the question ``name``. Raises Cut for anything else."""
    try:
        reply = json.loads(line, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError):
        raise Cut(Verdict.POLICY, "it answered with what is no JSON") from None
    if not isinstance(reply, dict) or reply.get("id") != name:
        raise Cut(Verdict.POLICY, "it answered what it was not asked")
    return reply


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(digits)
    return value


def _outcome(reply: dict[str, Any], seconds: float) -> Outcome:
    """What a reply says. A program may claim any error it likes, in whatever shape: none is worth more than another."""
    if "error" not in reply:
        return Outcome(None, reply.get("value"), seconds=seconds)
    verdicts = {"unparsed": Verdict.UNPARSED, "oom": Verdict.OOM, "policy": Verdict.POLICY}
    verdict = verdicts.get(_text(reply.get("kind")), Verdict.WRONG)
    return Outcome(verdict, said=f"{_text(reply['error'])}: {_text(reply.get('words'))}", seconds=seconds)


def _text(value: Any) -> str:
    """A program's words as one line that any log and terminal can show; "" for what is no text."""
    shown = value[:300] if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else " " for letter in shown)


def _cut_short(cut: Cut, talk: Talk) -> Outcome:
    status = talk.end(_GRACE_S)
    if cut.verdict is not None:
        return Outcome(cut.verdict, said=cut.said)
    return _died(status, talk.limits)


def _died(status: dict[str, float], limits: Limits) -> Outcome:
    """Why a program ended that nobody here had ended."""
    code = os.waitstatus_to_exitcode(int(status["status"]))
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and status["cpu_s"] > limits.cpu_s - 0.1):
        return Outcome(Verdict.TIMEOUT, said=f"it used {limits.cpu_s} s of processor time")
    if code == -signal.SIGSYS:
        return Outcome(Verdict.POLICY, said="it made a call that ends a program here")
    if code == -signal.SIGKILL:
        return Outcome(Verdict.OOM, said="it was killed; as a rule that is for memory")
    ended = f"by signal {-code}" if code < 0 else f"with status {code}"
    return Outcome(Verdict.WRONG, said=f"it ended {ended} before it had answered")


def _start(limits: Limits, place: Place, group: Group | None) -> _Zygote:
    """A zygote in ``group`` that has been told its terms."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the zygote
    command = [sys.executable, "-S", "-s", "-P", "-B", "-c", _BEGIN, PACKAGE_ROOT]
    command = jailed(place.bwrap, command, PACKAGE_ROOT) if place.bwrap else command
    environment = {"PYTHONHASHSEED": "0"}  # so that the order of a set, and with it an answer, is the same every time
    with theirs:
        process = subprocess.Popen(
            group.entering(command) if group else command,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=dict(os.environ) | environment if Layer.ENVIRONMENT in place.without else environment,
            start_new_session=True,
        )
    with suppress(OSError):  # gone already: its last words are read in a moment
        mine.send(json.dumps(_terms(limits, place)).encode())
    return _Zygote(process, mine, stderr, group, os.getpid())


def _terms(limits: Limits, place: Place) -> dict[str, Any]:
    is_root = os.geteuid() == 0 and Layer.IDENTITY not in place.without
    uid = _FIRST_UID + secrets.randbelow(_UIDS) if is_root else None  # one each: threads are counted by user
    most = _OWN_THREADS if uid is not None else _OTHERS_THREADS
    return {
        "memory_bytes": limits.memory_bytes,
        "cpu_s": limits.cpu_s,
        "uid": uid,
        "tasks": most + _tasks_of(os.geteuid() if uid is None else uid),
        "without": sorted(place.without),
    }


def _tasks_of(uid: int) -> int:
    """How many threads a user has at the moment; 0 where the system does not tell."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            count += len(os.listdir(folder / "task")) if folder.stat().st_uid == uid else 0
    return count


def _last_words(zygote: _Zygote) -> str:
    with suppress(subprocess.TimeoutExpired):
        zygote.process.wait(_GRACE_S)
    zygote.stderr.seek(0)
    said = zygote.stderr.read().decode("utf-8", "replace").strip().splitlines()
    return said[-1][:300] if said else f"exit status {zygote.process.returncode}"


def _kill(zygote: _Zygote) -> None:
    """End the zygote: closing its socket does that, and kills its fork; SIGKILL follows for one that hangs."""
    if zygote.parent != os.getpid():
        return
    zygote.control.close()
    try:
        zygote.process.wait(1.0)
    except subprocess.TimeoutExpired:
        zygote.process.kill()
        zygote.process.wait()
    zygote.stderr.close()
    if zygote.group is not None:
        zygote.group.remove()
