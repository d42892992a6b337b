"""The seventeen ways in which trainers have silently learned nothing, or the wrong thing: each planted, each caught.

Twelve are refused by name before a stage begins (``selftests``); tests/unit/test_selftests.py plants each in several
ways. Five are laws of this file's own: what a law says of sound code, and that it says otherwise of the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seekling.engine.engine import Engine
from seekling.learn import batch as batching
from seekling.learn import objective as objectives
from seekling.learn import update
from seekling.learn.batch import Batch, Text, pack
from seekling.learn.presets import OBJECTIVES
from seekling.model.decoder import Decoder
from seekling.recipes import sft
from seekling.recipes.chats import Row
from seekling.selftests import policies
from seekling.selftests.outcome import SelfTest
from seekling.selftests.policies import (
    of_agreement,
    of_delivery,
    of_invariance,
    of_reference,
    of_routes,
    of_stop,
    of_vocabulary,
)
from seekling.selftests.tasks import of_key, of_split
from seekling.text.chat import encode_chats, encode_prompts
from seekling.text.tokenizer import Tokenizer, train
from tests.oracles.tiny import SHAPES, text
from tests.parity.test_learning import in_rows, told
from tests.unit import test_selftests as planted

Patch = pytest.MonkeyPatch
STOP, PROMPTS = 3, [tuple(text(4 + i % 3, i)) for i in range(8)]


def model() -> Decoder:
    return Decoder(SHAPES["v3"].model_copy(update={"initializer_range": 0.05})).init_weights(0)


# --- twelve that a start-up self-test refuses


def adapter_not_delivered(patch: Patch) -> list[SelfTest]:
    adapted = planted.adapted()
    return [of_delivery(Engine(deepcopy(adapted), STOP), adapted, PROMPTS)]


def stale_sampler_weights(patch: Patch) -> list[SelfTest]:
    policy = model()
    return [of_delivery(Engine(deepcopy(policy), STOP), policy, PROMPTS)]


def temperature_missing(patch: Patch) -> list[SelfTest]:
    planted.learner_forgets_temperature(patch)
    return of_agreement(model(), STOP, PROMPTS)


def truncation_unaccounted(patch: Patch) -> list[SelfTest]:
    planted.learner_forgets_what_was_kept(patch)
    return of_agreement(model(), STOP, PROMPTS)


def loss_divided_by_micro_batches(patch: Patch) -> list[SelfTest]:
    sound = update.policy_loss
    patch.setattr(update, "policy_loss", lambda said, o: sound(said, o) / len(said.weight))
    return [of_invariance(model(), STOP, PROMPTS, OBJECTIVES["grpo"])]


def stop_without_gradient(patch: Patch) -> list[SelfTest]:
    sound = policies.text_of

    def masked(rollout: Any, **how: Any) -> Text:
        whole = sound(rollout, **how)
        return replace(whole, weight=np.r_[whole.weight[:-1], np.float32(0)])

    patch.setattr(policies, "text_of", masked)
    return [of_stop(model(), STOP, PROMPTS, OBJECTIVES["dr_grpo"])]


def gold_unparsable(patch: Patch) -> list[SelfTest]:
    return of_key(planted.Unreadable(sizes=(3,)))


def answer_key_all_zero(patch: Patch) -> list[SelfTest]:
    return of_key(planted.AllWrong(sizes=(3,)))


def train_and_held_out_overlap(patch: Patch) -> list[SelfTest]:
    return [of_split(planted.TwoNames(sizes=(2,), low=1, high=9, chain_max=20))]


def student_vocabulary_differs(patch: Patch) -> list[SelfTest]:
    return [of_vocabulary({"a": 0, "b": 1}, {"a": 1, "b": 0})]


def reference_is_not_the_policy(patch: Patch) -> list[SelfTest]:
    other = model()
    with torch.no_grad():
        other.norm.weight[0] += 0.01
    return [of_reference(model(), other, STOP, PROMPTS)]


def routes_differ(patch: Patch) -> list[SelfTest]:
    planted.changed(patch, lambda said: replace(said, routes=(said.routes + 1) % 6))
    return [of_routes(model(), STOP, PROMPTS)]


AT_START = {
    adapter_not_delivered: "engine samples from the adapters that are trained",
    stale_sampler_weights: "engine samples from what is trained",
    temperature_missing: "temperature is accounted for",
    truncation_unaccounted: "top-p and top-k are accounted for",
    loss_divided_by_micro_batches: "loss ignores slicing",
    stop_without_gradient: "stop tokens carry a gradient",
    gold_unparsable: "answer key can be read",
    answer_key_all_zero: "answer key passes",
    train_and_held_out_overlap: "no held-out problem in training",
    student_vocabulary_differs: "vocabularies are one",
    reference_is_not_the_policy: "policy begins as its reference",
    routes_differ: "sampler and learner choose the same experts",
}


@pytest.mark.parametrize("fault", AT_START, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_refused_by_its_own_name_and_no_other(
    fault: Callable[[Patch], list[SelfTest]], monkeypatch: Patch
) -> None:
    refused = [test.name for test in fault(monkeypatch) if not test.passed]
    assert refused == [AT_START[fault]]


# --- five that are laws


def ratio_is_a_mean() -> bool:
    """A rollout twice as long, each token moved alike, has the same ratio: GSPO's is the geometric mean."""
    one = replace(told(0, apart=0.0)[0], new=[-1.0] * 3, old=[-1.1] * 3)
    two = replace(one, new=[-1.0] * 6, old=[-1.1] * 6)
    short, long = (objectives.sequence_ratio(in_rows([r], OBJECTIVES["gspo"]))[0, 0] for r in (one, two))
    return bool(torch.isclose(short, long))


