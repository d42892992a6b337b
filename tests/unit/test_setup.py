"""Set-up, seen from outside: what it asks pip for, when it asks nothing, and the letters it writes.

Python, pip, apt and sudo are stand-ins here, so that every machine can be played in a moment; the one test
with a real install, killed in the middle, is a soak test.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    "bash",
    "env",
    "dirname",
    "basename",
    "cat",
    "cp",
    "cut",
    "du",
    "expr",
    "grep",
    "head",
    "mkdir",
    "rm",
)
TOOLS += ("sed", "sha256sum", "uname", "wc")
PIN = "2.13.0"

# A Python that plays both the system's and the environment's. Its facts are files beside it, under $STAGE.
PYTHON = r"""#!/usr/bin/env bash
echo "$*" >>"$STAGE/calls"
case "$*" in
    *version_info*) [ ! -e "$STAGE/old-${0##*/}" ] ;;
    *ensurepip*) [ ! -e "$STAGE/no-ensurepip" ] ;;
    *platform*) echo 3.10.12 ;;
    "-m venv .venv")
        mkdir -p .venv/bin .venv/lib/python3.11/site-packages
        cp "$0" .venv/bin/python
        echo "#!$PWD/.venv/bin/python" >.venv/bin/pip ;;
    *'version("torch")'*) cat "$STAGE/torch" ;;
    *--dry-run*) [ -e "$STAGE/offers-cpu" ] ;;
    *"pip --disable-pip-version-check install"*--editable*) [ ! -e "$STAGE/no-network" ] ;;
    *"pip --disable-pip-version-check install"*torch*) expr "$*" : '.*torch==*\(.*\)' >"$STAGE/torch" ;;
    *) ;;
esac
"""


@dataclass
class Stage:
    """A machine to play: a folder of programs, facts as files, and a clone of the project."""

    programs: Path
    facts: Path
    clone: Path

    def program(self, name: str, text: str = "") -> None:
        (self.programs / name).write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}\n")
        (self.programs / name).chmod(0o755)

    def fact(self, name: str, text: str = "") -> None:
        (self.facts / name).write_text(text)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": str(self.programs), "STAGE": str(self.facts), **environment}
        return subprocess.run(
            ["bash", *command],
            cwd=self.clone,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("scripts/setup", *arguments, **environment)

    def installs(self) -> list[str]:
        """What pip was told to install since the last look, in order, without the looks it took first."""
        calls = (self.facts / "calls").read_text().splitlines() if (self.facts / "calls").exists() else []
        (self.facts / "calls").unlink(missing_ok=True)
        return [call.partition(" install ")[2] for call in calls if " install " in call and "--dry-run" not in call]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A Debian with all prerequisites, an ordinary user, and a pip that offers the public builds only."""
    stage = Stage(tmp_path / "programs", tmp_path / "facts", tmp_path / "clone")
    for folder in (stage.programs, stage.facts, stage.clone):
        folder.mkdir()
    for tool in TOOLS:
        (stage.programs / tool).symlink_to(str(shutil.which(tool)))
    shutil.copytree(ROOT / "scripts", stage.clone / "scripts")
    for file in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, stage.clone)
    stage.program("id", "echo 1000")
    for tool in ("git", "make", "apt", "sudo"):
        stage.program(tool, "exit 1")
    stage.program("apt-cache", "exit 1")
    stage.program("python3", PYTHON)
    return stage


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0, done.stdout
    return done.stderr.splitlines()[-1].strip()


# --- prerequisites ---


def test_every_missing_prerequisite_stands_in_one_apt_line(stage: Stage) -> None:
    for tool in ("python3", "git", "make"):
        (stage.programs / tool).unlink()
    assert last_line(stage.setup()) == "sudo apt install python3 python3-venv git make"


def test_a_python_whose_ensurepip_debian_removed_asks_for_python3_venv(stage: Stage) -> None:
    stage.fact("no-ensurepip")
    assert last_line(stage.setup()) == "sudo apt install python3-venv"


def test_root_is_not_told_to_use_sudo(stage: Stage) -> None:
    stage.program("id", "echo 0")
    (stage.programs / "make").unlink()
    assert last_line(stage.setup()) == "apt install make"


