"""The doctor says what is here, what a missing thing would give, and whether the core can run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from seekling.cli import doctor
from seekling.cli.doctor import Requirement, Row
from seekling.plan import machine as plan_machine
from seekling.plan.machine import Machine, machine

GIB = 2**30
LAPTOP = Machine(python="3.11.2", os="Debian", cpu="a CPU", cores=2, memory_bytes=4 * GIB, free_disk_bytes=9 * GIB)


# --- the facts ---


def test_a_container_may_use_no_more_memory_than_its_limit() -> None:
    meminfo = "MemTotal:       8388608 kB\nMemFree: 1 kB\n"
    assert plan_machine._memory_bytes(meminfo, "max\n") == 8 * GIB
    assert plan_machine._memory_bytes(meminfo, f"{2 * GIB}\n") == 2 * GIB
    assert plan_machine._memory_bytes("", "") == 0


def test_the_processor_is_named_even_where_the_kernel_does_not() -> None:
    assert plan_machine._cpu_model("processor : 0\nmodel name\t: Tiny 9000 @ 1GHz\n") == "Tiny 9000 @ 1GHz"
    assert plan_machine._cpu_model("CPU implementer : 0x41\n") != ""


def test_facts_of_this_machine_are_plausible(tmp_path: Path) -> None:
    facts = machine(tmp_path / "not" / "made" / "yet")
    assert facts.python == sys.version.split()[0]
    assert facts.cores >= 1
    assert facts.free_disk_bytes > 0


def test_facts_are_told_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; from seekling.plan.machine import machine; print(machine())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("Machine(python="), done.stderr


# --- the rows ---


def test_too_little_memory_is_a_problem_and_unknown_memory_is_not() -> None:
    assert doctor.memory_row(LAPTOP).state == "ok"
    assert doctor.memory_row(replace(LAPTOP, memory_bytes=GIB)).state == "problem"
    unknown = doctor.memory_row(replace(LAPTOP, memory_bytes=0))
    assert (unknown.state, unknown.found[:7]) == ("ok", "unknown")


def test_a_nearly_full_disk_is_a_problem_that_says_how_to_make_room() -> None:
    row = doctor.disk_row(replace(LAPTOP, free_disk_bytes=GIB // 2))
    assert row.state == "problem"
    assert "runs prune" in row.note


def test_a_runs_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    assert doctor.runs_row(tmp_path / "runs").state == "ok"
    (tmp_path / "runs").write_text("a file where a folder should be")
    assert doctor.runs_row(tmp_path / "runs").state == "problem"


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    doctor.runs_row(tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_core_library_that_is_missing_or_too_old_is_a_problem_named_by_name() -> None:
    wanted = [
        Requirement("numpy", "2.0", ""),
        Requirement("no-such-library", "0", ""),
        Requirement("rich", "999", ""),
    ]
    row = doctor.core_row(wanted)
    assert row == Row("core", "missing or too old: no-such-library, rich", "problem", "make setup")


def test_a_package_that_is_not_installed_is_a_problem() -> None:
    assert doctor.core_row([]).state == "problem"


def test_a_missing_extra_is_optional_and_says_what_installs_it() -> None:
    (row,) = doctor.extra_rows([Requirement("no-such-library", "0", "test"), Requirement("numpy", "0", "")])
    assert (row.name, row.state) == ("extra test", "missing-optional")
    assert "make test" in row.note


def test_requirements_are_read_as_the_metadata_writes_them() -> None:
    lines = ["torch>=2.11", "pydantic_core", 'pytest>=8.3 ; extra == "test"']
    assert doctor.requirements(lines) == [
        Requirement("torch", "2.11", ""),
        Requirement("pydantic_core", "0", ""),
        Requirement("pytest", "8.3", "test"),
    ]


def test_versions_are_compared_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.9.1+cpu")
    assert doctor.is_met(Requirement("torch", "2.9", ""))
    assert not doctor.is_met(Requirement("torch", "2.11", ""))


def test_a_missing_program_says_what_it_gives_and_how_to_have_it() -> None:
    row = doctor.program_row("compiler", ("no-such-compiler",), "compiled steps", "g++")
    assert row.state == "missing-optional"
    assert "compiled steps" in row.note and "apt install g++" in row.note
    assert doctor.program_row("shell", ("no-such-shell", "sh"), "a shell", "dash").state == "ok"


def test_a_torch_that_does_not_import_is_a_problem_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (row,) = doctor.torch_rows()
    assert (row.name, row.state, row.note) == ("torch", "problem", "make setup")


def test_an_nvidia_device_that_this_torch_cannot_use_names_make_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_nvidia", lambda: True)
    assert "make gpu" in doctor.device_row("", has_cuda_build=False).note
    assert doctor.device_row("cuda", has_cuda_build=True).state == "ok"


# --- the verdict ---


def test_the_exit_code_is_zero_exactly_when_nothing_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine, lacking, bad = (
        Row("a", "", "ok"),
        Row("b", "", "missing-optional"),
        Row("disk", "[bold]full", "problem"),
    )
    monkeypatch.setattr(doctor, "examine", lambda runs: [fine, lacking])
    assert doctor.doctor() == 0
    monkeypatch.setattr(doctor, "examine", lambda runs: [fine, lacking, bad])
    assert doctor.doctor() == 1
    shown = capsys.readouterr().out
    assert "Not ready: disk" in shown
    assert "[bold]full" in shown  # what was found is shown as it is, never read as markup


def test_the_doctor_sees_this_environment_as_able_to_run() -> None:
    rows = {row.name: row for row in doctor.examine(Path("runs"))}
    assert {"python", "torch", "device", "threads", "memory", "disk", "runs", "core", "extra test"} <= set(rows)
    assert [row for row in rows.values() if row.state == "problem"] == []
