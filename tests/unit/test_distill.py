"""A stage of distillation: what it refuses, what it keeps of its teacher, and the faults that are found by name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from seekling.engine.config import Sampling
from seekling.engine.engine import Engine
from seekling.errors import SelfTestFailed, UserError
from seekling.evals.judging import Judge
from seekling.learn.batch import Text
from seekling.learn.lanes import ONE
from seekling.learn.taught import TopK, compared, numbered, told_by
from seekling.model.decoder import Decoder
from seekling.plan.fit import numbers
from seekling.recipes import distill, evaluate, fitting
from seekling.recipes.config import Distill, Pretrain
from seekling.recipes.distill import Course, before_learning, probed, told_of_words, told_wholly, weighed
from seekling.recipes.fitting import Place, fits
from seekling.recipes.manifest import load_manifest
from seekling.recipes.policy import Policy
from seekling.recipes.sayings import Sayings, chosen, texts_of
from seekling.recipes.sft import Shelf
from seekling.records import Group, Problem, Rollout, Score, Stop, Verdict
from seekling.rewards.rubric import Rubric
from seekling.selftests.outcome import SelfTest, require
from seekling.selftests.policies import of_wording
from seekling.text.tokenizer import train
from tests.oracles.tiny import SHAPES

TASK = {"name": "arithmetic", "sizes": [2], "high": 9}
TOKENIZER = train(["12+7-5=<think>1+2=3</think><answer>3</answer>"] * 3, 280)
NAME = "a teacher learns nothing from itself"


def settings(**told: Any) -> Distill:
    return Distill(name="student", steps=4, packing={"row_tokens": 96}, **told)


# --- faults that would be silent --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(TASK, Rubric())


def policy(name: str = "v3", seed: int = 0) -> Policy:
    shape = SHAPES[name].model_copy(update={"vocab_size": TOKENIZER.vocab_size, "max_position_embeddings": 96})
    model = Decoder(shape).init_weights(seed)
    return Policy(model, TOKENIZER, Engine(model, TOKENIZER.stops))


STAGE: Any = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, lanes=ONE)


def sequence(teacher: Policy, judge: Judge) -> Course:
    said = weighed(probed(teacher, judge))
    config = settings()
    expected = -sum(float((text.values["behaviour"] * text.weight).sum()) for text in said)
    return Course(
        partial(int), distill.lesson_of(config, distill.batch_of(STAGE, config, said), distill.next_token), expected
    )  # type: ignore[arg-type]


def logits(teacher: Policy, judge: Judge, asked: float = 1.0) -> Course:
    config = settings(method="logits", top_k=8)
    batch = numbered(distill.batch_of(STAGE, config, [replace(t, values={}) for t in weighed(probed(teacher, judge))]))
    with torch.no_grad():
        rows = told_by(teacher.model, batch, 8, TOKENIZER.vocab_size, asked)[batch.weight_BT > 0]
    told = TopK(rows[:, :8].int(), rows[:, 8:-1].half(), rows[:, -1].half(), TOKENIZER.vocab_size)
    return Course(partial(int), distill.lesson_of(config, batch, partial(compared, taught=told)))  # type: ignore[arg-type]


def on_policy(teacher: Policy, judge: Judge, **told: Any) -> Course:
    config = settings(method="on_policy", **told)
    tell = {"exact": told_wholly, "sampled": told_of_words}[config.by]
    return Course(partial(int), tell(STAGE, config, teacher, teacher, probed(teacher, judge), alone=True))  # type: ignore[arg-type]


WAYS: dict[str, Any] = {
    "sequence": sequence, "logits": logits, "on_policy": on_policy, "sampled": partial(on_policy, by="sampled"),
    "between, soft": partial(on_policy, beta=0.4, temperature=2.0),
}  # fmt: skip


def asked_of(course: Course, teacher: Policy) -> list[SelfTest]:
    return before_learning(STAGE, teacher, policy("llama", 5), course)


@pytest.mark.parametrize("way", WAYS)
def test_a_teacher_learns_nothing_from_itself_and_slicing_changes_nothing(way: str, judge: Judge) -> None:
    teacher = policy()
    assert all(test.passed for test in asked_of(WAYS[way](teacher, judge), teacher))


def shifted_targets(patch: pytest.MonkeyPatch) -> str:
    sound = distill.pack

    def unshifted(texts: Any, row_tokens: int) -> Any:
        made = sound(texts, row_tokens)
        return replace(made, targets_BT=made.rows.tokens_BT)

    patch.setattr(distill, "pack", unshifted)
    return "sequence"


def shifted_states(patch: pytest.MonkeyPatch) -> str:
    sound = distill.states_of

    def rolled(*given: Any) -> Any:
        states_MD, first = sound(*given)
        return states_MD.roll(1, 0), first

    patch.setattr(distill, "states_of", rolled)
    return "on_policy"


def shifted_rows(patch: pytest.MonkeyPatch) -> str:
    patch.setattr(TopK, "apart", lambda self, logq, rows, sound=TopK.apart: sound(self, logq, rows.roll(1)))
    return "logits"


def shifted_words(patch: pytest.MonkeyPatch) -> str:
    sound = distill.read
    patch.setattr(distill, "read", lambda *a, **k: [np.roll(told, 1) for told in sound(*a, **k)])
    return "sampled"


def temperature_of_one_side(patch: pytest.MonkeyPatch) -> str:
    patch.setitem(WAYS, "half soft", partial(logits, asked=2.0))
    return "half soft"


def other_weights(patch: pytest.MonkeyPatch) -> str:
    """A store of another model: the probe is made of one and asked of another."""
    sound = logits
    patch.setitem(WAYS, "stranger", lambda teacher, judge: sound(policy(seed=9), judge))
    return "stranger"


FAULTS = (shifted_targets, shifted_states, shifted_rows, shifted_words, temperature_of_one_side, other_weights)


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_what_is_told_of_other_tokens_is_refused_by_name(
    plant: Any, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, teacher = plant(monkeypatch), policy()
    with pytest.raises(SelfTestFailed, match=f'"{NAME}" failed'):
        require(*asked_of(WAYS[way](teacher, judge), teacher))


def test_a_loss_divided_per_slice_is_refused_by_name(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, teacher = distill.compared, policy()

    def averaged(model: Any, states: Any, batch: Any, *told: Any, **how: Any) -> Any:
        value, sums = sound(model, states, batch, *told, **how)
        return value / len(batch.targets_BT), sums

    monkeypatch.setattr(distill, "compared", averaged)
    with pytest.raises(SelfTestFailed, match='"loss ignores slicing" failed'):
        require(*asked_of(on_policy(teacher, judge), teacher))


def test_a_teacher_that_is_asked_in_other_words_or_stops_elsewhere_is_refused_by_name() -> None:
    asked = [(1, 2), (3, 4)]
    assert of_wording(asked, asked, (7, 8), (7,)).passed
    assert of_wording(asked, [(1, 2), (3, 5)], (7,), (7, 9)).figure == 2
    with pytest.raises(SelfTestFailed, match='"teacher and student are asked alike" failed'):
        require(of_wording(asked, asked, (7,), (8,)))


# --- what is kept of the teacher --------------------------------------------------------------------------------------


def rollout(text: str, stop: Stop = Stop.STOP) -> Rollout:
    return Rollout((1, 2), (3, 4, 5), np.zeros(3, np.float32), text, stop, 0)


def test_only_what_is_finished_passes_and_is_in_one_language_is_learned() -> None:
    said = [
        rollout("<think>so two and two</think><answer>4</answer>"),
        rollout("<think>so two and two</think><answer>5</answer>"),
        rollout("<think>so two and two</think><answer>4</answer>", Stop.LENGTH),
        rollout("<think>so 二加二 and two</think><answer>4</answer>"),
    ]
    verdicts = (Verdict.PASS, Verdict.WRONG, Verdict.PASS, Verdict.PASS)
    groups, scores = [Group(Problem("p", "t", "2+2=", "4", 2), tuple(said))], [[Score(1.0, v) for v in verdicts]]

    def places(**told: Any) -> list[int]:
        return [said.index(one) for one in chosen(groups, scores, settings(**told))]

    assert places() == [0, 3] and places(language="en") == [0] and places(language="zh") == []
    assert places(learn_from="all") == [0, 1, 3]
    assert places(language="en", language_share=0.4) == [0, 3]


def test_a_steps_tokens_are_numbered_in_the_order_in_which_the_store_reads_them(tmp_path: Path) -> None:
    texts = [Text(range(n), np.r_[np.zeros(2), np.ones(n - 2)].astype(np.float32)) for n in (5, 4, 7)]
    with Shelf(tmp_path) as shelf:
        sayings = Sayings(shelf)
        sayings.note(0, texts[:2], [], [])
        sayings.note(2, texts[2:], [], [])
        assert [sayings.stretch(place) for place in range(3)] == [(0, 0, 3), (0, 3, 5), (2, 0, 5)]
        places = sayings.places("seed", 14)
        assert places == sayings.places("seed", 14) != sayings.places("other", 40)[: len(places)]
        assert sum(len(texts[p].tokens) for p in places[:-1]) < 14 <= sum(len(texts[p].tokens) for p in places)
        found = texts_of(sayings, [2, 0])
    assert found[0].values["told"].tolist() == [0, 0, 0, 1, 2, 3, 4]
    assert found[1].values["told"].tolist() == [0, 0, 5, 6, 7]
    assert sum(float(text.weight.sum()) for text in found) == pytest.approx(1)


# --- manifests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told, said",
    [
        (dict(top_k=3), 'top_k belongs to method = "logits", and this is "sequence"'),
        (dict(method="logits", beta=0.5), 'beta belongs to method = "on_policy"'),
        (dict(method="on_policy", learn_from="all"), 'learn_from belongs to method = "sequence" or method = "logits"'),
        (dict(temperature=2.0), 'temperature belongs to method = "logits" or method = "on_policy"'),
        (dict(method="on_policy", by="sampled", own_share=0.5), 'by = "sampled" is the reverse KL'),
        (dict(method="on_policy", by="sampled", sampling=Sampling(top_k=9)), "truncate nothing"),
        (dict(model="tiny-dense", adapter={"rank": 4}, source="teacher"), "begins with random weights"),
        (dict(model="nothing"), 'there is no model preset "nothing"'),
        (dict(export="best", held_out_every=0), "no checkpoint would be measured"),
    ],
)
def test_settings_that_cannot_work_are_told_in_words(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**told)


def test_settings_written_out_in_full_are_the_same_settings() -> None:
    """A run's own manifest has every setting, those of other methods too."""
    config = settings(method="on_policy", beta=0.5)
    assert Distill(**config.model_dump(by_alias=True)) == config


