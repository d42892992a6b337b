"""Files that survive: whole or not at all, torn tails cut, locks that name their holder."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seekling.errors import UserError
from seekling.runlog import files
from seekling.runlog.files import (
    Lines,
    disk_error,
    is_locked,
    line_at,
    locked,
    placed_lines,
    read_json,
    read_lines,
    read_records,
    write_atomic,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_atomic(file, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_atomic_writes_make_their_folder_and_take_bytes(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "a.bin", b"\x00\xff")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"\x00\xff"


def test_json_refuses_what_is_no_number_and_keeps_words(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, 0.1]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, 0.1]}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert read_json(tmp_path / "a.json") == {"ä": [1, 0.1]}


def test_a_missing_or_damaged_document_is_a_letter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(UserError, match="is damaged"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'"\xff"')
    with pytest.raises(UserError, match="is damaged"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path)


@pytest.mark.parametrize("tear", range(1, 12))
def test_wherever_the_last_line_is_torn_it_is_dropped_and_the_next_append_heals_it(tmp_path: Path, tear: int) -> None:
    file = tmp_path / "log.jsonl"
    whole = b'{"step":1}\n{"step":2}\n'
    file.write_bytes(whole[:-tear])
    kept = [line["step"] for line in read_lines(file)]
    assert kept == ([1] if tear < 12 and len(whole[:-tear]) >= 11 else [])
    lines = Lines(file)
    lines.append({"step": 3})
    lines.close()
    assert [line["step"] for line in read_lines(file)] == [*kept, 3]
    assert file.read_bytes().endswith(b"\n")


def test_a_torn_line_longer_than_a_block_is_cut_to_the_last_whole_one(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"step":1}\n' + b"x" * 200_000)
    Lines(file).close()
    assert file.read_bytes() == b'{"step":1}\n'
    file.write_bytes(b"x" * 200_000)
    Lines(file).close()
    assert file.read_bytes() == b""


@pytest.mark.parametrize("line", ["{", "7", "null", "[1]", "\x00"])
def test_a_damaged_middle_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(f'{{"step":1}}\n{line}\n{{"step":3}}\n')
    with pytest.raises(UserError, match="line 2 of") as raised:
        list(read_lines(file))
    assert f"{file}:2" in raised.value.where


def test_a_line_that_lacks_what_a_record_needs_is_named(tmp_path: Path) -> None:
    from seekling.records import StepRecord

    file = tmp_path / "log.jsonl"
    good = {"step": 1, "session": 0, "seconds": 0.1, "tokens": 5, "flops": 1.0}
    file.write_text(f'{json.dumps(good)}\n{{"step":2}}\n')
    with pytest.raises(UserError, match="line 2 of"):
        list(read_records(file, StepRecord))


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), max_size=8), st.integers(0, 30))
def test_every_whole_line_is_found_again_where_it_was_said_to_be(said: list[str], tear: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log.jsonl"
        lines = [json.dumps({"said": text}, ensure_ascii=False) + "\n" for text in said]
        file.write_bytes("".join(lines).encode()[: -tear or None])
        placed = list(placed_lines(file))
        assert [record for _, record in placed] == list(read_lines(file))
        assert [line_at(file, place) for place, _ in placed] == [record for _, record in placed]


def test_a_line_that_is_gone_is_a_letter(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"step":1}\n{"step":2}\n')
    (_, _), (place, _) = placed_lines(file)
    file.write_text('{"step":1}\n')
    with pytest.raises(UserError, match="has changed while it was in use"):
        line_at(file, place)
    file.unlink()
    with pytest.raises(UserError, match="has changed while it was in use"):
        line_at(file, place)


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "none.jsonl")) == []


def test_a_log_on_a_full_disk_is_a_letter(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    lines = Lines(tmp_path / "log.jsonl")
    with pytest.raises(UserError, match="the disk is full"):
        lines.append({"step": 1}, sync=True)
    lines.close()


def test_a_number_that_is_none_never_reaches_a_log(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="Out of range"):
        lines.append({"loss": float("inf")})
    lines.close()
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_a_run_directory_is_held_by_one_process(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "run")
    with locked(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
        with pytest.raises(UserError, match=f"in use by another process .pid {os.getpid()}."), locked(tmp_path / "run"):
            pass
    assert not is_locked(tmp_path / "run")
    with locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EFBIG, "the disk is full"),
        (errno.EACCES, "no permission"), (errno.EROFS, "no permission"), (errno.EPERM, "no permission"),
        (errno.ENOTDIR, "cannot write"), (errno.EIO, "cannot write"),
    ],
)  # fmt: skip
def test_what_the_system_says_becomes_a_letter_with_a_next_step(number: int, words: str) -> None:
    error = disk_error(Path("runs/x"), OSError(number, os.strerror(number)))
    assert words in error.what and "runs/x" in error.what and error.next_step
