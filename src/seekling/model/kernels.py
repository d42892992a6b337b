"""kernels.c and learning.c as libraries: built by this machine's C compiler when first asked for, kept for next time.

A build takes about two seconds and lies in the user's cache under a hash of source, flags, compiler and CPU. Nothing is
ever fetched; without a compiler, or where a build fails, there is none, and torch does the same work. Torch-free.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("kernels.c")
LEARNING = Path(__file__).with_name("learning.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
         "-fopenmp", "-shared", "-fPIC")  # fmt: skip
KINDS = {"float32": (), "bfloat16": ("-DBFLOAT16",), "learning": ("-fassociative-math",)}
"""Flags of each library: kernels.c for weights held so, and learning.c, which is told about every tensor."""
LONGEST_BUILD_S = 120

_POINTER, _WHOLE, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_SIGNATURES = {
    "add_norm": (_POINTER, _POINTER, _POINTER, _FLOAT, _POINTER, _WHOLE, _WHOLE, _INT),
    "swiglu": (_POINTER, _POINTER, _WHOLE, _POINTER, _WHOLE, _WHOLE, _INT),
    "write_gqa": (_POINTER,) * 12,
    "attend_gqa": (*(_POINTER,) * 6, _WHOLE, _POINTER, _POINTER),
    "write_mla": (_POINTER, _POINTER, _WHOLE, *(_POINTER,) * 6),
    "attend_mla": (_POINTER, _POINTER, _POINTER, _WHOLE, *(_POINTER,) * 5),
    "choose": (_POINTER, _POINTER, _WHOLE, _POINTER, _POINTER, _POINTER, _INT),
    "experts": (*(_POINTER,) * 5, _WHOLE, _WHOLE, _INT),
    "block": (_POINTER,) * 7,
    "linear": (_POINTER, _POINTER, _WHOLE, _POINTER, _INT),
}
_OF_LEARNING = {
    "norm_there": (_POINTER, _INT, _WHOLE, _POINTER, _INT, _POINTER, _FLOAT, *(_POINTER,) * 3, _WHOLE, _WHOLE, _INT),
    "norm_back": (_POINTER, _POINTER, _POINTER, _INT, _WHOLE, *(_POINTER,) * 5, _WHOLE, _WHOLE, _INT),
    "gate_there": (_POINTER, _POINTER, _WHOLE, _WHOLE, _INT, _INT),
    "gate_back": (_POINTER, _POINTER, _POINTER, _WHOLE, _WHOLE, _INT, _INT),
    "grouped_there": (_POINTER,) * 8,
    "grouped_back": (_POINTER,) * 10,
    "latent_there": (_POINTER,) * 8,
    "latent_back": (_POINTER,) * 8,
    "attend_there": (_POINTER,) * 7,
    "attend_back": (_POINTER,) * 10,
}


def told() -> str:
    """In a word, who does the work between matrix products: it decides bits, so a run that goes on compares it."""
    return "compiled" if library("float32") is not None else "torch"


class NoKernels(Exception):
    """Why there is no library, in words."""


def c_compiler() -> str | None:
    """The C compiler of this machine."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


def source(kind: str) -> Path:
    """What a library is made of."""
    return LEARNING if kind == "learning" else SOURCE


def library(dtype: str) -> ctypes.CDLL | None:
    """The kernels for a model held in ``dtype`` ("float32", "bfloat16"), or for "learning"; None: there are none."""
    try:
        return built(dtype)
    except NoKernels:
        return None


def built(dtype: str) -> ctypes.CDLL:
    """The kernels for a model held in ``dtype``. Raises NoKernels, which says why there are none."""
    found = _found(dtype)
    if isinstance(found, str):
        raise NoKernels(found)
    return found


@cache
def _found(dtype: str) -> ctypes.CDLL | str:
    """The library, or why there is none: looked for once a process."""
    try:
        return _load(_file(dtype), _OF_LEARNING if dtype == "learning" else _SIGNATURES)
    except (NoKernels, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return str(error)


def _file(dtype: str) -> Path:
    """Where the library lies, built now if it does not."""
    if dtype not in KINDS:
        raise NoKernels(f"no kernels are written for {dtype}")
    if os.environ.get("SEEKLING_KERNELS") == "off":
        raise NoKernels("SEEKLING_KERNELS=off asks for none")
    if (compiler := c_compiler()) is None:
        raise NoKernels(f"no C compiler is found ({', '.join(COMPILERS)})")
    flags = (*FLAGS, *KINDS[dtype])
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=LONGEST_BUILD_S, check=False).stdout
    sources = [file.read_bytes() for file in (source(dtype), *sorted(SOURCE.parent.glob("*.h")))]
    parts = [*sources, repr(flags).encode(), version, _cpu().encode()]
    target = _folder() / f"{hashlib.sha256(b'|'.join(parts)).hexdigest()[:24]}.so"
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _refuse_shared(target.parent)
    if not target.exists():
        _build([compiler, *flags, str(source(dtype)), "-lm"], target)
    return target


def _refuse_shared(folder: Path) -> None:
    """Raises NoKernels where somebody else could have put a library of theirs."""
    told = folder.stat()
    if told.st_uid != os.geteuid() or told.st_mode & 0o022:
        raise NoKernels(f"{folder} is not this user's alone to write to")


def _build(command: list[str], target: Path) -> None:
    """Compile beside the target and rename: two processes may build at once, and one may be killed."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        told = subprocess.run(
            [*command, "-o", str(made)], capture_output=True, text=True, timeout=LONGEST_BUILD_S, check=False
        )
        if told.returncode or not made.exists():
            said = told.stderr.strip().splitlines()
            raise NoKernels(f"{command[0]} could not build them: {said[0][:200] if said else told.returncode}")
        os.replace(made, target)


def _load(file: Path, signatures: dict[str, tuple[Any, ...]]) -> ctypes.CDLL:
    compiled = ctypes.CDLL(str(file))
    for name, takes in signatures.items():
        function = getattr(compiled, name)
        function.argtypes, function.restype = takes, None
    return compiled


def _folder() -> Path:
    """The user's cache, never a folder that others may write to."""
    told = os.environ.get("XDG_CACHE_HOME")
    return (Path(told) if told else Path.home() / ".cache") / "seekling" / "kernels"


def _cpu() -> str:
    """What -march=native means here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "|".join([platform.machine(), *sorted(set(told))])
