"""Weights sent to a vLLM server of our own GPU to GPU, by a courier that lives in vLLM's environment.

The folder of a hand-over is written as ever, and is what a server starts with when sending fails. What vLLM's trainer
needs (vllm itself, its torch) stands in ``courier.py``, which runs under the Python beside the ``vllm`` program.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seekling.engine.config import Vllm
from seekling.errors import UserError
from seekling.remote.vllm import Server
from seekling.runlog.files import disk_error
from seekling.workers.tied import Tied

COURIER = Path(__file__).with_name("courier.py")
LOG = "courier.log"
HERE = "127.0.0.1"
DIRECTLY = {"NO_PROXY": f"{HERE},localhost", "no_proxy": f"{HERE},localhost", "VLLM_NO_USAGE_STATS": "1"}
"""No proxy stands between this machine and itself."""
LOOK_EVERY_S = 0.2
INSTEAD = 'vllm.transfer = "folder" goes without.'
UNPICKLED = (
    'with vllm.transfer = "ipc" this server unpickles what any process of this machine sends to its port: use it where'
    " nobody else works"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A way that weights go: ``after`` names one in a sentence, ``errs`` what a build does that does it wrongly.

    ``arguments`` and ``environment`` are the server's; ``apart``: the courier needs a GPU beside the server's.
    """

    after: str
    errs: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    apart: bool = False
    warning: str = ""


def _sent(name: str, backend: str, **how: Any) -> Kind:
    configured = ("--weight-transfer-config", json.dumps({"backend": backend}))
    return Kind(f"a transfer by {name}", f"takes these weights wrongly by {name}", configured, **how)