def test_a_newer_python_beside_an_old_python3_is_used(stage: Stage) -> None:
    stage.fact("old-python3")
    stage.program("python3.12", PYTHON)
    assert stage.setup().returncode == 0


def test_an_old_python_is_answered_with_one_that_apt_has(stage: Stage) -> None:
    stage.fact("old-python3")
    stage.program("apt-cache", '[ "$2" = python3.11 ]')
    assert last_line(stage.setup()) == "sudo apt install python3.11 python3.11-venv"


def test_a_system_without_a_new_python_is_told_so(stage: Stage) -> None:
    stage.fact("old-python3")
    done = stage.setup()
    assert done.returncode == 1
    assert "3.10.12" in done.stderr
    assert "PYTHON=" in done.stderr


def test_an_interpreter_that_was_named_is_never_replaced_by_another(stage: Stage) -> None:
    assert "PYTHON=python9" in stage.setup(PYTHON="python9").stderr


def test_an_unknown_argument_names_the_known_ones(stage: Stage) -> None:
    assert "--test" in last_line(stage.setup("--tests"))
    assert "auto, cpu, default" in last_line(stage.setup("--torch", "rocm"))


# --- torch ---


def test_torch_is_installed_first_and_alone(stage: Stage) -> None:
    assert stage.setup().returncode == 0
    torch, package = stage.installs()
    assert "--no-deps" in torch and "torch==" in torch
    assert "torch" not in package and package.endswith("--constraint constraints.txt --editable .")


def test_nothing_is_ever_built_from_source(stage: Stage) -> None:
    stage.setup("--test")
    assert all("--only-binary :all:" in install for install in stage.installs())


def test_a_cpu_build_that_pip_offers_by_itself_is_taken(stage: Stage) -> None:
    stage.fact("offers-cpu")
    stage.setup()
    torch, _ = stage.installs()
    assert torch.endswith(f"--no-deps torch=={PIN}+cpu")


def test_without_an_nvidia_device_the_cpu_build_comes_from_pytorch(stage: Stage) -> None:
    # A machine that has a device cannot play one that has none.
    stage.setup(*(["--torch", "cpu"] if Path("/dev/nvidia0").exists() else []))
    torch, _ = stage.installs()
    assert torch.endswith(f"--index-url https://download.pytorch.org/whl/cpu torch=={PIN}+cpu")


def test_with_an_nvidia_device_the_default_build_is_taken_and_its_size_said_before(stage: Stage) -> None:
    stage.program("nvidia-smi", "echo GPU 0")
    done = stage.setup()
    assert "about 3 GB" in done.stdout
    assert stage.installs()[0].endswith(f"torch==={PIN}")


def test_the_default_build_replaces_a_cpu_build_only_when_asked_for(stage: Stage) -> None:
    stage.fact("offers-cpu")
    stage.setup()
    stage.installs()
    stage.setup("--torch", "default")
    assert stage.installs()[0].endswith(f"torch==={PIN}")
    stage.setup()
    assert stage.installs() == []


# --- again ---


def test_a_second_set_up_asks_pip_for_nothing(stage: Stage) -> None:
    stage.setup("--test")
    stage.installs()
    assert stage.setup("--test").returncode == 0
    assert stage.setup().returncode == 0  # the core came with it
    assert stage.installs() == []


def test_a_changed_pin_is_installed(stage: Stage) -> None:
    stage.setup()
    stage.installs()
    with (stage.clone / "constraints.txt").open("a") as file:
        file.write("newcomer==1.0\n")
    stage.setup()
    assert len(stage.installs()) == 1


def test_what_tests_need_is_added_to_a_core_that_is_there(stage: Stage) -> None:
    stage.setup()
    stage.installs()
    stage.setup("--test")
    assert [install.split()[-1] for install in stage.installs()] == [".[test]"]


def test_an_install_that_failed_goes_on_where_it_stopped(stage: Stage) -> None:
    stage.fact("no-network")
    failed = stage.setup()
    assert failed.returncode == 1
    assert "Give the same command again" in failed.stderr
    stage.installs()
    (stage.facts / "no-network").unlink()
    assert stage.setup().returncode == 0
    assert [install.split()[-1] for install in stage.installs()] == ["."]


