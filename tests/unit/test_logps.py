"""Log-probabilities in chunks: the plain form's values and gradients, in the memory of a chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seekling.learn import logps
from seekling.learn.batch import KeptIds
from seekling.learn.logps import cross_entropy, possible, rows_per_chunk, token_logps
from seekling.model.config import ModelConfig
from seekling.model.decoder import Decoder, Hidden
from seekling.model.foreign import Foreign

WIDTH, VOCAB, SHAPE = 16, 57, (3, 7)
FORMS = {
    "plain": dict(),
    "tempered": dict(temperature=0.7),
    "entropy pulled": dict(pull_entropy=True),
    "tempered, entropy pulled": dict(temperature=1.6, pull_entropy=True),
}


def decoder(dtype: torch.dtype, *, tied: bool = False) -> Decoder:
    config = ModelConfig(
        model_type="llama", vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, tie_word_embeddings=tied, initializer_range=0.25,
    )  # fmt: skip
    model = Decoder(config).init_weights(0)
    return model.double() if dtype == torch.float64 else model


def drawn(dtype: torch.dtype = torch.float64, width: int = WIDTH) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States that want a gradient, targets, which are wanted, and how hard each result is pulled at."""
    generator = torch.Generator().manual_seed(1)
    states_BTD = torch.randn(*SHAPE, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets_BT = torch.randint(VOCAB, SHAPE, generator=generator)
    wanted_BT = torch.rand(SHAPE, generator=generator) < 0.7
    return states_BTD, targets_BT, wanted_BT, torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)


def kept_for(targets_BT: Tensor) -> KeptIds:
    """Each target among a few others; every fourth prediction may be anything."""
    generator = torch.Generator().manual_seed(2)
    sets = [
        [] if place % 4 == 3 else sorted({int(t), *torch.randint(VOCAB, (place % 5,), generator=generator).tolist()})
        for place, t in enumerate(targets_BT.flatten())
    ]
    return KeptIds(torch.tensor([i for ids in sets for i in ids]), torch.tensor([len(s) for s in sets]).cumsum(0))


def read(model: Any, dtype: torch.dtype, *, wanted: bool = False, **how: Any) -> list[Tensor]:
    """Values, then gradients of the states and of all that is trained."""
    width = VOCAB if isinstance(model, Foreign) else WIDTH
    states_BTD, targets_BT, wanted_BT, pull = drawn(dtype, width)
    if wanted:
        how["wanted_BT"] = wanted_BT
    logp_BT, entropy_BT = token_logps(model, Hidden(states_BTD), targets_BT, **how)
    value = (logp_BT * pull[0]).sum() + ((entropy_BT * pull[1]).sum() if how.get("pull_entropy") else 0.0)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    grads = torch.autograd.grad(value, [states_BTD, *trained], allow_unused=True)
    return [logp_BT.detach(), entropy_BT.detach(), *(grad for grad in grads if grad is not None)]


def in_chunks(patch: pytest.MonkeyPatch, rows: int) -> None:
    """Let the logits of no more than so many predictions be made at a time."""
    patch.setattr(logps, "CHUNK_BYTES", 0)
    patch.setattr(logps, "rows_per_chunk", lambda *_: rows)


def alike(ours: list[Tensor], plain: list[Tensor], values: float, grads: float) -> None:
    assert len(ours) == len(plain) > 2
    for place, (a, b) in enumerate(zip(ours, plain, strict=True)):
        assert a.dtype == b.dtype
        assert (a - b).abs().max() <= (values if place < 2 else grads * b.abs().max())


