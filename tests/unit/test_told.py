"""The teacher's store: what is written is read, a crash leaves no piece, damage is found and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seekling.learn.distillation import normalised, told
from seekling.recipes.told import SHORT, Store, record

WIDTH, K = 50, 4


def rows(count: int, seed: int = 0) -> np.ndarray:
    logits = 3 * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    ids, known, rest = told(logits.log_softmax(-1), K)
    return torch.cat([ids.float(), known, rest.unsqueeze(1)], 1).numpy()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> Store:
    made = Store(tmp_path, K, WIDTH, said.append)
    made.write(0, rows(5))
    made.write(3, rows(7, 1))
    return made


def test_stretches_of_pieces_are_read_in_the_order_asked_for_rounded_to_sixteen_bits(store: Store) -> None:
    found = store.read([(3, 2, 6), (0, 0, 5), (3, 0, 1)])
    wanted = np.concatenate([rows(7, 1)[2:6], rows(5), rows(7, 1)[:1]])
    assert found.width == WIDTH and found.ids_MK.numpy().tolist() == wanted[:, :K].astype(int).tolist()
    np.testing.assert_allclose(found.logp_MK.float(), wanted[:, K:-1], rtol=1e-3)
    np.testing.assert_allclose(found.rest_M.float(), wanted[:, -1], rtol=1e-3)
    near, far = normalised(found.logp_MK, found.rest_M)
    torch.testing.assert_close(near.exp().sum(-1) + far.exp(), torch.ones(10))


@pytest.mark.parametrize("top_k, width, size", [(64, SHORT, 258), (64, SHORT + 1, 386), (8, 300, 34)])
def test_a_token_takes_four_or_six_bytes_an_id_and_two_for_the_rest(top_k: int, width: int, size: int) -> None:
    assert record(top_k, width).itemsize == size == Store(Path(), top_k, width, print).bytes_per_token


def test_ids_beyond_two_bytes_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path, 2, 200_000, print)
    store.write(0, np.array([[199_999, 70_000, -0.5, -1.5, -2.0]], np.float32))
    assert store.read([(0, 0, 1)]).ids_MK.tolist() == [[199_999, 70_000]]


def test_there_is_always_a_rest(tmp_path: Path) -> None:
    assert Store(tmp_path, 1000, WIDTH, print).top_k == WIDTH - 1


def test_sound_pieces_are_held_without_a_word(store: Store, said: list[str]) -> None:
    assert store.holds(0, 5) and store.holds(3, 7) and not store.holds(1, 5)
    assert not said


def test_a_piece_whose_seal_is_missing_is_none_and_nothing_is_said(store: Store, said: list[str]) -> None:
    (store.folder / "piece-00000.json").unlink()
    assert not store.holds(0, 5) and not said


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "another count", "seal"])
def test_a_damaged_piece_is_told_aloud(store: Store, said: list[str], how: str) -> None:
    file, seal = store.folder / "piece-00003.bin", store.folder / "piece-00003.json"
    data = file.read_bytes()
    if how == "flipped":
        file.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    elif how == "cut":
        file.write_bytes(data[:-1])
    elif how == "gone":
        file.unlink()
    elif how == "seal":
        seal.write_text(seal.read_text()[:20])
    assert not store.holds(3, 8 if how == "another count" else 7)
    assert len(said) == 1 and "piece-00003.bin is damaged" in said[0]
    store.write(3, rows(7, 1))
    assert store.holds(3, 7) and store.holds(0, 5)


def test_a_store_of_other_settings_holds_nothing(store: Store, said: list[str]) -> None:
    assert not Store(store.folder, K - 1, WIDTH, said.append).holds(0, 5) and said
