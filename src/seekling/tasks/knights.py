"""Knights and knaves: reasoning from what can be known, person after person, is what there is to find.

    A says B or A is a knave. B says C is a knight. C says A is a knave. Who are knights?

Knights speak the truth, knaves lie, and everybody speaks once. One says of himself and another what gives both away;
from there every other follows, one after another, so there is exactly one solution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from string import ascii_uppercase
from typing import ClassVar

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, names

KINDS = ("knave", "knight")
WORDS = {
    "knight": "{0} says {1} is a knight.",
    "knave": "{0} says {1} is a knave.",
    "alike": "{0} says {1} and {2} are alike.",
    "unlike": "{0} says {1} and {2} are not alike.",
    "either": "{0} says {1} or {0} is a knave.",
    "both": "{0} says {1} and {0} are knaves.",
}
_LINE = re.compile(r"^([A-Z]) (knight|knave)$")

Statement = tuple[str, ...]
"""A form of ``WORDS``, the speaker, and whom it is about."""


class Knights(Settings):
    """Knights speak the truth, knaves lie: who are the knights?

    Qualities of traces: expert begins where two give themselves away and goes on from known to unknown, right; trusting
    takes everybody at his word; guess says anything; gives_up begins well and takes all others for knights.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "trusting", "guess", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.2, "trusting": 0.3, "guess": 0.2, "gives_up": 0.3}

    # Fewer than 5 people could be told apart blindly in 8 tries.
    name: str = Field("knights", pattern="^knights$")
    sizes: tuple[int, ...] = Field((5, 6), min_length=1, description="how many people")
    pairs: float = Field(0.25, ge=0, le=1, description="share of statements that compare two others")

    @model_validator(mode="after")
    def _is_possible(self) -> Knights:
        if min(self.sizes) < 2 or max(self.sizes) > len(ascii_uppercase):
            raise ValueError("sizes must lie between 2 and 26")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """People whose kinds follow from what they say. Raises UserError for fewer than 2 or more than 26."""
        count = size or rng.choice(self.sizes)
        if not 2 <= count <= len(ascii_uppercase):
            raise UserError(f"knights knows no {count} people", next_step="Ask for 2 to 26, one for each letter.")
        order = rng.sample(ascii_uppercase[:count], count)
        kinds, statements = self._told(order, rng)
        said = [WORDS[form].format(*who) for form, *who in _by_speaker(statements)]
        return Problem(
            id=identity(self.name, sorted(statements)),
            task=self.name,
            prompt=" ".join([*said, "Who are knights?"]),
            answer=_knights(kinds),
            size=count,
            info={"statements": _by_speaker(statements), "order": order},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for all knights and nobody else, each named once, in any order."""
        said = names(answer)
        return compared(said and sorted(said), problem.answer.lower().split())

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the knights it arrived at."""
        order, knights = list(problem.info["order"]), set(problem.answer.split())
        kinds = {person: person in knights for person in order}
        if quality == "trusting":
            kinds = _at_their_word(sorted(order), problem.info["statements"])
        elif quality == "guess":
            kinds = self._any_kinds(sorted(order), rng)
        elif quality == "gives_up":
            kinds |= dict.fromkeys(order[rng.randint(2, max(2, len(order) - 2)) :], True)
        thinking = "\n".join(f"{person} {KINDS[kind]}" for person, kind in kinds.items())
        return f"<think>{thinking}</think><answer>{_knights(kinds)}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Statements of which all but one person is known, with what follows: always right."""
        lines = []
        for _ in range(max(1, count // 3)):
            people = rng.sample(ascii_uppercase[: max(3, *self.sizes)], 3)
            kinds, statements = self._told(people, rng)
            form, *who = next(said for said in statements if people[2] in said[1:])
            known = [person for person in people if person in who]
            told = [f"{person} {KINDS[kinds[person]]}" for person in known]
            lines += [WORDS[form].format(*who), *told]
        return "\n".join(lines)

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The kinds that the thinking arrives at, sorted, when it names everybody, each once to a round."""
        told = [found.groups() for line in thinking.split("\n") if (found := _LINE.match(line))]
        size = problem.size
        rounds = [told[place : place + size] for place in range(0, len(told) - size + 1, size)]
        return [
            "\n".join(f"{person} {kind}" for person, kind in sorted(one))
            for one in rounds
            if len({person for person, _ in one} & set(problem.info["order"])) == size
        ]

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last attempt names the right knights."""
        last = "".join(self.attempts(problem, thinking)[-1:])
        return [line[0] for line in last.split("\n") if line.endswith("knight")] == problem.answer.split()

    def guess(self, problem: Problem, rng: Random) -> str:
        """Some of the people, neither none nor all: there is always one of each kind."""
        return _knights(self._any_kinds(sorted(problem.info["order"]), rng))

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Another order, other separators, small letters."""
        key = problem.answer.split()
        listed = ", ".join(key[:-1]) + " and " + key[-1] if key[1:] else key[0]
        return [" ".join(key[::-1]), ", ".join(key), listed, " ".join(key).lower(), "\n".join(key)]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Everybody, the knaves, one too many or too few or twice, and kinds in place of names."""
        people, key = sorted(problem.info["order"]), problem.answer.split()
        knaves = [person for person in people if person not in key]
        near = [people, knaves, [*key, knaves[0]], key[1:], [*key, key[0]], [*key[:-1], knaves[-1]], [*key, "Z"]]
        said = " ".join(f"{person} {KINDS[person in key]}" for person in people)
        return [*map(" ".join, near), said, "".join(key) + "x", f"not {' '.join(knaves)}", "knight"]

    def _any_kinds(self, people: Sequence[str], rng: Random) -> dict[str, bool]:
        while True:
            kinds = {person: rng.random() < 0.5 for person in people}
            if len(set(kinds.values())) == 2:
                return kinds

    def _told(self, order: Sequence[str], rng: Random) -> tuple[dict[str, bool], list[Statement]]:
        """Kinds, and one statement of each, such that people can be made out in ``order``, the first two at once."""
        first, second, *others = order
        form = rng.choice(("either", "both"))
        kinds = {first: form == "either", second: form == "both"}
        statements: list[Statement] = [(form, first, second)]
        silent = [second]
        for person in others:
            known = list(kinds)
            kinds[person] = rng.random() < 0.5
            if silent and rng.random() < 0.5:
                speaker = silent.pop(rng.randrange(len(silent)))
                about = [person, *(other for other in known if other != speaker)]
                silent.append(person)
            else:
                speaker, about = person, rng.sample(known, len(known))
            statements.append(self._statement(speaker, about, kinds, rng))
        for speaker in silent:
            about = [person for person in order if person != speaker]
            statements.append(self._statement(speaker, rng.sample(about, len(about)), kinds, rng))
        return kinds, statements

    def _statement(self, speaker: str, about: Sequence[str], kinds: Mapping[str, bool], rng: Random) -> Statement:
        """What ``speaker`` says of the first of ``about``, or of it and another: true from a knight, else false."""
        if len(about) > 1 and rng.random() < self.pairs:
            pair = about[0], rng.choice(about[1:])
            are_alike = kinds[pair[0]] == kinds[pair[1]]
            return ("alike" if are_alike == kinds[speaker] else "unlike", speaker, *sorted(pair))
        return (KINDS[kinds[about[0]] == kinds[speaker]], speaker, about[0])


def holds(statement: Sequence[str], kinds: Mapping[str, bool]) -> bool:
    """Whether what is said is true; the puzzle wants it to be so exactly when its speaker is a knight."""
    form, speaker, one, *other = statement
    match form:
        case "either":
            return not (kinds[speaker] and kinds[one])
        case "both":
            return not (kinds[speaker] or kinds[one])
        case "alike" | "unlike":
            return (kinds[one] == kinds[other[0]]) == (form == "alike")
    return kinds[one] == (form == "knight")


def _by_speaker(statements: Sequence[Statement]) -> list[Statement]:
    return sorted(statements, key=lambda said: said[1])


def _at_their_word(people: Sequence[str], statements: Sequence[Statement]) -> dict[str, bool]:
    """What everybody would be if all that is said of single people were true, the last word counting."""
    told = {one: form == "knight" for form, _, one, *_ in statements if form in KINDS}
    return {person: told.get(person, True) for person in people}


def _knights(kinds: Mapping[str, bool]) -> str:
    return " ".join(sorted(person for person, kind in kinds.items() if kind))
