"""Whether two answers are the same, by form and exact value; and whether an answer is worked out as its key is.

``same`` is reflexive and symmetric, and says None where numbers agree but no proof is at hand. The policy it follows
stands in docs/maths.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from seekling.verify.maths.answers import Answer, Based, Choice, Group, Named, Relation, Value, Words
from seekling.verify.maths.limits import Budget
from seekling.verify.maths.units import PERCENT
from seekling.verify.maths.values import INFINITY, ONE, Calculator, Quotient, atom, letter, number

_BARE, _UNORDERED = (",", "or"), (",", "or", "{}", "u", "&")
_INFINITE = Value(atom(INFINITY))
_STEPS = 3_000


def same(left: Answer, right: Answer) -> bool | None:
    """Whether two answers mean the same. Raises TooLarge when that would take too much arithmetic."""
    return _Comparison().same(left, right)


def accepts(key: Answer, said: Answer) -> bool | None:
    """Whether ``said`` answers what ``key`` answers: the same, worked out as far, in the key's base."""
    if isinstance(key, Based) and isinstance(said, Value):
        return said.value.rational is not None and str(said.value.rational) == key.digits and not said.work
    return same(key, said) if is_worked_out(key, said) else False


def is_worked_out(key: Answer, said: Answer) -> bool:
    """Whether no number is left as an operation, and no function of numbers, that the key does not leave too.

    ``12 \\cdot 5`` is no answer where the key is 60: it may be the question.
    """
    left = max((value.work for value in values(key) if value.value.rational is not None), default=0)
    used = frozenset().union(*(value.functions for value in values(key)))
    return all(
        value.functions <= used and (value.value.rational is None or value.work <= left) for value in values(said)
    )


def is_plain(answer: Answer) -> bool:
    """Whether an answer holds rational numbers and words only: then whoever means it can write it so."""
    return all(value.value.rational is not None for value in values(answer)) and not isinstance(answer, Relation)


def values(answer: Answer) -> Iterator[Value]:
    """Every value within an answer."""
    match answer:
        case Value():
            yield answer
        case Named():
            yield from values(answer.item)
        case Choice() if answer.beside is not None:
            yield from values(answer.beside)
        case Relation():
            yield from (answer.left, answer.right)
        case Group():
            for item in answer.items:
                yield from values(item)


class _Comparison:
    """One comparison and the arithmetic it may take."""

    def __init__(self) -> None:
        self.calculator = Calculator(Budget(_STEPS))

    def same(self, left: Answer, right: Answer) -> bool | None:
        if isinstance(left, Choice):
            return self.choices(left, right)
        if isinstance(right, Choice):
            return self.choices(right, left)
        if isinstance(left, Named) or isinstance(right, Named):
            return self.named(left, right)
        if isinstance(left, Value) and isinstance(right, Value):
            return self.measured(left, right)
        if isinstance(left, Relation) and isinstance(right, Relation):
            return self.relations(left, right)
        left, right = _shaped(left), _shaped(right)
        if isinstance(left, Group) and isinstance(right, Group):
            return self.groups(left, right)
        return left == right if isinstance(left, Words | Based) else False

    def choices(self, choice: Choice, other: Answer) -> bool | None:
        """The letter decides; where the other is no letter, what stands beside it does."""
        if isinstance(other, Choice):
            return choice.letter == other.letter
        if isinstance(other, Value) and other.value == letter(choice.letter):
            return True
        return False if choice.beside is None else self.same(choice.beside, other)

    def named(self, left: Answer, right: Answer) -> bool | None:
        """Names agree, or one side has none. ``y = 2x + 1`` is an equation beside other equations."""
        if isinstance(left, Named) and isinstance(right, Named):
            return left.name == right.name and self.same(left.item, right.item)
        bare = right if isinstance(left, Named) else left
        name = left if isinstance(left, Named) else right
        assert isinstance(name, Named)
        if not isinstance(bare, Relation):
            return self.same(name.item, bare)
        if not isinstance(name.item, Value) or name.item.value.rational is not None:
            return False
        return self.relations(Relation("=", Value(letter(name.name)), name.item), bare)

    def measured(self, left: Value, right: Value) -> bool | None:
        """Values with their units: one unit, units that convert, or one unit and none."""
        calculator = self.calculator
        if left.unit and right.unit:
            if left.unit.dimension != right.unit.dimension:
                return False
            one = calculator.multiply(left.value, number(left.unit.factor))
            return calculator.equal(one, calculator.multiply(right.value, number(right.unit.factor)))
        if PERCENT in (left.unit, right.unit):
            percent, bare = (left, right) if left.unit == PERCENT else (right, left)
            share = calculator.multiply(percent.value, number(Fraction(1, 100)))
            amount = percent.value.rational
            if amount is not None and abs(amount) >= 1 and calculator.equal(percent.value, bare.value):
                return True
            return calculator.equal(share, bare.value)
        return calculator.equal(left.value, right.value)

    def relations(self, left: Relation, right: Relation) -> bool | None:
        """One sign, and differences that are equal up to a factor; a solved one only equals a solved one."""
        if left.sign != right.sign or is_solved(left) != is_solved(right):
            return False
        one, other = self.difference(left), self.difference(right)
        if one is None or other is None:
            sides = (left.left, right.left), (left.right, right.right)
            return all(self.measured(*pair) for pair in sides) or None
        return self.calculator.equal(one, other)

    def difference(self, relation: Relation) -> Quotient | None:
        """Left less right, its first coefficient 1 (or of that size, where the sign of the relation matters)."""
        whole = self.calculator.add(relation.left.value, self.calculator.negate(relation.right.value))
        if whole.bottom is not ONE:
            return None
        if not whole.top:
            return whole
        lead = whole.top[max(whole.top)]
        return self.calculator.divide(whole, number(abs(lead) if relation.sign[0] == "<" else lead))

    def groups(self, left: Group, right: Group) -> bool | None:
        if left.kind != right.kind and {left.kind, right.kind} <= {*_BARE, "{}"}:
            return self.matched(left.items, right.items)
        if left.kind != right.kind:
            return False
        if left.kind == "{}":
            return self.matched(self.distinct(left.items), self.distinct(right.items))
        if left.kind in _UNORDERED:
            return self.matched(left.items, right.items)
        if len(left.items) != len(right.items):
            return False
        return _all(self.same(one, other) for one, other in zip(left.items, right.items, strict=True))

    def distinct(self, items: Sequence[Answer]) -> list[Answer]:
        """A set's items, each once as far as their keys tell."""
        return list({_key(item) or str(place): item for place, item in enumerate(items)}.values())

    def matched(self, left: Sequence[Answer], right: Sequence[Answer]) -> bool | None:
        """Whether items can be paired off, whatever their order: first those of one spelling, then by comparing."""
        if len(left) != len(right):
            return False
        keys = [_key(item) for item in right]
        rest, others = [], list(right)
        for item in left:
            key = _key(item)
            if key and key in keys:
                place = keys.index(key)
                del keys[place], others[place]
            else:
                rest.append(item)
        return _paired([[self.same(item, other) for other in others] for item in rest])