def ratio_summed_for_averaged(patch: Patch) -> None:
    patch.setattr(objectives.Said, "mean", objectives.Said.summed)


def targets_are_the_next_tokens() -> bool:
    """What a position is judged by is the token behind it, in the same text, wherever anything is learned."""
    made = batching.pack([Text(text(n, n), np.ones(n, np.float32)) for n in (5, 7, 3)], 16)
    learned = made.weight_BT[:, :-1] > 0
    same = made.rows.segments_BT[:, :-1] == made.rows.segments_BT[:, 1:]
    return bool(((made.targets_BT[:, :-1] == made.rows.tokens_BT[:, 1:]) & same)[learned].all())


def targets_not_shifted(patch: Patch) -> None:
    def unshifted(texts: list[Text], row_tokens: int) -> Batch:
        made = pack(texts, row_tokens)
        return replace(made, targets_BT=made.rows.tokens_BT)

    patch.setattr(batching, "pack", unshifted)


TOKENIZER = train(["what is 3+4? <think>3+4=7</think><answer>7</answer>", "and then 5+6? so it is 11."], 300)


def learned_text(row: Row) -> str:
    ((ids, mask),) = sft.encode(TOKENIZER, [row])[0]
    return TOKENIZER.decode([token for token, is_learned in zip(ids, mask, strict=True) if is_learned])


GIVEN = Row(
    [
        {"role": "user", "content": "what is 3+4?"},
        {"role": "assistant", "content": "it is 8"},
        {"role": "user", "content": "and then 5+6?"},
        {"role": "assistant", "content": "so it is 11."},
    ],
    "line 1",
    3,
    None,
)


def only_the_teachers_words_are_learned() -> bool:
    """What the student itself said earlier stands in the prompt: read, never imitated."""
    said = learned_text(GIVEN)
    return "11" in said and "8" not in said


def students_own_labels_learned(patch: Patch) -> None:
    patch.setattr(sft, "_without_given", lambda row, texts: texts)


THOUGHT = "<think>3+4=7</think><answer>7</answer>"


def the_whole_thought_and_the_stop_are_learned() -> bool:
    asked = [{"role": "user", "content": "what is 3+4?"}, {"role": "assistant", "content": THOUGHT}]
    ((ids, mask),) = encode_chats(TOKENIZER, [asked])
    said = [token for token, is_learned in zip(ids, mask, strict=True) if is_learned]
    return TOKENIZER.decode(said, skip_special=True) == THOUGHT and said[-1] in TOKENIZER.stops


def think_mask_wrong(patch: Patch) -> None:
    """As where a trainer takes what stands between the tags for the template's own."""
    sound = encode_chats

    def masked(tokenizer: Tokenizer, chats: Any) -> Any:
        close = tokenizer.think_close
        return [
            (ids, [yes and place > ids.index(close) for place, yes in enumerate(mask)])
            for ids, mask in sound(tokenizer, chats)
        ]

    patch.setitem(globals(), "encode_chats", masked)


def template_is_one_between_stages(folder: Path) -> bool:
    """A stage asks as the stage before it learned to be asked: saved and loaded, the same words give the same ids."""
    TOKENIZER.save(folder)
    asked = [[{"role": "user", "content": "what is 3+4?"}]]
    return encode_prompts(Tokenizer.load(folder), asked) == encode_prompts(TOKENIZER, asked)


def template_drifts(patch: Patch) -> None:
    sound = Tokenizer.load.__func__  # type: ignore[attr-defined]

    def drifted(cls: type[Tokenizer], folder: Path) -> Tokenizer:
        file = folder / "chat_template.jinja"
        file.write_text(file.read_text().replace("+ message.content", "+ ' ' + message.content"))
        loaded: Tokenizer = sound(cls, folder)
        return loaded

    patch.setattr(Tokenizer, "load", classmethod(drifted))


LAWS: dict[Callable[[Patch], None], Callable[..., bool]] = {
    ratio_summed_for_averaged: ratio_is_a_mean,
    targets_not_shifted: targets_are_the_next_tokens,
    students_own_labels_learned: only_the_teachers_words_are_learned,
    think_mask_wrong: the_whole_thought_and_the_stop_are_learned,
    template_drifts: template_is_one_between_stages,
}


@pytest.mark.parametrize("fault", LAWS, ids=lambda fault: fault.__name__)
def test_a_law_holds_and_is_broken_by_the_fault_that_it_is_for(
    fault: Callable[[Patch], None], monkeypatch: Patch, tmp_path: Path
) -> None:
    law = LAWS[fault]
    given = (tmp_path,) if law is template_is_one_between_stages else ()
    assert law(*given)
    fault(monkeypatch)
    assert not law(*given)


def test_all_seventeen_are_planted() -> None:
    assert len(AT_START) + len(LAWS) == 17 and len(set(AT_START.values())) == 12
