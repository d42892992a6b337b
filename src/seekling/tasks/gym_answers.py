"""Answers to reasoning-gym's problems, read strictly: which forms may reach its scorers, and keys where it gives none.

Its scorers are written to give credit to models at large, and a policy that is paid by them finds out. Of those in
0.1.25 some take any text for right (``game_of_life_halting``), the first number in a text (``gsm_symbolic``), the key
with words around it (``sokoban``, ``kakurasu`` and others), any four numbers that make 24 (``puzzle24``), or the key
with one part left out; and some hand the text to ``eval`` (``binary_matrix``) or to a parser made of it
(``countdown``). So here a family has one right answer, which must be said (``same``), or stands in ``FORMS``: then
what has that form is scored by the library.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import accumulate
from typing import Any

MAX_CHARS = 20_000
_NUMBER = re.compile(r"[-+]?[0-9]{1,60}(?:\.[0-9]{1,60})?(?:e[-+]?[0-9]{1,3})?|[0-9]{1,60}/[0-9]{1,60}")
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")

_SUM = r"(?:[-+/() ]|\*(?!\*)|[0-9]{1,12}(?![0-9])){1,200}"
_POWER = r"\*\* ?(?:[0-9]{1,3}|\(-?[0-9]{1,3}(?:/[0-9]{1,3})?\))(?! ?\*\*)"
_ALGEBRA = (
    rf"(?:{_POWER}|[-+/() ]|\*(?!\*)|[0-9]{{1,12}}(?:\.[0-9]{{1,12}})?(?![0-9A-Za-z.])"
    r"|(?<![A-Za-z])(?:[A-Za-z]|exp|log|sqrt|a?(?:sin|cos|tan)h?)(?![A-Za-z0-9])){1,400}"
)
_DECIMAL = r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?"

FORMS: Mapping[str, re.Pattern[str]] = {
    family: re.compile(form)
    for family, form in {
        "binary_matrix": r"[0-9 \n\[\],]+",
        "bitwise_arithmetic": r"-?0x[0-9A-Fa-f]{1,64}",
        "boxnet": r"[\[\]{}\",:A-Za-z0-9_.() \n]+",
        "complex_arithmetic": r"[-+0-9.i() ]{1,60}",
        "countdown": _SUM,
        "cryptarithm": r"(?!.*([A-Z])=.*\1=)[A-Z]=[0-9](?:, ?[A-Z]=[0-9]){0,9}",
        "graph_color": r"\{[ \n]*\"[0-9]+\": ?[0-9]+(?:,[ \n]*\"[0-9]+\": ?[0-9]+)*[ \n]*\}",
        "group_anagrams": r"[\[\]\",A-Za-z' \n-]+",
        "intermediate_integration": _ALGEBRA,
        "jugs": r"[\[\]\",A-Za-z> \n-]+",
        "kakurasu": r"[01](?: ?[01])*(?:\n[01](?: ?[01])*)*",
        "knight_swap": r"[Nn]o|[\[\]\",A-Za-z0-9 \n]+",
        "knights_knaves": r"[A-Z][a-z]+ is an? [a-z]+(?:(?:, and |, | and )[A-Z][a-z]+ is an? [a-z]+)*\.?",
        "n_queens": r"[Q_ \n]+",
        "number_format": _DECIMAL,
        "palindrome_generation": r"[A-Za-z]+",
        "palindrome_partitioning": r"[\[\]\",a-z \n]+",
        "polynomial_equations": rf"{_DECIMAL}(?:, ?{_DECIMAL})*",
        "polynomial_multiplication": _ALGEBRA,
        "power_function": r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?",
        "prime_factorization": r"[0-9]{1,12}(?: ?[×*x] ?[0-9]{1,12})*",
        "propositional_logic": r"(?!.*[A-Z] *[A-Z])[A-Z¬∧∨→↔⊕() ]{1,400}",
        "puzzle24": _SUM,
        "quantum_lock": r"[ABC](?: ?→ ?[ABC])*",
        "rubiks_cube": r"[A-Za-z]'?[0-9]?(?: [A-Za-z]'?[0-9]?){0,2000}",
        "rush_hour": r"[A-Z][+-][1-9](?: [A-Z][+-][1-9])*",
        "shortest_path": r"(?:left|right|up|down)(?: (?:left|right|up|down))*",
        "simple_integration": _ALGEBRA,
        "sokoban": r"[LRUD]+",
        "spiral_matrix": r"[0-9 \n\[\],]+",
        "string_insertion": r"[A-E\[\]\"', ]+",
        "tower_of_hanoi": r"Move disk [0-9]+ from Peg [0-9]+ to Peg [0-9]+"
        r"(?:\n+Move disk [0-9]+ from Peg [0-9]+ to Peg [0-9]+)*",
        "word_ladder": r"[A-Za-z]+(?:, ?[A-Za-z]+)+",
    }.items()
}
"""Families with more than one right answer, or one in many forms, or whose scorer gives the text to Python: what may
reach it. No form here holds a name that Python would look up, a power of a power, or words around an answer."""


def same(said: str, key: str) -> bool:
    """Whether ``said`` is the key: its lines, its words and numbers, or its JSON, whatever the spacing.

    Numbers are equal by value, none for being near: more digits than were asked for are another number. Case counts,
    except for a key of one word.
    """
    if len(said) > MAX_CHARS or not said.strip():
        return False
    if _WORD.fullmatch(key):
        return said.strip().lower() == key.lower()
    if key[0] in "[{":
        return _same_json(said, key)
    ours, theirs = _lines(said), _lines(key)
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _uses_the_numbers(said: str, told: Mapping[str, Any]) -> bool:
    return Counter(re.findall(r"[0-9]+", said)) == Counter(map(str, told["numbers"]))


def _closes_its_brackets(said: str, told: Mapping[str, Any]) -> bool:
    depths = list(accumulate({"(": 1, ")": -1}.get(sign, 0) for sign in said))
    return min(depths) == 0 == depths[-1] if "(" in said else ")" not in said


def _moves_legally(said: str, told: Mapping[str, Any]) -> bool:
    cars, walls = _parked(told["board_config"])
    state = tuple(cells[0] for cells, _ in cars)
    for name, sign, squares in re.findall(r"([A-Z])([+-])([1-9])", said):
        for _ in range(int(squares)):
            wanted = (ord(name) - ord("A"), 1 if sign == "+" else -1)
            after = {(car, by): moved for car, by, moved in _drives(state, cars, walls)}
            if wanted not in after:
                return False
            state = after[wanted]
    return True


ASKS_MORE: Mapping[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "puzzle24": _uses_the_numbers,
    "propositional_logic": _closes_its_brackets,
    "rush_hour": _moves_legally,
}
"""What a scorer leaves out, by family, from the answer and the problem's metadata."""


