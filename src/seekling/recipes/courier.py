"""Brings weights into a vLLM server, GPU to GPU: ``python courier.py SOCKET``, in vLLM's own environment, not in ours.

It needs that environment's vllm, torch and safetensors, and nothing of seekling: this file runs as it stands, and vLLM
is imported where it is needed. What travels between the two processes is vLLM's affair (its trainer's side); what is
sent when, is told over the Unix socket SOCKET, one JSON object a line:

    it says when it is there       {"version"}
    the first line that it reads   {"backend", "url", "timeout_s", "gpu", "world_size", "address", "port", "folder"}
    and each one after that        {"folder"}: a model folder whose tensors the server shall have
    it answers to each             {"tensors", "bytes"}: what was sent, zeros for the first
    or, for whatever went wrong    {"fault"}: in words; then it ends

It ends too when the socket is closed. A send that hangs is for the other end to give up: kill this process.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_TRANSFER = "vllm.distributed.weight_transfer"
LEAST_BUFFER_BYTES = 2**30
"""What vLLM's own default is; no tensor may be larger than the buffer where memory is shared (IPC)."""
MOST_WORDS = 600

Told = Mapping[str, Any]


class Handed:
    """The tensors of ``folder``, as vLLM's trainer asks for them (its ``WeightSource``). Every hand-over has its own.

    Files are mapped, not read: a tensor's bytes are touched when it goes to ``device``.
    """

    def __init__(self, meta: Callable[..., Any], device: str) -> None:
        self.meta, self.device, self.folder = meta, device, Path()
        self.sent: list[int] = []

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors in an order that stays the same."""
        safe_open = import_module("safetensors").safe_open
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                for name in sorted(opened.keys()):
                    yield name, opened.get_tensor(name)

    def metadata(self) -> list[Any]:
        """What iteration will yield: name, dtype, shape."""
        return [self.meta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        self.sent = []
        for name, tensor in self.tensors():
            yield name, tensor.to(self.device)
            self.sent.append(tensor.nbytes)  # whoever asked came back for more, or for the end


def main(place: str) -> int:
    """Serve whoever listens at ``place``, until it leaves. Returns the exit status."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(place)
        with line.makefile("r", encoding="utf-8") as asked:
            try:
                for answer in answers(json.loads(told) for told in asked):
                    _say(line, answer)
            except Exception as error:  # whatever it is, the other end must hear of it
                traceback.print_exc()
                _say(line, {"fault": words_of(error)})
                return 1
    return 0


def answers(asked: Iterable[Told]) -> Iterator[dict[str, Any]]:
    """One for being there, then one for each that is asked. Raises whatever vLLM does."""
    transfer = import_module(WEIGHT_TRANSFER)
    yield {"version": str(import_module("vllm").__version__)}
    source, send = None, None
    for told in asked:
        if source is None or send is None:
            source, send = join(transfer, told)
            yield {"tensors": 0, "bytes": 0}
        else:
            source.folder = Path(told["folder"])
            send()
            yield {"tensors": len(source.sent), "bytes": sum(source.sent)}


def join(transfer: Any, told: Told) -> tuple[Handed, Callable[[], None]]:
    """Meet the server's workers. Returns what will be sent, and what sends it."""
    platform = import_module("vllm.platforms").current_platform
    source = _source(transfer, device_of(platform, told["gpu"]))
    source.folder = Path(told["folder"])
    engine = transfer.WeightTransferTrainerFactory.trainer_init(
        init_info=INFOS[told["backend"]](told, source),
        client=transfer.HTTPVLLMWeightSyncClient(told["url"], timeout=told["timeout_s"]),
        source=source,
    )

    def send() -> None:
        engine.send_weights()
        platform.empty_cache()  # whoever shares this GPU has use for it

    return source, send


def device_of(platform: Any, gpu: int) -> str:
    """The GPU of that number, made the current one. Raises ValueError where there are fewer."""
    device, count = f"{platform.device_type}:{gpu}", platform.device_count()
    if gpu >= count:
        raise ValueError(f"a GPU is needed beside the {gpu} that vLLM samples on, and {count} can be seen")
    platform.set_device(import_module("torch").device(device))
    return device


def _source(transfer: Any, device: str) -> Handed:
    """``Handed`` as a subclass of vLLM's own class, which is not there before vLLM is imported."""
    made: Handed = type("Source", (Handed, transfer.WeightSource), {})(transfer.ParamMeta, device)
    return made


def _nccl(told: Told, source: Handed) -> Any:
    room = import_module(f"{WEIGHT_TRANSFER}.nccl_engine")
    return room.NCCLTrainerInitInfo(
        master_address=told["address"], master_port=told["port"], world_size=told["world_size"], rank=0, packed=True
    )


def _ipc(told: Told, source: Handed) -> Any:
    """In chunks, so that the GPU never holds the model twice over."""
    room = import_module(f"{WEIGHT_TRANSFER}.ipc_engine")
    largest = max(tensor.nbytes for _, tensor in source.tensors())
    return room.IPCTrainerInitInfo(rank=0, packed=True, packed_buffer_size_bytes=max(LEAST_BUFFER_BYTES, largest))


INFOS: Mapping[str, Callable[[Told, Handed], Any]] = {"nccl": _nccl, "ipc": _ipc}


def words_of(error: Exception) -> str:
    """An error in a line, with what the server said where a request carries its answer."""
    said = getattr(getattr(error, "response", None), "text", "")
    return " ".join(f"{type(error).__name__}: {error} {said}".split())[:MOST_WORDS]


def _say(line: socket.socket, answer: Told) -> None:
    line.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a thread of vLLM's may wait for ever for a worker that is gone, and Python would wait for it