@pytest.mark.parametrize("missing", ["bin/python", "bin/pip"])
def test_a_half_made_environment_is_made_again(stage: Stage, missing: str) -> None:
    stage.setup()
    (stage.clone / ".venv" / missing).unlink()
    done = stage.setup()
    assert "half made" in done.stdout
    assert (stage.clone / ".venv" / missing).exists()


def test_an_environment_that_was_moved_is_made_again(stage: Stage) -> None:
    stage.setup()
    stage.clone = stage.clone.rename(stage.clone.with_name("elsewhere"))
    assert "moved" in stage.setup().stdout


def test_packages_that_a_killed_install_left_in_halves_are_removed(stage: Stage) -> None:
    stage.fact("no-network")
    stage.setup()
    site = stage.clone / ".venv/lib/python3.11/site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info", "~ld"):
        (site / name).mkdir()
    (site / "whole-1.dist-info/RECORD").touch()
    stage.setup()
    assert [path.name for path in site.iterdir()] == ["whole-1.dist-info"]


# --- system packages ---


def test_system_packages_that_are_there_are_not_touched(stage: Stage) -> None:
    stage.program("chromium")
    stage.program("apt-get", 'echo called >"$STAGE/apt"')
    done = stage.run("scripts/system-packages")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (stage.facts / "apt").exists()


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_rights_the_command_and_the_checks_that_do_not_run_are_said_aloud(
    stage: Stage, ci: str, code: int
) -> None:
    stage.program("apt-get", 'echo called >"$STAGE/apt"')
    done = stage.run("scripts/system-packages", CI=ci)
    assert done.returncode == code
    assert "sudo apt-get install chromium" in done.stderr
    assert "DO NOT RUN" in done.stderr
    assert not (stage.facts / "apt").exists()


# --- what is pinned ---


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def reachable(names: list[str]) -> Iterator[str]:
    """Every package installed here because one of ``names`` asks for it, in canonical spelling."""
    waiting, seen = [canonical(name) for name in names], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # wanted on other systems only
        yield name
        waiting += [canonical(re.split(r"[^\w.\-]", line)[0]) for line in lines if "extra ==" not in line]


def test_every_package_behind_the_core_and_the_tests_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    pinned = {canonical(name) for name in pins()}
    # What a CUDA build brings is pinned by that build itself.
    ours = {name for name in reachable([re.split(r"[>=]", line)[0] for line in wanted]) if "nvidia" not in name}
    assert ours - {"triton", "cuda-toolkit", "cuda-bindings", "cuda-pathfinder"} - pinned == set()


def test_a_pin_is_one_exact_public_version() -> None:
    assert [version for version in pins().values() if not re.fullmatch(r"\d[\w.]*", version)] == []


@pytest.mark.parametrize(
    "script", ["scripts/setup", "scripts/system-packages", "scripts/clean-system-check", ".ci/run"]
)
def test_every_script_can_be_run_and_parsed(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


# --- for real ---


@pytest.mark.soak
@pytest.mark.slow
def test_a_real_install_killed_in_the_middle_is_finished_by_the_same_command(tmp_path: Path) -> None:
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in filter(None, names.stdout.splitlines()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    environment = {**os.environ, "PYTHON": sys.executable}
    site = tmp_path / f".venv/lib/python3.{sys.version_info.minor}/site-packages"
    first = subprocess.Popen(["scripts/setup"], cwd=tmp_path, env=environment, start_new_session=True)
    while first.poll() is None and not (site / "numpy").exists():
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert not list(site.glob("seekling-*"))

    subprocess.run(["scripts/setup"], cwd=tmp_path, env=environment, check=True)
    probe = [tmp_path / ".venv/bin/python", "-m", "pip", "check"]
    assert "No broken requirements" in subprocess.run(probe, capture_output=True, text=True).stdout
    program = "import numpy, tokenizers, torch, seekling; assert torch.ones(2).sum() == 2"
    subprocess.run([tmp_path / ".venv/bin/python", "-c", program], cwd="/", check=True)