def _same_line(said: list[str], key: list[str]) -> bool:
    return len(said) == len(key) and all(map(_same_word, said, key))


def _same_word(said: str, key: str) -> bool:
    if said == key:
        return True
    is_read = _NUMBER.fullmatch(said) and _NUMBER.fullmatch(key) and "/" not in key
    return bool(is_read) and _value(said) == _value(key)


def _value(number: str) -> Fraction:
    try:
        return Fraction(number)
    except ZeroDivisionError:
        return Fraction(-1, 7)  # of no key


def _lines(text: str) -> list[list[str]]:
    """Words by line; blanks around commas mean nothing, nor do empty lines."""
    found = (re.sub(r"[ \t]*,[ \t]*", " , ", line).split() for line in text.splitlines())
    return [words for words in found if words]


def _same_json(said: str, key: str) -> bool:
    try:
        return bool(_plain(_json(said)) == _plain(_json(key)))
    except (ValueError, RecursionError):
        return False


def _json(text: str) -> Any:
    """JSON, or a list as Python writes it, with strings in single quotes."""
    return json.loads(text.replace("'", '"') if '"' not in text else text)


def _plain(value: Any) -> Any:
    """Strings that are numbers, and numbers, as exact values; true and false apart from 1 and 0."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (int, float, str)) and not isinstance(value, bool) and _NUMBER.fullmatch(str(value)):
        return _value(str(value))
    return (type(value).__name__, value)


def key_of(family: str, entry: Mapping[str, Any]) -> str:
    """The key: the library's, or one made from what it tells where it has none. Blank where there is no answer."""
    answer = entry["answer"]
    key = KEYS[family](entry["metadata"]) if answer is None else str(answer)
    return "" if "Integral(" in key else key


