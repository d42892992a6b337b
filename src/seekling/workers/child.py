"""The child's side of a worker: ``python -m seekling.workers.child TARGET MEMORY_BYTES``, then JSON lines.

The first line is the setup, every later one a request. Each is answered by one line: ``{"reply": ...}``, or
``{"letter": [what, where, next_step]}`` for what the target says is wrong (``"full": true`` beside it when memory ran
out).
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO

from seekling.errors import UserError


def main(target: str, memory_bytes: int) -> None:
    """Live until the parent closes the pipe. What the target prints goes nowhere near the replies."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    module, _, function = target.partition(":")
    make = getattr(import_module(module), function)
    _limit("RLIMIT_AS", memory_bytes)
    _limit("RLIMIT_CORE", 0)
    answers: list[Callable[[Any], Any]] = []

    def answer(line: Any) -> Any:
        _limit("RLIMIT_CPU", math.ceil(time.process_time() + line["cpu_s"]))
        if answers:
            return answers[0](line["body"])
        answers.append(make(line["body"]))
        return None

    for line in sys.stdin.buffer:
        _write(replies, _outcome(answer, line))


def _outcome(answer: Callable[[Any], Any], line: bytes) -> dict[str, Any]:
    try:
        return {"reply": answer(json.loads(line))}
    except UserError as error:
        return {"letter": [error.what, error.where, error.next_step]}
    except MemoryError:
        return {"letter": ["a worker ran out of the memory it may use", "", ""], "full": True}
    except Exception as error:  # whatever it is, the parent must hear of it: silence would look like a crash
        return {"letter": ["a worker failed", f"{type(error).__name__}: {error}"[:300], ""]}


def _write(replies: BinaryIO, outcome: dict[str, Any]) -> None:
    replies.write(json.dumps(outcome).encode() + b"\n")
    replies.flush()


def _limit(name: str, value: int) -> None:
    """Set a soft limit where the system has it; elsewhere the parent's clock remains."""
    with suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        kind = getattr(resource, name)
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
