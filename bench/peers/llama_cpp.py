"""llama.cpp in a folder of its own: built from the sources in llama-cpp-python's package, models written for it.

    .venv/bin/python -m bench.peers.llama_cpp --setup     make .llama-cpp (77 MB fetched; ten minutes of building)

It is never a dependency. ``llama-batched-bench`` reads prompts and decodes without sampling, ids at random: its total
time is what ``bench/rivals.py`` compares. Models are converted by its own script, with no vocabulary.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PLACE = Path(".llama-cpp")
VERSION = "0.3.36"
SOURCE = PLACE / f"llama_cpp_python-{VERSION}/vendor/llama.cpp"
PROGRAM = PLACE / "build/bin/llama-batched-bench"

CONVERT = """
import sys
sys.path.insert(0, sys.argv[1])
import convert_hf_to_gguf as program
from conversion.base import TextModel
def no_vocabulary(self):
    self.gguf_writer.add_tokenizer_model("none")
    self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])
def everyone(kind):
    kind.set_vocab = no_vocabulary
    for each in kind.__subclasses__():
        everyone(each)
folder, target, dtype = sys.argv[2:5]
model = program.get_model_class
def model_class(*given, **named):
    found = model(*given, **named)
    everyone(TextModel)
    return found
program.get_model_class = model_class
sys.argv = ["convert", folder, "--outfile", target, "--outtype", dtype]
program.main()
"""
"""Run next door: their converter, told that there is no tokenizer."""


def main() -> None:
    """Build it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--setup", action="store_true", required=True)
    arguments.parse_args()
    PLACE.mkdir(exist_ok=True)
    if not SOURCE.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "-d", str(PLACE)]
        subprocess.run([*pip, f"llama-cpp-python=={VERSION}"], check=True)
        subprocess.run(["tar", "xzf", *map(str, PLACE.glob("*.tar.gz")), "-C", str(PLACE)], check=True)
    off = ["-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(["cmake", "-B", str(PLACE / "build"), "-S", str(SOURCE), "-DGGML_NATIVE=ON", *off], check=True)
    build = ["cmake", "--build", str(PLACE / "build"), f"-j{os.cpu_count()}"]
    subprocess.run([*build, "--target", "llama-batched-bench", "llama-quantize"], check=True)


def converted(folder: Path, target: Path, dtype: str) -> Path:
    """A model folder as a file that llama.cpp reads, in ``f32``, ``f16``, ``bf16`` or ``q8_0``."""
    command = [sys.executable, "-P", "-c", CONVERT, str(SOURCE.resolve()), str(folder), str(target), dtype]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(f"llama.cpp's converter failed:\n{told.stderr[-2000:]}")
    return target


def measured(file: Path, *, batch: int, prompt: int, new: int, threads: int) -> dict[str, Any]:
    """One run of its benchmark: seconds of reading (``t_pp``), of decoding (``t_tg``), of both (``t``)."""
    context = str(batch * -(-(prompt + new) // 256) * 256)  # it gives each sequence an equal part, in steps of 256
    shape = ["-npp", str(prompt), "-ntg", str(new), "-npl", str(batch), "-c", context, "-b", "2048", "-ub", "512"]
    command = [str(PROGRAM), "-m", str(file), *shape, "-t", str(threads), "-tb", str(threads)]
    command += ["--output-format", "jsonl"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode == -signal.SIGILL:  # it lays eight bits out for tiles (AMX) that it then may not use
        told = subprocess.run([*command, "--no-repack"], capture_output=True, text=True, check=False)
    lines = [line for line in told.stdout.splitlines() if line.startswith("{")]
    if told.returncode or not lines:
        raise SystemExit(f"llama.cpp's benchmark failed:\n{told.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


if __name__ == "__main__":
    main()