@pytest.mark.parametrize("rows", [1, 4, 20])
@pytest.mark.parametrize("form", FORMS)
def test_chunks_have_the_values_and_gradients_of_the_whole(
    form: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype, values, grads in ((torch.float32, 1e-6, 1e-5), (torch.float64, 1e-12, 1e-12)):
        model = decoder(dtype)
        for more in (dict(), dict(wanted=True), dict(wanted=True, kept=kept_for(drawn()[1]))):
            plain = read(model, dtype, **FORMS[form], **more)
            with monkeypatch.context() as patch:
                in_chunks(patch, rows)
                alike(read(model, dtype, **FORMS[form], **more), plain, values, grads)


def test_a_tied_table_gets_what_head_and_embedding_pull_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (_, targets_BT, _, pull) = decoder(torch.float64, tied=True), drawn()

    def grad() -> Tensor:
        hidden = Hidden(model.embed_tokens(targets_BT.flip(0)))
        value = (token_logps(model, hidden, targets_BT)[0] * pull[0]).sum()
        return torch.autograd.grad(value, model.embed_tokens.weight)[0]

    plain = grad()
    in_chunks(monkeypatch, 4)
    torch.testing.assert_close(grad(), plain, rtol=1e-12, atol=1e-12)


def test_a_frozen_head_has_no_gradient_and_lets_that_of_the_states_through(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder(torch.float64).requires_grad_(False)
    plain = read(model, torch.float64)
    in_chunks(monkeypatch, 4)
    ours = read(model, torch.float64)
    alike(ours, plain, 1e-12, 1e-12)
    assert len(ours) == 3  # two values and the states' gradient


class Stranger(Foreign):
    """A model whose states are logits, without transformers."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.config = decoder(torch.float32).config  # type: ignore[assignment]


@pytest.mark.parametrize("form", FORMS)
def test_states_that_are_logits_already_are_read_in_chunks_too(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read(Stranger(), torch.float64, **FORMS[form], wanted=True)
    in_chunks(monkeypatch, 4)
    alike(read(Stranger(), torch.float64, **FORMS[form], wanted=True), plain, 1e-12, 1e-12)


def test_under_autocast_the_product_is_rounded_and_the_softmax_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        plain = read(model, torch.float32)
        in_chunks(monkeypatch, 4)
        ours = read(model, torch.float32)
    alike(ours, plain, 1e-5, 1e-2)
    exact = read(model, torch.float32)
    assert (ours[0] - exact[0]).abs().max() > 1e-4  # else nothing was rounded


def test_what_was_not_kept_has_no_probability_and_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    in_chunks(monkeypatch, 4)
    states_BTD, targets_BT, _, _ = drawn(width=VOCAB)
    kept = kept_for(targets_BT)
    logp_BT, entropy_BT = token_logps(Stranger(), Hidden(states_BTD), targets_BT, kept=kept, pull_entropy=True)
    grad_NV = torch.autograd.grad(logp_BT.sum() + entropy_BT.sum(), states_BTD)[0].flatten(0, 1)
    mask_NV = possible(kept, grad_NV)
    assert not grad_NV[~mask_NV].any() and bool(grad_NV[mask_NV].isfinite().all())
    alone = (kept.ends.diff(prepend=torch.zeros(1)) == 1).view(SHAPE)
    assert bool(alone.any()) and float(logp_BT[alone].detach().abs().max()) < 1e-12  # the only one possible is certain


def test_positions_that_are_not_wanted_are_zero_and_have_no_logits() -> None:
    model, (states_BTD, targets_BT, wanted_BT, _) = decoder(torch.float64), drawn()
    logp_BT, entropy_BT = token_logps(model, Hidden(states_BTD), targets_BT, wanted_BT=wanted_BT)
    whole = token_logps(model, Hidden(states_BTD), targets_BT)
    for ours, all_ in zip((logp_BT, entropy_BT), whole, strict=True):
        assert torch.equal(ours[~wanted_BT], torch.zeros_like(ours[~wanted_BT]))
        torch.testing.assert_close(ours[wanted_BT], all_[wanted_BT], rtol=1e-12, atol=1e-12)
    loss_BT = cross_entropy(model, states_BTD, targets_BT, wanted_BT)
    torch.testing.assert_close(loss_BT, -logp_BT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [4, 100])
def test_a_batch_in_which_nothing_is_wanted_costs_nothing_and_breaks_nothing(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_chunks(monkeypatch, rows)
    model, (states_BTD, targets_BT, wanted_BT, _) = decoder(torch.float32), drawn(torch.float32)
    loss_BT = cross_entropy(model, states_BTD, targets_BT, wanted_BT & False)
    assert not torch.autograd.grad(loss_BT.sum(), states_BTD)[0].any() and not loss_BT.any()


class Seen(TorchDispatchMode):
    """Counts operations, and the numbers in the largest tensor that one of them leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.largest = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += 1
        self.largest = max(self.largest, *(t.numel() for t in tree_leaves(out) if torch.is_tensor(t)), 0)
        return out


@pytest.mark.parametrize("form", FORMS)
def test_no_operation_makes_more_than_a_chunk_neither_forward_nor_back(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_chunks(monkeypatch, 2)
    limit = max(2 * VOCAB, VOCAB * WIDTH)  # a chunk's logits, or the head
    with Seen() as seen:
        read(decoder(torch.float32), torch.float32, **FORMS[form])
    assert seen.largest <= limit < SHAPE[0] * SHAPE[1] * VOCAB


def test_a_batch_that_fits_makes_its_logits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps are made of many short operations: nothing is computed again where there is room."""
    model, (states_BTD, targets_BT, wanted_BT, _) = decoder(torch.float32), drawn(torch.float32)
    made: list[int] = []
    plainly = logps._plain

    def spy(logits_MV: Tensor, *how: Any) -> tuple[Tensor, Tensor]:
        made.append(len(logits_MV))
        return plainly(logits_MV, *how)

    monkeypatch.setattr(logps, "_plain", spy)
    with Seen() as ours:
        loss = cross_entropy(model, states_BTD, targets_BT, wanted_BT).sum()
        torch.autograd.grad(loss, states_BTD)
    assert made == [int(wanted_BT.sum())]
    with Seen() as plain:
        every = torch.nn.functional.cross_entropy(model.logits(states_BTD).flatten(0, 1), targets_BT.flatten())
        torch.autograd.grad(every, states_BTD)
    assert ours.count - plain.count < 25  # what choosing and laying out again takes, however large the model


def test_chunks_are_counted_in_bytes_grow_with_the_head_and_are_never_empty() -> None:
    token = 151_936 * 4
    assert rows_per_chunk(151_936, 4, 64 * token) == logps.CHUNK_BYTES // token > 50
    assert rows_per_chunk(151_936, 4, 800 * token) == 200
    assert rows_per_chunk(151_936, 4, 8000 * token) == 4 * logps.CHUNK_BYTES // token
    assert rows_per_chunk(151_936, 8, 0) == logps.CHUNK_BYTES // (2 * token)
    assert rows_per_chunk(2**40, 4, 0) == 1


def test_a_long_batch_is_read_in_chunks_and_a_short_one_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (states_BTD, targets_BT, _, _) = decoder(torch.float32), drawn(torch.float32)
    asked: list[int] = []
    plainly = logps._plain
    monkeypatch.setattr(logps, "_plain", lambda logits, *how: (asked.append(len(logits)), plainly(logits, *how))[1])
    for room, whole in (
        (targets_BT.numel() * VOCAB * 4, [targets_BT.numel()]),
        (targets_BT.numel() * VOCAB * 4 - 1, []),
    ):
        monkeypatch.setattr(logps, "CHUNK_BYTES", room)
        asked.clear()
        cross_entropy(model, states_BTD, targets_BT)
        assert asked == whole
