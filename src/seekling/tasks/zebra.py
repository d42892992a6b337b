"""Zebra puzzles: houses in a row, who lives in them and with what, from clues that leave exactly one solution.

No worked traces: a model from nothing does not learn these in minutes; they are for models that can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, names

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "{}": ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gita", "Hugo"),
    "the owner of the {}": ("cat", "dog", "fox", "hen", "mouse", "owl", "pony", "zebra"),
    "the drinker of {}": ("cider", "cocoa", "coffee", "juice", "lemonade", "milk", "tea", "water"),
    "the {}": ("baker", "doctor", "farmer", "judge", "painter", "sailor", "singer", "teacher"),
    "the one who came by {}": ("bike", "boat", "bus", "car", "ferry", "plane", "train", "tram"),
}
"""How somebody is named by an attribute, and its values; the first attribute is the name."""

NOUNS = ("name", "pet", "drink", "job", "transport")
MOST = 8
"""Houses: as many as an attribute has values."""

RELATIONS: Mapping[str, tuple[str, Callable[[int, int], bool]]] = {
    "same": ("{} is {}", lambda one, other: one == other),
    "apart": ("{} is not {}", lambda one, other: one != other),
    "left": ("{} lives somewhere to the left of {}", lambda one, other: one < other),
    "next": ("{} lives directly to the left of {}", lambda one, other: one + 1 == other),
    "beside": ("{} lives next to {}", lambda one, other: abs(one - other) == 1),
    "between": ("exactly one house stands between those of {} and {}", lambda one, other: abs(one - other) == 2),
}
SYMMETRIC = ("same", "apart", "beside", "between")


class Value(NamedTuple):
    """One value of one attribute, both by number."""

    attribute: int
    place: int


class Clue(NamedTuple):
    """A relation between the houses of two values; of "at" and "not at" the second is the number of a house."""

    relation: str
    one: Value
    other: Value | int

    def holds(self, houses: Mapping[Value, int]) -> bool:
        """Whether it is true where ``houses`` are those of its values."""
        if isinstance(self.other, int):
            return (houses[self.one] == self.other) == (self.relation == "at")
        return RELATIONS[self.relation][1](houses[self.one], houses[self.other])


class Zebra(Settings):
    """Who lives in which house, and with what: the whole row is asked for, so that it cannot be guessed.

    Clues are drawn until one solution is left, and none is there that could be missed. A size is a number of houses.
    """

    quick: ClassVar[bool] = True

    name: str = Field("zebra", pattern="^zebra$")
    sizes: tuple[int, ...] = Field((3, 4), min_length=1, description="how many houses")
    attributes: int = Field(3, ge=2, le=len(ATTRIBUTES), description="how many things are told of each, names included")
    direct: float = Field(0.15, ge=0, le=1, description="share of clues drawn that name a house by its number")

    @model_validator(mode="after")
    def _is_possible(self) -> Zebra:
        if min(self.sizes) < 2 or max(self.sizes) > MOST:
            raise ValueError(f"sizes must lie between 2 and {MOST}")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A row of ``size`` houses and clues to it. Raises UserError for more houses than an attribute has values."""
        count = size or rng.choice(self.sizes)
        if count > MOST:
            raise UserError(f"zebra builds no {count} houses", next_step=f"{MOST} are the most.")
        kinds = range(self.attributes)
        chosen = [sorted(rng.sample(values, count)) for values in list(ATTRIBUTES.values())[: self.attributes]]
        truth = {Value(a, place): house for a in kinds for place, house in enumerate(rng.sample(range(count), count))}
        clues = self._clues(truth, count, rng)
        said = [_worded(clue, chosen) for clue in clues]
        rows = [[chosen[a][place] for (a, place), there in truth.items() if there == house] for house in range(count)]
        return Problem(
            id=identity(self.name, count, self.attributes, chosen, sorted(said)),
            task=self.name,
            prompt=_prompt(chosen, said),
            answer=_row(rows),
            size=count,
            info={"rows": rows, "clues": clues},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for every house from left to right with all that is asked of it, in the order asked."""
        return compared(names(answer), names(problem.answer))

    def guess(self, problem: Problem, rng: Random) -> str:
        """The values of each attribute in a uniformly random order."""
        columns = [rng.sample(list(column), problem.size) for column in zip(*problem.info["rows"], strict=True)]
        return _row([list(row) for row in zip(*columns, strict=True)])

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """Other separators, small letters."""
        key = problem.answer
        return [key.replace(", ", "\n"), key.replace(",", ""), key.replace(" ", ", ").replace(",,", ","), key.lower()]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Two houses exchanged, in one attribute or in all, the row reversed, a house or a word missing or more."""
        rows, key = [list(row) for row in problem.info["rows"]], problem.answer
        swapped = []
        for attribute in range(len(rows[0])):
            one, other = rng.sample(range(len(rows)), 2)
            changed = [list(row) for row in rows]
            changed[one][attribute], changed[other][attribute] = rows[other][attribute], rows[one][attribute]
            swapped.append(changed)
        near = [*swapped, rows[::-1], rows[:-1], rows[1:], [*rows, rows[0]], [rows[1], rows[0], *rows[2:]]]
        return [*map(_row, near), key.rpartition(" ")[0], f"{key} {rows[0][0]}", key.replace(", ", "; "), rows[0][0]]

    def _clues(self, truth: Mapping[Value, int], count: int, rng: Random) -> list[Clue]:
        """True clues, drawn to rule out one wrong solution after another; then those that are not needed leave."""
        clues: list[Clue] = []
        while (wrong := _another(truth, clues, count)) is not None:
            clue = self._clue(truth, count, rng)
            if not clue.holds(wrong):
                clues.append(clue)
        for clue in list(clues):
            rest = [other for other in clues if other is not clue]
            if _another(truth, rest, count) is None:
                clues = rest
        return clues

    def _clue(self, truth: Mapping[Value, int], count: int, rng: Random) -> Clue:
        """A random clue that is true."""
        while True:
            one, other = rng.sample(list(truth), 2)
            if rng.random() < self.direct:
                house = rng.randrange(count)
                return Clue("at" if truth[one] == house else "not at", one, house)
            relation = rng.choice(list(RELATIONS))
            if relation in SYMMETRIC:
                one, other = sorted((one, other))
            clue = Clue(relation, one, other)
            if clue.holds(truth) and (one.attribute != other.attribute or relation not in ("same", "apart")):
                return clue


def solutions(clues: Sequence[Clue], count: int, attributes: int) -> Iterator[dict[Value, int]]:
    """Every way to put the values into ``count`` houses under which all clues hold."""
    places = [Value(a, place) for a in range(attributes) for place in range(count)]
    open_houses = {value: set(range(count)) for value in places}
    for clue in clues:
        if isinstance(clue.other, int):
            house = {clue.other}
            open_houses[clue.one] &= house if clue.relation == "at" else set(range(count)) - house
    pairs = [clue for clue in clues if not isinstance(clue.other, int)]
    yield from _filled({}, open_houses, pairs)


def _filled(
    houses: dict[Value, int], open_houses: dict[Value, set[int]], clues: Sequence[Clue]
) -> Iterator[dict[Value, int]]:
    """Fill in the value with the fewest houses left, each in turn, and strike out what that rules out."""
    if not open_houses:
        yield houses
        return
    value = min(open_houses, key=lambda v: len(open_houses[v]))
    for house in sorted(open_houses[value]):
        rest = {v: set(left) for v, left in open_houses.items() if v != value}
        for v in rest:
            if v.attribute == value.attribute:
                rest[v].discard(house)
        for clue in clues:
            _strike(clue, value, house, rest)
        if all(rest.values()):
            yield from _filled(houses | {value: house}, rest, clues)


def _strike(clue: Clue, value: Value, house: int, rest: dict[Value, set[int]]) -> None:
    """Leave to the clue's other value only the houses where the clue holds."""
    test = RELATIONS[clue.relation][1]
    if clue.one == value and clue.other in rest:
        rest[clue.other] = {there for there in rest[clue.other] if test(house, there)}
    elif clue.other == value and clue.one in rest:
        rest[clue.one] = {there for there in rest[clue.one] if test(there, house)}


def _another(truth: Mapping[Value, int], clues: Sequence[Clue], count: int) -> dict[Value, int] | None:
    """A solution that is not the true one, or None when there is no other."""
    attributes = len(truth) // count
    return next((found for found in solutions(clues, count, attributes) if found != truth), None)


def _worded(clue: Clue, chosen: Sequence[Sequence[str]]) -> str:
    one = _who(clue.one, chosen)
    if isinstance(clue.other, int):
        said = f"{one} {'lives' if clue.relation == 'at' else 'does not live'} in house {clue.other + 1}."
    else:
        said = RELATIONS[clue.relation][0].format(one, _who(clue.other, chosen)) + "."
    return said[0].upper() + said[1:]


def _who(value: Value, chosen: Sequence[Sequence[str]]) -> str:
    return list(ATTRIBUTES)[value.attribute].format(chosen[value.attribute][value.place])


def _prompt(chosen: Sequence[Sequence[str]], clues: Sequence[str]) -> str:
    kinds = [f"{noun}: {', '.join(values)}" for noun, values in zip(NOUNS, chosen, strict=False)]
    asked = " ".join(NOUNS[: len(chosen)])
    return "\n".join([
        f"{len(chosen[0])} houses stand in a row, number 1 on the left. Those who live there differ in everything.",
        *kinds,
        *clues,
        f"Tell of each house, from left to right: {asked}, {asked} and so on.",
    ])  # fmt: skip


def _row(rows: Sequence[Sequence[str]]) -> str:
    return ", ".join(" ".join(row) for row in rows)
