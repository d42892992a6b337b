"""vLLM's CPU build as the sampler of a small run: hand-overs proved, the fault of its experts refused and healed.

    .venv/bin/python -m bench.peers.vllm --setup             make .venv-vllm, once
    .venv/bin/python -m bench.peers.vllm_sampler             both, and write bench/results/vllm-sampler.json
    .venv/bin/python -m bench.peers.vllm_sampler --only dense

Some minutes, most of them vLLM's starts: one for the dense model, three for the model with experts.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers.vllm import PLACE, VERSION
from bench.zero_tiny import head
from seekling.recipes.serving import ON_A_CPU
from seekling.remote.vllm import Server
from seekling.runlog.files import read_json, write_json
from seekling.runlog.run import Run, StageFolder
from seekling.workers.tied import Tied

RESULT = Path("bench/results/vllm-sampler.json")
PROGRAM = str((PLACE / "bin/vllm").absolute())
STEPS = {"dense": 5, "experts": 3}
SHAPES = {
    "dense": 'model_type = "qwen3"',
    "experts": 'model_type = "qwen3_moe"\nn_routed_experts = 8\nnum_experts_per_tok = 2\nmoe_intermediate_size = 64',
}
CONTEXT = 128
BY_HAND = ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs", "--max-logprobs", "128"]
MANIFEST = """
format = 1
name = "served"
threads = 1
device = "cpu"

[[stage]]
name = "base"
kind = "pretrain"
task = "arithmetic"
text = { facts = 1.0, qualities = {} }
steps = 20
tokens_per_step = 1024

[stage.model]
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 32
intermediate_size = 128
max_position_embeddings = CONTEXT
SHAPE

[[stage]]
name = "zero"
kind = "grpo"
from = "base"
task = "arithmetic"
steps = STEPS
problems_per_step = 4
rollouts_per_problem = 4
sampling = { max_tokens = 24, temperature = 0.9, top_k = 20, top_p = 0.95 }
objective = "grpo"
packing = { row_tokens = 128 }
held_out_every = 0
sampler = "vllm"
"""


def main() -> None:
    """Run what is asked for, and write the result after each part."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=list(SHAPES))
    only = arguments.parse_args().only
    result = read_json(RESULT) if RESULT.exists() else {}
    for name in [only] if only else list(SHAPES):
        with tempfile.TemporaryDirectory() as folder:
            result |= {name: tried(name, Path(folder))}
        about = head() | {"command": "python -m bench.peers.vllm_sampler", "vllm": VERSION, "dtype": "float32"}
        write_json(RESULT, about | {part: result[part] for part in SHAPES if part in result})
        print(name, result[name])


def tried(name: str, folder: Path) -> dict[str, Any]:
    """A run with a server of its own; before it, where reloading is known to fail, one with somebody else's."""
    text = MANIFEST.replace("SHAPE", SHAPES[name]).replace("STEPS", str(STEPS[name])).replace("CONTEXT", str(CONTEXT))
    (folder / "served.toml").write_text(text)
    refused = {"refused": refusal(folder)} if name == "experts" else {}
    done = run(folder, f"zero.vllm.command='{PROGRAM}'")
    if done.returncode:
        raise SystemExit(f"the run ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    stage = Run(folder / "runs/served").stage("zero")
    told, records = stage.facts()["sampler"], stage.metrics()
    return refused | {
        "steps": len(records), "hand_overs": told["hand_overs"], "restarts": told["restarts"], "limit": told["limit"],
        "worst_difference": told["worst"], "mismatch_kl": max(record.metrics["mismatch_kl"] for record in records),
        "warnings": [line for line in re.findall(r"warning: (.*vLLM.*)", done.stdout) if "starting" not in line],
    }  # fmt: skip


def refusal(folder: Path) -> str:
    """What a run says to a server that it did not start, and whose build reloads experts wrongly."""
    base = run(folder, "zero.vllm.command='no-such-program'")
    if "no-such-program" not in base.stdout + base.stderr:  # it stops after its first stage, for want of a program
        raise SystemExit(base.stdout + base.stderr)
    with somebody(Run(folder / "runs/served").stage("base"), folder) as url:
        done = run(folder, f"zero.sampler='{url}'")
    said = next((line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error:")), "")
    if done.returncode != 2:
        raise SystemExit(f"it was not refused ({done.returncode}):\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return said.removeprefix("error:").strip()


@contextmanager
def somebody(base: StageFolder, folder: Path) -> Iterator[str]:
    """A server with a base model, started by hand as docs/vllm.md says, for whoever comes without a key."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        PROGRAM, "serve", str(base.model.absolute()), "--host", "127.0.0.1", "--port", str(port), *BY_HAND,
        "--dtype", "float32", "--max-model-len", str(CONTEXT), "--enforce-eager",
    ]  # fmt: skip
    program = Tied(command, folder / "somebody.log", {"VLLM_SERVER_DEV_MODE": "1", "HF_HUB_OFFLINE": "1"}, ON_A_CPU)
    server = Server(f"http://127.0.0.1:{port}")
    try:
        while not server.is_healthy():
            if not program.is_alive(0.5):
                raise SystemExit(program.last_words(40))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()
        program.end()


def run(folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """``seekling run`` in a folder."""
    command = [str(Path(sys.executable).with_name("seekling")), "run", "served.toml", *settings]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
