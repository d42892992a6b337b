"""Small functions made of steps: each step in words, in Python, and as it is computed here, where no text is run.

A function takes one value ``x`` and does its steps in order. Three families: ``numbers`` (a whole number to a whole
number), ``lists`` (of whole numbers) and ``strings``; the last step of the latter two may sum up what is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from random import Random
from typing import Any

from seekling.errors import UserError
from seekling.tasks.protocol import identity

VOWELS = "aeiouAEIOU"
_WORDS = (
    "red",
    "apple",
    "Blue",
    "sky",
    "old",
    "Tree",
    "fast",
    "river",
    "Night",
    "owl",
    "Lion",
    "IDEA",
    "queue",
    "moon",
)
_MARKS = "..,,!?-0123456789"
_MOST = 10**12
"""Numbers stay below it on every probe, so that no answer is a matter of size."""

Spec = tuple[str, int]
"""A step's name and its number ``k``; 0 where it has none."""


@dataclass(frozen=True, slots=True)
class Step:
    """``words`` and ``line`` (an expression over ``x``) may hold ``{k}``; ``ks`` are the numbers it may have."""

    words: str
    line: str
    work: Callable[[Any, int], Any]
    ks: Sequence[int] = (0,)
    ends: bool = False


NUMBERS = {
    "add": Step("add {k}", "x + {k}", lambda x, k: x + k, range(2, 30)),
    "subtract": Step("subtract {k}", "x - {k}", lambda x, k: x - k, range(2, 30)),
    "multiply": Step("multiply by {k}", "x * {k}", lambda x, k: x * k, range(2, 10)),
    "square": Step("square it", "x * x", lambda x, k: x * x),
    "negate": Step("change its sign", "-x", lambda x, k: -x),
    "absolute": Step("take its absolute value", "abs(x)", lambda x, k: abs(x)),
    "remainder": Step("take the remainder of dividing it by {k} (never negative)", "x % {k}",
                      lambda x, k: x % k, range(5, 40)),
    "divide": Step("divide by {k} and round down", "x // {k}", lambda x, k: x // k, range(2, 8)),
    "at least": Step("if it is less than {k}, take {k} instead", "max(x, {k})", lambda x, k: max(x, k), range(-20, 20)),
    "at most": Step("if it is more than {k}, take {k} instead", "min(x, {k})", lambda x, k: min(x, k), range(40)),
    "digits": Step("take the sum of its decimal digits", "sum(int(d) for d in str(abs(x)))",
                   lambda x, k: sum(int(d) for d in str(abs(x)))),
    "halve": Step("halve it if it is even, else add {k}", "x // 2 if x % 2 == 0 else x + {k}",
                  lambda x, k: x // 2 if x % 2 == 0 else x + k, range(1, 10)),
}  # fmt: skip

LISTS = {
    "even": Step("keep the even numbers", "[v for v in x if v % 2 == 0]", lambda x, k: [v for v in x if v % 2 == 0]),
    "odd": Step("keep the odd numbers", "[v for v in x if v % 2 == 1]", lambda x, k: [v for v in x if v % 2 == 1]),
    "above": Step("keep the numbers greater than {k}", "[v for v in x if v > {k}]",
                  lambda x, k: [v for v in x if v > k], range(-10, 20)),
    "multiples": Step("keep the multiples of {k}", "[v for v in x if v % {k} == 0]",
                      lambda x, k: [v for v in x if v % k == 0], range(3, 6)),
    "add": Step("add {k} to each number", "[v + {k} for v in x]", lambda x, k: [v + k for v in x], range(1, 20)),
    "multiply": Step("multiply each number by {k}", "[v * {k} for v in x]", lambda x, k: [v * k for v in x],
                     range(2, 10)),
    "square": Step("square each number", "[v * v for v in x]", lambda x, k: [v * v for v in x]),
    "absolute": Step("take the absolute value of each number", "[abs(v) for v in x]", lambda x, k: [abs(v) for v in x]),
    "ascending": Step("sort in ascending order", "sorted(x)", lambda x, k: sorted(x)),
    "descending": Step("sort in descending order", "sorted(x, reverse=True)", lambda x, k: sorted(x, reverse=True)),
    "reverse": Step("reverse the order", "x[::-1]", lambda x, k: x[::-1]),
    "distinct": Step("drop every number that came before", "list(dict.fromkeys(x))",
                     lambda x, k: list(dict.fromkeys(x))),
    "drop": Step("drop the first {k} numbers", "x[{k}:]", lambda x, k: x[k:], range(2, 5)),
    "first": Step("keep the first {k} numbers only", "x[:{k}]", lambda x, k: x[:k], range(2, 6)),
    "alternate": Step("keep every second number, beginning with the first", "x[::2]", lambda x, k: x[::2]),
    "sums": Step("replace each number by the sum of the numbers up to and including it",
                 "[sum(x[:i + 1]) for i in range(len(x))]", lambda x, k: list(accumulate(x))),
    "differences": Step("replace the list by the differences between each number and the one before it",
                        "[x[i + 1] - x[i] for i in range(len(x) - 1)]", lambda x, k: [b - a for a, b in pairwise(x)]),
    "rotate": Step("move the first number to the end", "x[1:] + x[:1]", lambda x, k: x[1:] + x[:1]),
    "sum": Step("return the sum", "sum(x)", lambda x, k: sum(x), ends=True),
    "count": Step("return how many there are", "len(x)", lambda x, k: len(x), ends=True),
    "largest": Step("return the largest, or {k} if there is none", "max(x, default={k})",
                    lambda x, k: max(x, default=k), range(-1, 1), ends=True),
    "smallest": Step("return the smallest, or {k} if there is none", "min(x, default={k})",
                     lambda x, k: min(x, default=k), range(-1, 1), ends=True),
    "count below": Step("return how many are less than {k}", "sum(v < {k} for v in x)",
                        lambda x, k: sum(v < k for v in x), range(20), ends=True),
}  # fmt: skip

STRINGS = {
    "upper": Step("write it in capitals", "x.upper()", lambda x, k: x.upper()),
    "lower": Step("write it in small letters", "x.lower()", lambda x, k: x.lower()),
    "swap": Step("swap small letters and capitals", "x.swapcase()", lambda x, k: x.swapcase()),
    "reverse": Step("reverse it", "x[::-1]", lambda x, k: x[::-1]),
    "no vowels": Step("remove the vowels (a, e, i, o, u, small or capital)",
                      "''.join(c for c in x if c not in 'aeiouAEIOU')",
                      lambda x, k: "".join(c for c in x if c not in VOWELS)),
    "letters": Step("keep the letters only", "''.join(c for c in x if c.isalpha())",
                    lambda x, k: "".join(c for c in x if c.isalpha())),
    "no spaces": Step("remove the spaces", "x.replace(' ', '')", lambda x, k: x.replace(" ", "")),
    "dashes": Step("replace each space by a dash", "x.replace(' ', '-')", lambda x, k: x.replace(" ", "-")),
    "alternate": Step("keep every second character, beginning with the first", "x[::2]", lambda x, k: x[::2]),
    "double": Step("write each character twice", "''.join(c + c for c in x)", lambda x, k: "".join(c + c for c in x)),
    "sort": Step("sort its characters", "''.join(sorted(x))", lambda x, k: "".join(sorted(x))),
    "drop": Step("drop the first {k} characters", "x[{k}:]", lambda x, k: x[k:], range(2, 6)),
    "first": Step("keep the first {k} characters only", "x[:{k}]", lambda x, k: x[:k], range(6, 16)),
    "words": Step("put its words, split at spaces, in reverse order", "' '.join(x.split()[::-1])",
                  lambda x, k: " ".join(x.split()[::-1])),
    "initials": Step("keep the first character of each word, split at spaces", "''.join(w[0] for w in x.split())",
                     lambda x, k: "".join(w[0] for w in x.split())),
    "shift": Step("replace each small letter by the one {k} places on in the alphabet, going round after z",
                  "''.join(chr((ord(c) - 97 + {k}) % 26 + 97) if 'a' <= c <= 'z' else c for c in x)",
                  lambda x, k: "".join(chr((ord(c) - 97 + k) % 26 + 97) if "a" <= c <= "z" else c for c in x),
                  range(1, 26)),
    "length": Step("return its length", "len(x)", lambda x, k: len(x), ends=True),
    "count words": Step("return how many words it has, split at spaces", "len(x.split())",
                        lambda x, k: len(x.split()), ends=True),
    "distinct": Step("return how many different characters it has", "len(set(x))",
                     lambda x, k: len(set(x)), ends=True),
    "capitals": Step("return how many capitals it has", "sum(c.isupper() for c in x)",
                     lambda x, k: sum(c.isupper() for c in x), ends=True),
}  # fmt: skip

FAMILIES: dict[str, dict[str, Step]] = {"numbers": NUMBERS, "lists": LISTS, "strings": STRINGS}
ARGUMENTS = {"numbers": "a whole number", "lists": "a list of whole numbers", "strings": "a string"}
_BORDER: dict[str, list[Any]] = {"numbers": [0, 1, -1], "lists": [[], [0], [-3, -3]], "strings": ["", "a", "X y"]}
_BORDERS = 3
_PROBES, _POOL, _COMMONEST = 40, 120, 0.6
_TRIES, _TRIES_OF_A_STEP = 100, 40


@dataclass(frozen=True, slots=True)
class Function:
    """A family's name and steps."""

    family: str
    steps: tuple[Spec, ...]

    def value(self, x: Any) -> Any:
        """What it makes of ``x``."""
        for name, k in self.steps:
            x = FAMILIES[self.family][name].work(x, k)
        return x

    def words(self) -> list[str]:
        """Each step as a person would say it."""
        return [FAMILIES[self.family][name].words.format(k=k) for name, k in self.steps]

    def lines(self) -> list[str]:
        """Each step as an expression over ``x``."""
        return [FAMILIES[self.family][name].line.format(k=k) for name, k in self.steps]

    def program(self) -> str:
        """As Python."""
        return written(self.lines())

    def without(self, place: int) -> Function:
        """The same with one step left out."""
        return Function(self.family, self.steps[:place] + self.steps[place + 1 :])

    def nudged(self, place: int, by: int) -> Function:
        """The same with one step's number off ``by`` a little; the same in every way where that step has none."""
        name, k = self.steps[place]
        k += by if len(FAMILIES[self.family][name].ks) > 1 else 0
        return Function(self.family, (*self.steps[:place], (name, k), *self.steps[place + 1 :]))

    def near(self) -> list[Function]:
        """Those that a small mistake would make of it."""
        places = range(len(self.steps))
        cut_short = (Function(self.family, self.steps[:place]) for place in places)
        off_by_one = (self.nudged(place, by) for place in places for by in (-1, 1))
        return [*map(self.without, places), *cut_short, *off_by_one]

    def tests(self, count: int, rng: Random) -> list[Any]:
        """Inputs: border cases, some for each near function that tell it from this one, and random ones up to
        ``count``. What tells a mistake is there even if they are more than ``count`` then."""
        pool = inputs(self.family, max(_POOL, count), rng)
        pool += [x for x in probes(self.family) if x not in pool]  # by these, every step is known to matter
        chosen, untold = list(range(_BORDERS)), self.near()
        for place, x in enumerate(pool):
            told = [other for other in untold if not _agree(self, other, x)]
            if told and place >= _BORDERS:
                chosen.append(place)
            untold = [other for other in untold if other not in told]
        rest = [place for place in range(len(pool)) if place not in chosen]
        return [pool[place] for place in chosen + rest[: max(0, count - len(chosen))]]

    def id(self) -> str:
        """The digest of what it does, on inputs that are the same for all: equal however it is put together."""
        return identity("code", self.family, [self.value(x) for x in probes(self.family)])


def written(lines: Sequence[str]) -> str:
    """The function ``f`` whose lines those are."""
    return "".join(("def f(x):\n", *(f"    x = {line}\n" for line in lines), "    return x"))


def drawn(family: str, count: int, rng: Random) -> Function:
    """``count`` steps, each of which changes what comes out, and no outcome so common that it could be guessed.

    Raises UserError when none such turns up.
    """
    for _ in range(_TRIES):
        growing = _Growing(family, (), [probes(family)], [])
        while len(growing.steps) < count:
            longer = growing.longer(rng, is_last=len(growing.steps) == count - 1)
            if longer is None:
                break
            growing = longer
        else:
            return Function(family, growing.steps)
    raise UserError(f"no function of {count} steps turns up", where=f"code, {family}", next_step="Ask for fewer steps.")


def inputs(family: str, count: int, rng: Random) -> list[Any]:
    """Distinct inputs, the border cases first."""
    found = list(_BORDER[family][:count])
    while len(found) < count:
        new = _INPUTS[family](rng)
        if new not in found:
            found.append(new)
    return found


def probes(family: str) -> list[Any]:
    """Inputs that are the same for every function of a family."""
    return inputs(family, _PROBES, Random(f"probes/{family}"))


@dataclass(frozen=True, slots=True)
class _Growing:
    """Steps so far and what has become of the probes: by all steps, and then by all but each single one.

    ``past`` is what all steps had made of them at each stage before: what leads back there leads nowhere.
    """

    family: str
    steps: tuple[Spec, ...]
    values: list[list[Any]]
    past: list[list[Any]]

    def longer(self, rng: Random, *, is_last: bool) -> _Growing | None:
        """One step more, unlike the one before, so that all still matter; None when none turns up."""
        catalogue, before = FAMILIES[self.family], self.steps[-1:]
        names = [name for name, step in catalogue.items() if is_last or not step.ends]
        for _ in range(_TRIES_OF_A_STEP):
            name = rng.choice(names)
            spec = name, rng.choice(catalogue[name].ks)
            if not before or before[0][0] != name:
                after = [[catalogue[name].work(x, spec[1]) for x in values] for values in self.values]
                past = [*self.past, self.values[0]]
                grown = _Growing(self.family, (*self.steps, spec), [*after, self.values[0]], past)
                if grown._is_sound():
                    return grown
        return None

    def _is_sound(self) -> bool:
        whole, *shorter = self.values
        counts = Counter(map(repr, whole))
        is_varied = max(counts.values()) <= _COMMONEST * len(whole)
        return is_varied and all(map(_is_small, whole)) and whole not in [*shorter, *self.past]


def _agree(one: Function, other: Function, x: Any) -> bool:
    return bool(one.value(x) == other.value(x))


def _is_small(value: Any) -> bool:
    if isinstance(value, list):
        return all(abs(v) < _MOST for v in value)
    return len(value) < 1000 if isinstance(value, str) else bool(abs(value) < _MOST)


def _numbers(rng: Random) -> int:
    return rng.choice((rng.randint(-20, 60), rng.randint(-999, 9999)))


def _lists(rng: Random) -> list[int]:
    most = rng.choice((12, 30, 99))
    return [rng.randint(-most // 2, most) for _ in range(rng.randint(1, 12))]


def _strings(rng: Random) -> str:
    return " ".join(rng.choice(_WORDS) + rng.choice(("", "", rng.choice(_MARKS))) for _ in range(rng.randint(1, 5)))


_INPUTS: dict[str, Callable[[Random], Any]] = {"numbers": _numbers, "lists": _lists, "strings": _strings}
