"""The library of kernels: built once, kept, and done without."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from seekling.model import kernels


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing built, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEEKLING_KERNELS", raising=False)
    kernels._found.cache_clear()
    yield tmp_path / "seekling" / "kernels"
    kernels._found.cache_clear()


def compiler(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "cc").write_text(f'#!/bin/sh\ncase "$1" in --version) exit;; esac\n{script}\n')
    (folder / "cc").chmod(0o755)


def test_a_build_is_kept_for_the_next_process(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels.c_compiler() is None:
        pytest.skip("no C compiler here")
    assert kernels.library("float32") is not None and kernels.told() == "compiled"
    (built,) = fresh.glob("*.so")
    assert fresh.stat().st_mode & 0o077 == 0, "others could put their own there"
    kernels._found.cache_clear()
    monkeypatch.setattr(kernels, "_build", lambda *_: pytest.fail("built again"))
    assert kernels.library("float32") is not None
    assert list(fresh.iterdir()) == [built], "no scratch is left"


def test_without_a_compiler_there_is_none_and_the_reason_is_known(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert kernels.library("float32") is None and kernels.told() == "torch"
    with pytest.raises(kernels.NoKernels, match="no C compiler is found"):
        kernels.built("float32")


def test_a_compiler_that_fails_is_quoted(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler(tmp_path / "bin", "echo 'kernels.c:1: no such CPU' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(kernels.NoKernels, match=r"kernels\.c:1: no such CPU"):
        kernels.built("float32")
    assert not list(fresh.iterdir())


def test_what_a_compiler_makes_wrong_is_not_loaded(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler(tmp_path / "bin", 'for last; do :; done; echo rubbish > "$last"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    assert kernels.library("float32") is None


def test_a_compiler_that_hangs_is_left(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler(tmp_path / "bin", "while :; do :; done")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(kernels, "LONGEST_BUILD_S", 0.3)
    with pytest.raises(kernels.NoKernels, match="timed out"):
        kernels.built("bfloat16")


def test_nothing_is_loaded_from_where_others_can_write(fresh: Path) -> None:
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    with pytest.raises(kernels.NoKernels, match="not this user's alone"):
        kernels.built("float32")


def test_they_can_be_asked_to_stay_away(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEKLING_KERNELS", "off")
    assert kernels.library("float32") is None


def test_nothing_is_built_for_what_no_kernel_is_written_for(fresh: Path) -> None:
    with pytest.raises(kernels.NoKernels, match="float64"):
        kernels.built("float64")


@pytest.mark.soak
@pytest.mark.parametrize("kind", kernels.KINDS)
def test_the_source_compiles_without_a_warning(kind: str, tmp_path: Path) -> None:
    found = kernels.c_compiler()
    if found is None:
        pytest.skip("no C compiler here")
    flags = ("-Wall", "-Wextra", "-Werror", *kernels.FLAGS, *kernels.KINDS[kind])
    command = [found, *flags, str(kernels.source(kind)), "-o", str(tmp_path / "k.so"), "-lm"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
