"""A vLLM server of our own: started from its own environment beside the stage, and gone when the stage is.

The weights come and go through a folder, so the server stands on the loopback under a key that nobody else is told.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from seekling.engine.config import Vllm
from seekling.errors import UserError
from seekling.recipes.transfer import KINDS, Transfer, free_port
from seekling.remote.vllm import MOST_KEPT, Server
from seekling.remote.wire import Patience
from seekling.runlog.files import disk_error
from seekling.workers.tied import Tied

LOG = "vllm.log"
NO_SLEEP = "Sleep mode is not supported"
"""What vLLM says where its platform cannot give memory back."""
SIGN_EVERY_S = 60.0
ON_A_CPU = {"VLLM_MLA_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
"""vLLM's kernels for latent attention on a CPU take one width only; its cache there would otherwise take half of all
memory. What the environment says stands."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server of ours runs, and for whom: ``cpu`` the stage's device is one, ``context`` tokens (0: its own)."""

    folder: Path
    cpu: bool
    context: int
    warn: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A server that answers, the program behind it, and whether it can sleep. ``transfer`` sends weights to it."""

    server: Server
    program: Tied
    sleeps: bool
    transfer: Transfer | None = None

    def end(self) -> None:
        """End all of them."""
        if self.transfer:
            self.transfer.end()
        self.server.close()
        self.program.end()


def program_of(config: Vllm) -> str:
    """The program's path. Raises UserError when there is none."""
    found = shutil.which(config.command)
    if found is None:
        raise UserError(
            f'there is no program "{config.command}" to sample with',
            where="vllm.command",
            next_step="Make an environment for vLLM alone (python -m venv .venv-vllm; .venv-vllm/bin/pip install vllm)"
            ' and name its program: vllm.command = ".venv-vllm/bin/vllm".',
        )
    return str(Path(found).absolute())


def start(config: Vllm, model: Path, place: Place) -> Started:
    """A server that speaks with ``model``'s weights, ready to answer. Raises UserError with its own last words."""
    sleeps = config.sleeps and not place.cpu
    if warning := KINDS[config.transfer].warning:
        place.warn(warning)
    try:
        return _start(config, model, place, sleeps=sleeps)
    except _CannotSleep:
        place.warn("this build of vLLM cannot give memory back (sleep); it keeps it during updates")
        return _start(config, model, place, sleeps=False)


class _CannotSleep(Exception):
    pass


def _start(config: Vllm, model: Path, place: Place, *, sleeps: bool) -> Started:
    key, port, log = secrets.token_urlsafe(24), free_port(), place.folder / LOG
    environment = {
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        **KINDS[config.transfer].environment,
    }  # fmt: skip
    command = [program_of(config), "serve", str(model), *_arguments(config, place, port, sleeps=sleeps)]
    try:
        program = Tied(command, log, environment, ON_A_CPU if place.cpu else {})
    except OSError as error:
        raise disk_error(log, error) from None
    url = f"http://127.0.0.1:{port}"
    server = Server(url, key=key, at_once=config.at_once, patience=Patience(timeout_s=config.timeout_s))
    started = Started(server, program, sleeps)
    try:
        if config.transfer != "folder":  # its courier makes ready beside the server
            started = replace(started, transfer=Transfer(config, program_of(config), place.folder))
        _wait(started, config, place)
        if started.transfer:
            started.transfer.join(server, url, model)
    except BaseException:
        started.end()
        raise
    return started


def _arguments(config: Vllm, place: Place, port: int, *, sleeps: bool) -> list[str]:
    context = ["--max-model-len", str(place.context)] if place.context else []
    memory = ["--enforce-eager"] if place.cpu else ["--gpu-memory-utilization", str(config.memory)]
    return [
        "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "policy",
        "--dtype", dtype_of(config, cpu=place.cpu), *context, "--generation-config", "vllm",
        "--logprobs-mode", "processed_logprobs", "--max-logprobs", str(MOST_KEPT),
        *memory, *(["--enable-sleep-mode"] if sleeps else []), *KINDS[config.transfer].arguments, *config.arguments,
    ]  # fmt: skip


def dtype_of(config: Vllm, *, cpu: bool) -> str:
    """What a server of ours holds its weights in."""
    return config.dtype if config.dtype != "auto" else "float32" if cpu else "bfloat16"


def _wait(started: Started, config: Vllm, place: Place) -> None:
    """Until it answers; a line a minute says that it still does not."""
    began = sign = time.monotonic()
    while not started.server.is_healthy():
        waited = time.monotonic() - began
        if not started.program.is_alive():
            raise _died(started, place)
        if waited > config.start_s:
            raise UserError(
                f"vLLM did not answer within {config.start_s:g} s of its start",
                where=str(place.folder / LOG),
                next_step="Read what it says there; vllm.start_s is how long it may take.",
            )
        if time.monotonic() - sign > SIGN_EVERY_S:
            sign = time.monotonic()
            place.warn(f"vLLM has been starting for {waited:.0f} s; it says: {started.program.last_words()[:200]}")
        time.sleep(0.2)


def _died(started: Started, place: Place) -> Exception:
    said = started.program.last_words(200)
    if started.sleeps and NO_SLEEP in said:
        return _CannotSleep()
    errors = [line for line in said.splitlines() if "Error" in line] or said.splitlines() or ["it said nothing"]
    return UserError(
        f"vLLM ended before it answered: {errors[-1].strip()[:300]}",
        where=str(place.folder / LOG),
        next_step="Read what it says there; docs/vllm.md names the builds that were tried and what they needed.",
    )