def _coloured(told: Mapping[str, Any]) -> str:
    return json.dumps({str(vertex): colour for vertex, colour in told["possible_answer"].items()})


def _carried(told: Mapping[str, Any]) -> str:
    """Boxes one after another, each a square at a time to its target."""
    # Copied: the scorer reads the same lists again.
    squares = {(float(x), float(y)): list(things) for place, things in told["initial_state"].items()
               for x, y in [place.split("_")]}  # fmt: skip
    plan = []
    for place, box in [(place, thing) for place, things in squares.items() for thing in things if "box_" in thing]:
        target = box.replace("box_", "target_")
        goal = min((p for p, things in squares.items() if target in things), key=lambda p: _apart(p, place))
        squares[goal].remove(target)
        for x, y in _way(place, goal):
            plan.append({f"Agent[{place[0]}, {place[1]}]": f"move({box}, square[{x}, {y}])"})
            place = (x, y)
        plan.append({f"Agent[{place[0]}, {place[1]}]": f"move({box}, {target})"})
    return json.dumps(plan)


def _apart(a: tuple[float, float], b: tuple[float, float]) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _way(start: tuple[float, float], goal: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """The squares after ``start``, first along x, then along y."""
    x, y = start
    while (x, y) != goal:
        if x != goal[0]:
            x += 1 if goal[0] > x else -1
        else:
            y += 1 if goal[1] > y else -1
        yield x, y


def _driven(told: Mapping[str, Any]) -> str:
    """Rush hour, breadth first: the fewest moves of one square each, joined where one car goes on."""
    cars, walls = _parked(told["board_config"])
    start = tuple(cells[0] for cells, _ in cars)
    before: dict[tuple[int, ...], tuple[tuple[int, ...], int, int] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        if state[0] == 16:  # the red car's end touches the exit
            return _told_moves(state, before)
        for car, by, after in _drives(state, cars, walls):
            if after not in before:
                before[after] = (state, car, by)
                waiting.append(after)
    return ""


def _parked(board: str) -> tuple[list[tuple[list[int], int]], set[int]]:
    """Each car's cells and its stride, in the order of their letters, and the walls; rows of six."""
    letters = sorted(set(board) - set("ox"))
    places = [[cell for cell, letter in enumerate(board) if letter == car] for car in letters]
    return [(cells, cells[1] - cells[0]) for cells in places], {c for c, letter in enumerate(board) if letter == "x"}


def _drives(
    state: tuple[int, ...], cars: list[tuple[list[int], int]], walls: set[int]
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Every move by one square: which car, which way, and what is then."""
    taken = walls | {
        at + k * stride for at, (cells, stride) in zip(state, cars, strict=True) for k in range(len(cells))
    }
    for car, (at, (cells, stride)) in enumerate(zip(state, cars, strict=True)):
        last = at + (len(cells) - 1) * stride
        for by, free in ((1, last + stride), (-1, at - stride)):
            is_on_line = 0 <= free < 36 and (stride == 6 or free // 6 == at // 6)
            if is_on_line and free not in taken:
                yield car, by, (*state[:car], at + by * stride, *state[car + 1 :])


def _told_moves(
    state: tuple[int, ...], before: Mapping[tuple[int, ...], tuple[tuple[int, ...], int, int] | None]
) -> str:
    moves: list[tuple[int, int]] = []
    while (step := before[state]) is not None:
        state, car, by = step
        if moves and moves[-1][0] == car and (moves[-1][1] > 0) == (by > 0):
            moves[-1] = (car, moves[-1][1] + by)
        else:
            moves.append((car, by))
    return " ".join(f"{chr(ord('A') + car)}{by:+d}" for car, by in reversed(moves))


KEYS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "boxnet": _carried,
    "graph_color": _coloured,
    "propositional_logic": lambda told: str(told["example_answer"]),
    "rubiks_cube": lambda told: str(told["example_correct_answer"]),
    "rush_hour": _driven,
}
"""The families that come without a key (their stored answer is None, and scores 0): one that their scorer takes."""
