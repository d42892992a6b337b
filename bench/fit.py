"""Predicted peaks against measured ones: small stages of every sort, each run in a process of its own. Ten minutes:

    .venv/bin/python -m bench.fit                  (--only NAME ... for some of them)

Writes bench/results/fit.json. Every case is a manifest that runs as a person would run it: a model from nothing, or one
of random weights that is imported, then two or three steps. Measured is the most the process held (``VmHWM``), pages of
code and files left out, above what a run of next to nothing holds; predicted is what ``seekling fit`` says, its runtime
left out. ``share`` is predicted over measured: below 1 it would be a false "fits".

Children run with MALLOC_MMAP_THRESHOLD_ set, so that what is freed is given back; ``left_alone`` are cases run once
more without it, where the allocator keeps a share that no prediction knows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.loading import memory
from bench.zero_tiny import head
from seekling.plan.machine import GIVE_BACK
from seekling.runlog.files import write_json

RESULT = Path("bench/results/fit.json")
LANES = 2
SPEAKS = {"task": {"name": "arithmetic", "sizes": [3, 4]}}
DENSE = {"model_type": "qwen3", "vocab_size": 448, "hidden_size": 384, "num_hidden_layers": 6,
         "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 1024,
         "max_position_embeddings": 256}  # fmt: skip
LATENT = {"model_type": "deepseek_v3", "vocab_size": 448, "hidden_size": 256, "num_hidden_layers": 4,
          "num_attention_heads": 8, "kv_lora_rank": 128, "q_lora_rank": 96, "qk_nope_head_dim": 32,
          "qk_rope_head_dim": 16, "v_head_dim": 32, "intermediate_size": 768, "n_routed_experts": 16,
          "num_experts_per_tok": 2, "moe_intermediate_size": 192, "max_position_embeddings": 256,
          "num_nextn_predict_layers": 1}  # fmt: skip
WIDE = DENSE | {"model_type": "llama", "vocab_size": 64_000, "hidden_size": 256, "num_hidden_layers": 3,
                "intermediate_size": 512, "tie_word_embeddings": True}  # fmt: skip
SPEAKING, LATENT_SPEAKING = DENSE | {"vocab_size": 4096}, LATENT | {"vocab_size": 4096}
"""Of more words: random weights then hardly ever stop, and answers are as long as a prediction must take them to be."""
ADAMW = {"optim": {"matrices": "adamw", "lr": 1e-4}}
PULLED = {"objective": {"preset": "dr_grpo", "entropy": 0.01}, "held_out_every": 0, "kl_every": 0}
"""Rollouts of random weights earn nothing: an entropy bonus has all of them enter the update."""


def grpo(problems: int, rollouts: int, tokens: int, row: int, passes: int, **more: Any) -> dict[str, Any]:
    """A stage of reinforcement: problems, rollouts of each, longest answer, tokens in a row, slices."""
    drawn = {"max_tokens": tokens, **more.pop("sampling", {})}
    return {"kind": "grpo", "steps": 2, **SPEAKS, "problems_per_step": problems, "rollouts_per_problem": rollouts,
            "sampling": drawn, "packing": {"row_tokens": row, "passes": passes}, **PULLED, **more}  # fmt: skip


def text(kind: str, tokens: int, passes: int, **more: Any) -> dict[str, Any]:
    """A stage that learns text: tokens of a step, slices."""
    own = {"text": {"facts": 0.0, "qualities": {"expert": 1.0}}}
    return {"kind": kind, "steps": more.pop("steps", 3), **SPEAKS, **own, "tokens_per_step": tokens,
            "packing": {"row_tokens": 128, "passes": passes, **more.pop("pack", {})}, **more}  # fmt: skip


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "pretrain, dense, adamw, 1 pass": (DENSE, text("pretrain", 4096, 1, **ADAMW), {}),
    "pretrain, dense, adamw, 4 passes": (DENSE, text("pretrain", 8192, 4, **ADAMW), {}),
    "pretrain, dense, checkpointed": (
        DENSE,
        text("pretrain", 8192, 2, steps=8, pack={"checkpoint_activations": True}),
        {},
    ),
    "pretrain, latent experts, muon": (LATENT, text("pretrain", 4096, 2), {}),
    "pretrain, dense, bfloat16": (DENSE, text("pretrain", 4096, 2, **ADAMW), {"dtype": "bfloat16"}),
    "sft, wide vocabulary, chunks": (WIDE, text("sft", 4096, 2, **ADAMW), {}),
    "sft, dense, adapter": (DENSE, text("sft", 4096, 2, adapter={"rank": 8}, **ADAMW), {}),
    "sft, latent experts, muon, 4 passes": (LATENT, text("sft", 4096, 4), {}),
    "grpo, dense, mostly sampling": (SPEAKING, grpo(16, 8, 120, 152, 64, **ADAMW), {}),
    "grpo, dense, adapter": (SPEAKING, grpo(8, 8, 96, 128, 4, adapter={"rank": 8}, **ADAMW), {}),
    "grpo, latent experts, mostly updating": (LATENT_SPEAKING, grpo(8, 8, 64, 96, 2, **ADAMW), {}),
    "grpo, wide vocabulary, top-k": (WIDE, grpo(4, 4, 64, 96, 2, sampling={"top_p": 0.95, "top_k": 50}, **ADAMW), {}),
}
"""Model, stage, head of the manifest."""
ALONE = ["pretrain, dense, adamw, 1 pass", "pretrain, latent experts, muon", "sft, dense, adapter"]
NOTHING = (DENSE | {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                    "head_dim": 8, "intermediate_size": 16}, grpo(2, 2, 8, 64, 1), {})  # fmt: skip
"""The run above which others are measured."""


def main() -> None:
    """Run every case and write the result file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME")
    arguments.add_argument("--alone", nargs="*", default=ALONE, choices=list(CASES), metavar="NAME")
    asked = arguments.parse_args()
    runtime = case(*NOTHING)["held_bytes"]
    rows = {name: compared(name, runtime, returns=True) for name in asked.only}
    alone = {name: compared(name, runtime, returns=False) for name in asked.alone}
    shares = [row["share"] for row in rows.values()]
    about = head() | {"command": "python -m bench.fit", "lanes": LANES, "runtime_bytes": runtime}
    figures = {"cases": rows, "left_alone": alone, "lowest": min(shares), "highest": max(shares),
               "median": statistics.median(shares)}  # fmt: skip
    if asked.only == list(CASES):
        write_json(RESULT, about | figures)