MANIFEST = Path(__file__).parents[1] / "e2e/manifests/distill.toml"


@pytest.mark.parametrize(
    "told, said",
    [
        (["speaker.from=teacher"], "names no student"),
        (['reader.from=["teacher", "teacher"]'], "names a student and its own model"),
        (["speaker.from=[]"], "it needs a model and a model"),
        (["listener.teacher_dtype=bfloat16"], "holds its teacher in bfloat16 and computes in float32"),
    ],
)
def test_a_chain_without_a_student_or_with_two_is_refused(told: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_manifest(str(MANIFEST), told)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_two_models_are_planned_for_where_both_stand() -> None:
    manifest = load_manifest(str(MANIFEST))
    found = {one.stage.name: one.prediction for one in fits(manifest, Place("cpu", 2.0**36, 1))}
    assert set(found) == {"teacher", "reader", "listener", "speaker"}
    teacher = next(s for s in manifest.stages if isinstance(s, Pretrain)).model
    own = 4.0 * numbers(fitting.shapes(teacher))
    assert found["teacher"].moments.keys().isdisjoint({"teach"})
    for name in ("reader", "listener", "speaker"):
        assert found[name].moments["teach"]["teacher"] == own
        assert ("teacher" in found[name].moments["update"]) is (name == "speaker")
    more = load_manifest(str(MANIFEST), ["listener.top_k=64", "speaker.own_share=0.5"])
    larger = {one.stage.name: one.prediction for one in fits(more, Place("cpu", 2.0**36, 1))}
    assert larger["listener"].moments["update"]["batch"] > found["listener"].moments["update"]["batch"]
    assert "cache" in larger["speaker"].moments["teach"] and "cache" not in found["speaker"].moments["teach"]


def test_what_the_planner_tells_twice_is_the_same() -> None:
    assert evaluate.PROBLEMS_PER_CALL == fitting.ANSWERED


def test_a_student_of_random_weights_is_planned_with_its_teachers_words_and_without_adapters() -> None:
    manifest = load_manifest(str(MANIFEST))
    small = next(iter(islice(fits(manifest, Place("cpu", 1.0, 1)), 1, 2)))
    assert small.stage.name == "reader" and not any("adapter" in words for words in small.changes)
    config = fitting._begun(manifest.stage("reader"), 0, {"teacher": fitting._begun(manifest.stage("teacher"), 0, {})})  # type: ignore[dict-item]
    assert config is not None and config.config.vocab_size == 300 and config.config.hidden_size == 16


def test_a_bfloat16_teacher_takes_half() -> None:
    told = ["dtype=bfloat16", "speaker.teacher_dtype=bfloat16"]
    whole, half = (
        {one.stage.name: one.prediction for one in fits(load_manifest(str(MANIFEST), more), Place("cpu", 2.0**36, 1))}
        for more in (told[:1], told)
    )
    assert whole["speaker"].parts["teacher"] == 2 * half["speaker"].parts["teacher"]