KINDS: Mapping[str, Kind] = {
    "folder": Kind("a reload", "reloads these weights wrongly"),
    "nccl": _sent("NCCL", "nccl", apart=True),
    "ipc": _sent(
        "CUDA IPC", "ipc", environment={"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}, warning=UNPICKLED
    ),
}  # fmt: skip


class Unsent(UserError):
    """Weights did not reach the server, which may be left waiting for them: neither it nor the courier is of use."""


def refuse_unfit(config: Vllm, program: str, *, cpu: bool) -> None:
    """Raises UserError where weights cannot be sent as the manifest has it: no GPU, or no Python beside ``program``."""
    if config.transfer == "folder":
        return
    if cpu:
        raise UserError(
            f'vllm.transfer = "{config.transfer}" sends weights from GPU to GPU, and this stage is on a CPU',
            where="vllm.transfer",
            next_step=INSTEAD,
        )
    python_beside(program)


def python_beside(program: str) -> str:
    """The Python of the environment that a program was installed in. Raises UserError when there is none."""
    for folder in (Path(program).resolve().parent, Path(program).parent):  # behind a link, then before it
        for name in ("python", "python3"):
            if (folder / name).exists():
                return str(folder / name)  # not resolved: a link is how Python knows its environment
    raise UserError(
        f'there is no Python beside "{program}", so nothing can be sent from its environment',
        where="vllm.command",
        next_step=f"Name the program in the environment's own folder (.venv-vllm/bin/vllm). {INSTEAD}",
    )


class Transfer:
    """A courier, and the one server that it joins. Both are of no further use once it raises ``Unsent``."""

    def __init__(self, config: Vllm, program: str, folder: Path) -> None:
        """Start it: it makes ready beside the server's own start. Its log is in ``folder``."""
        self.kind, self._config, self._log = KINDS[config.transfer], config, folder / LOG
        self._home = tempfile.TemporaryDirectory(prefix="seekling-")  # nobody else may come in
        self._door, self._said = socket.socket(socket.AF_UNIX), b""
        self._line: socket.socket | None = None
        place = str(Path(self._home.name) / "door")
        try:
            self._door.bind(place)
            self._door.listen(1)
            self._door.settimeout(LOOK_EVERY_S)
            self._program = Tied([python_beside(program), "-P", str(COURIER), place], self._log, DIRECTLY)
        except OSError as error:
            self._leave()
            raise disk_error(self._log, error) from None

    def join(self, server: Server, url: str, folder: Path) -> None:
        """Bring courier and server together; ``folder`` is any hand-over's.

        Raises Unsent when its environment has no such vLLM, the GPUs do not suffice, or the server will not.
        """
        self._answer(self._config.start_s)  # it is there
        workers = server.world_size()
        if workers != 1 and not self.kind.apart:
            raise self._fault(f"it reaches the one GPU that it shares, and vLLM samples on {workers}")
        self._ask({
            "backend": self._config.transfer, "url": url, "timeout_s": self._config.timeout_s, "folder": str(folder),
            "gpu": workers if self.kind.apart else 0, "world_size": workers + 1, "address": HERE, "port": free_port(),
        })  # fmt: skip

    def send(self, folder: Path) -> None:
        """Have the server take the tensors of a model folder, all of them. Raises Unsent."""
        sent, held = self._ask({"folder": str(folder)}), sizes_in(folder)
        if (sent.get("tensors"), sent.get("bytes")) != (len(held), sum(held)):
            raise self._fault(f"{sent.get('tensors')} tensors were sent, and {len(held)} were handed over")

    def bring(self, server: Server, folder: Path) -> None:
        """``send`` to a server that says nothing meanwhile, and have it forget all states that others left."""
        self.send(folder)
        server.forget()

    def end(self) -> None:
        """End the courier."""
        self._leave()
        self._program.end()

    def _leave(self) -> None:
        for one in (self._door, self._line):
            if one is not None:
                one.close()
        self._home.cleanup()

    # --- what is said ---

    def _ask(self, told: Mapping[str, Any]) -> dict[str, Any]:
        assert self._line is not None
        with suppress(OSError):  # it has ended: reading says so, in its own words
            self._line.sendall(json.dumps(told).encode() + b"\n")
        return self._answer(self._config.timeout_s)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        """The next line. Raises Unsent for a fault, for none in time, and when it has ended."""
        deadline = time.monotonic() + limit_s
        try:
            told = json.loads(self._heard(deadline))
        except TimeoutError:
            raise self._fault(f"nothing within {limit_s:g} s") from None
        except (OSError, ValueError):
            raise self._fault(f"its courier ended: {self._program.last_words()[:300] or 'it said nothing'}") from None
        if not isinstance(told, dict) or "fault" in told:
            raise self._fault(str(told["fault"] if isinstance(told, dict) else told))
        return told

    def _heard(self, deadline: float) -> bytes:
        """A line's bytes; none when the courier has ended."""
        line = self._line = self._line or self._come(deadline)
        while b"\n" not in self._said:
            line.settimeout(max(1e-3, deadline - time.monotonic()))
            more = line.recv(2**16)
            if not more:
                return b""
            self._said += more
        said, _, self._said = self._said.partition(b"\n")
        return said

    def _come(self, deadline: float) -> socket.socket:
        """The courier's connection. Raises TimeoutError, and ConnectionError when it ended before it came."""
        while time.monotonic() < deadline:
            with suppress(TimeoutError):
                line, _ = self._door.accept()
                self._leave()
                return line
            if not self._program.is_alive():
                raise ConnectionError
        raise TimeoutError

    def _fault(self, why: str) -> Unsent:
        return Unsent(
            f"{self.kind.after} failed: {why}",
            where=str(self._log),
            next_step=f"docs/vllm.md says what it needs. {INSTEAD}",
        )


def sizes_in(folder: Path) -> list[int]:
    """Bytes of every tensor in a model folder, as the heads of its files have it."""
    return [
        one["data_offsets"][1] - one["data_offsets"][0]
        for file in sorted(folder.glob("*.safetensors"))
        for name, one in _head(file).items()
        if name != "__metadata__"
    ]


def _head(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        head: dict[str, Any] = json.loads(opened.read(size))
    return head


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as found:
        found.bind((HERE, 0))
        port: int = found.getsockname()[1]
        return port
