"""Following instructions: write about something, held to constraints that can be checked.

    Write about the sea. Use the words "wave" and "salt". Write at least 40 words. Use no commas.

All that is said outside the thinking is checked, and every constraint must be kept. A reply about nothing cannot pass,
since words of the topic are always asked for. In English and in Chinese. Keys are put together from simple sentences:
they show that the constraints can be kept together, not how to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.instruction_kinds import KINDS, Draft, Kind
from seekling.tasks.protocol import identity
from seekling.tasks.topics import TOPICS
from seekling.verify.constraints import POLICIES

MOST = 6
"""Constraints that can be asked for at once."""
_MAX_DRAWS = 400

Asked = list[tuple[str, dict[str, Any]]]
"""Names of constraints, each with its arguments."""


class Instructions(Settings):
    """Constrained writing. A size is the number of constraints.

    ``policy`` is strict, the reply as it stands, or loose: each constraint is kept by the reply or by what is left of
    it without its first line, its last line or its asterisks.
    """

    quick: ClassVar[bool] = True
    reads: ClassVar[str] = "reply"

    name: str = Field("instructions", pattern="^instructions$")
    sizes: tuple[int, ...] = Field((2, 3, 4), min_length=1, description="how many constraints")
    languages: tuple[Literal["en", "zh"], ...] = Field(("en", "zh"), min_length=1, description="of the prompts")
    kinds: tuple[str, ...] = Field((), description="constraints to draw from, by name; none: all of them")
    policy: Literal["strict", "loose"] = Field("strict", description="which form of a reply is held to them")

    @model_validator(mode="after")
    def _is_possible(self) -> Instructions:
        if not 1 <= min(self.sizes) <= max(self.sizes) <= MOST:
            raise ValueError(f"sizes must lie between 1 and {MOST}")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f'no kind of constraint is called "{unknown[0]}"; known: {", ".join(sorted(KINDS))}')
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """Constraints that a reply of simple sentences can keep. Raises UserError for more than go together."""
        count, language = size or rng.choice(self.sizes), rng.choice(self.languages)
        for _ in range(_MAX_DRAWS if count <= MOST else 0):
            topic = rng.choice(TOPICS[language])
            asked = self._asked(count, language, topic.words, rng)
            if asked and (key := self._reply(asked, language, topic.name, rng)) is not None:
                return self._problem(asked, language, topic.name, key)
        raise UserError(
            f"instructions finds no {count} constraints that go together",
            next_step=f"Ask for {MOST} at most, or for more kinds.",
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for a reply that keeps every constraint."""
        return Verdict.PASS if POLICIES[self.policy](answer, _constraints(problem)) else Verdict.WRONG

    def guess(self, problem: Problem, rng: Random) -> str:
        """A few sentences about the topic, whatever else is asked."""
        draft = Draft(problem.info["language"], problem.info["topic"], rng)
        return " ".join(draft.sentence() for _ in range(rng.randint(1, 8)))

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Other replies that keep the constraints."""
        asked = _constraints(problem)
        found = [self._reply(asked, problem.info["language"], problem.info["topic"], rng, tries=20) for _ in range(3)]
        return [reply for reply in found if reply is not None and reply != problem.answer]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """The key with one constraint broken, for each that surely can be while replies are taken as they stand."""
        broken = [KINDS[name].broken(problem.answer, arguments) for name, arguments in _constraints(problem)]
        return [text for text in broken if text is not None] if self.policy == "strict" else []

    def _asked(self, count: int, language: str, words: tuple[str, ...], rng: Random) -> Asked:
        """Words of the topic, and ``count - 1`` other constraints no two of which concern the same thing; or none."""
        keywords = "keywords:existence"
        asked: Asked = [(keywords, KINDS[keywords].draw(rng, words, language))]
        names = [name for name in (self.kinds or KINDS) if name != keywords and language in KINDS[name].languages]
        taken: set[str] = set()
        for name in rng.sample(names, len(names)):
            if len(asked) == count:
                break
            kind = KINDS[name]
            if not taken & kind.concerns:
                taken |= kind.concerns
                asked.append((name, kind.draw(rng, words, language)))
        return asked if len(asked) == count else []

    def _reply(self, asked: Asked, language: str, topic: str, rng: Random, tries: int = 6) -> str | None:
        """A reply that keeps all of them, or None when none of a few attempts does."""
        for _ in range(tries):
            draft = Draft(language, topic, rng)
            for name, arguments in sorted(asked, key=lambda pair: KINDS[pair[0]].place):
                KINDS[name].keep(draft, arguments)
            reply = draft.text()
            if POLICIES["strict"](reply, asked):
                return reply
        return None

    def _problem(self, asked: Asked, language: str, topic: str, key: str) -> Problem:
        blank = " " if language == "en" else ""
        opening = f"Write about {topic}." if language == "en" else f"请写一写{topic}。"
        told = blank.join([opening, *(_words(KINDS[name], language, arguments) for name, arguments in asked)])
        return Problem(
            id=identity(self.name, language, topic, sorted((name, sorted(a.items())) for name, a in asked)),
            task=self.name,
            prompt=told,
            answer=key,
            size=len(asked),
            info={"language": language, "topic": topic, "constraints": tuple(asked)},
        )


def _words(kind: Kind, language: str, arguments: Mapping[str, Any]) -> str:
    return (kind.english if language == "en" else kind.chinese)(arguments)


def _constraints(problem: Problem) -> Asked:
    """The problem's own; they may have been through JSON."""
    return [(name, dict(arguments)) for name, arguments in problem.info["constraints"]]