def compared(name: str, runtime: int, *, returns: bool) -> dict[str, Any]:
    """One case's row: predicted, measured, and the one over the other."""
    found = case(*CASES[name], returns=returns)
    predicted, measured = found["predicted_bytes"], found["held_bytes"] - runtime
    share, whole = predicted / measured, found["whole_predicted_bytes"] / found["whole_bytes"]
    said = f"{predicted / 2**20:.0f} MiB predicted, {measured / 2**20:.0f} MiB measured"
    print(f"{name:<40} {said}, share {share:.3f}, of all {whole:.3f}{'' if returns else ', left alone'}", flush=True)
    return {"predicted_bytes": predicted, "measured_bytes": measured, "share": round(share, 3),
            "whole_share": round(whole, 3), "moment": found["moment"]}  # fmt: skip


def case(model: dict[str, Any], stage: dict[str, Any], top: dict[str, Any], *, returns: bool = True) -> dict[str, Any]:
    """What a manifest is said to hold and what it holds, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"from bench.fit import run_; import json; print('FOUND' + json.dumps(run_({folder!r})))"
        (Path(folder) / "case.json").write_text(json.dumps([model, stage, top]))
        make = f"from bench.fit import make_; make_({folder!r})"
        subprocess.run([sys.executable, "-c", make], check=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment |= {"MALLOC_MMAP_THRESHOLD_": str(GIVE_BACK)} if returns else {}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    if not lines:
        raise SystemExit(f"no figures:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return dict(json.loads(lines[-1].removeprefix("FOUND")))


def make_(folder: str) -> None:
    """Write the case's manifest, and the model of random weights that its stage begins with."""
    from seekling.model.config import ModelConfig
    from seekling.model.decoder import Decoder
    from seekling.model.weights import save_model
    from seekling.recipes.manifest import _toml_table
    from seekling.recipes.pretrain import grow_tokenizer
    from seekling.tasks.corpus import Mixture
    from seekling.tasks.registry import build_task

    place = Path(folder)
    model, stage, top = json.loads((place / "case.json").read_text())
    tables = [{"name": "own", **stage}]
    if stage["kind"] == "pretrain":
        tables[0]["model"] = model
    else:
        tables[0]["from"] = "given"
        tables.insert(0, {"name": "given", "kind": "import", "model": str(place / "given")})
        save_model(place / "given", Decoder(ModelConfig(**model)).init_weights(0))
        grow_tokenizer(build_task(SPEAKS["task"]), Mixture(), 448, "bench").save(place / "given")
    written = [_toml_table({"name": "case", "threads": LANES, "device": "cpu", **top})]
    written += ["[[stage]]\n" + _toml_table(table) for table in tables]
    (place / "case.toml").write_text("\n".join(written))


def run_(folder: str) -> dict[str, Any]:
    """Run the case's manifest and look at what the process came to hold."""
    import torch

    from seekling.plan.machine import gives_back
    from seekling.recipes.fitting import Place, fits
    from seekling.recipes.manifest import load_manifest
    from seekling.recipes.pipeline import Watcher, run_manifest

    manifest = load_manifest(f"{folder}/case.toml")
    prediction = list(fits(manifest, Place("cpu", 1e15, LANES, returns=gives_back())))[-1].prediction
    torch.zeros(1)
    before = memory("RssAnon")
    run_manifest(manifest, Path(folder) / "run", Watcher(lambda *_: None, lambda _: None))
    most, runtime = memory("VmHWM"), prediction.parts["runtime"]
    return {
        "held_bytes": most - memory("RssFile") - before, "whole_bytes": most, "moment": prediction.largest,
        "predicted_bytes": round(prediction.peak - runtime), "whole_predicted_bytes": round(prediction.peak),
    }  # fmt: skip


if __name__ == "__main__":
    main()