def _paired(table: list[list[bool | None]]) -> bool | None:
    """Whether every row finds a column of its own that is True; False when a row or a column is False throughout."""
    free = set(range(len(table)))
    for row in table:
        if found := [column for column in sorted(free) if row[column]]:
            free.remove(found[0])
    if not free:
        return True
    lines = [*table, *(list(column) for column in zip(*table, strict=True))]
    return None if all(any(cell is not False for cell in line) for line in lines) and _has_doubt(table) else False


def _has_doubt(table: list[list[bool | None]]) -> bool:
    return any(cell is None for row in table for cell in row)


def is_solved(relation: Relation) -> bool:
    """Whether a letter stands alone on one side, and a number on the other."""
    sides = relation.left.value, relation.right.value
    return any(_letter(one) and not _has_letters(other) for one, other in (sides, sides[::-1]))


def _letter(value: Quotient) -> str:
    names = [part.key for part in value.atoms() if part.kind == "letter"]
    return names[0] if len(names) == 1 and value == letter(names[0]) else ""


def _has_letters(value: Quotient) -> bool:
    return any(part.kind == "letter" for part in value.atoms())


def _all(outcomes: Iterator[bool | None]) -> bool | None:
    """False when one is False, else None when one is None."""
    doubtful = False
    for outcome in outcomes:
        if outcome is False:
            return False
        doubtful |= outcome is None
    return None if doubtful else True


def _shaped(answer: Answer) -> Answer:
    """Solved inequalities as intervals, alternatives of them as unions, lists of lists as matrices."""
    if isinstance(answer, Relation):
        return _interval((answer,)) or answer
    if not isinstance(answer, Group):
        return answer
    if answer.kind == "&":
        return _interval(answer.items) or answer
    if answer.kind == "or" and (
        parts := [_interval((item,) if isinstance(item, Relation) else _held(item)) for item in answer.items]
    ):
        found = tuple(part for part in parts if part)
        return Group("u", found) if len(found) == len(parts) else answer
    rows = [item for item in answer.items if isinstance(item, Group) and item.kind == "[]"]
    if answer.kind == "[]" and len(rows) == len(answer.items) and len({len(row.items) for row in rows}) == 1:
        return Group("m", tuple(replace(row, kind="m") for row in rows))
    return answer


def _held(item: Answer) -> tuple[Answer, ...]:
    return item.items if isinstance(item, Group) and item.kind == "&" else ()


def _interval(relations: Sequence[Answer]) -> Group | None:
    """The interval that one or two solved inequalities about one letter describe."""
    low, high, brackets, names = _minus(_INFINITE), _INFINITE, ["(", ")"], set[str]()
    if not 1 <= len(relations) <= 2:
        return None
    for relation in relations:
        if not isinstance(relation, Relation) or relation.sign not in ("<", "<=") or not is_solved(relation):
            return None
        is_upper = bool(_letter(relation.left.value))
        names.add(_letter(relation.left.value) or _letter(relation.right.value))
        if relation.sign == "<=":
            brackets[is_upper] = "]" if is_upper else "["
        low, high = (low, relation.right) if is_upper else (relation.left, high)
    taken = (low.value != _minus(_INFINITE).value) + (high.value != _INFINITE.value)
    return Group("".join(brackets), (low, high)) if len(names) == 1 and taken == len(relations) else None


def _minus(value: Value) -> Value:
    return replace(value, value=Quotient({term: -factor for term, factor in value.value.top.items()}, ONE))


def _key(item: Answer) -> str:
    """Equal non-empty keys are equal answers; "" where only comparing tells."""
    return f"{item.value.key}" if isinstance(item, Value) and item.unit is None else ""
