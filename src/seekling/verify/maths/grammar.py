"""The strict reader of answers: text to an ``Answer``, with exact values, or Unreadable. Nothing is evaluated as code.

    answer   := item (("," | ";" | "or" | "and") item)*
    item     := side (("=" | "<" | "<=" | ">" | ">=" | "!=" | "in") side)*
    side     := [currency] sum [unit]  |  part ("union" part)*  |  words

What a sum is stands in formulas.py.
"""

from __future__ import annotations

import re
from dataclasses import replace

from seekling.verify.maths.answers import Answer, Based, Choice, Group, Named, Relation, Value, Words
from seekling.verify.maths.formulas import Formulas
from seekling.verify.maths.lexer import Token, clean, tokens
from seekling.verify.maths.limits import Beyond, TooLarge, Unreadable
from seekling.verify.maths.numerals import chinese
from seekling.verify.maths.units import DEGREE, PERCENT, Unit, known, read_unit
from seekling.verify.maths.values import INFINITY, PLUS_MINUS, Calculator, number

_SEPARATORS = frozenset({",", ";", "or", "and"})
_RELATIONS = {"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\in": "in"}
_CURRENCIES = frozenset("$€£¥")
_BRACKETS = {"(": (")", "]"), "[": ("]", ")"), r"\{": (r"\}",), r"\langle": (r"\rangle",)}
_MATRICES = frozenset({"pmatrix", "bmatrix", "matrix", "array", "smallmatrix", "Bmatrix"})
_FUNCTION_OF = re.compile(r"([A-Za-z]|\\[A-Za-z]+)('{0,3}|_\{?\w\}?)\(([a-z](?:,[a-z])*|-?\d)\)")
_OPTION, _CAPITAL, _AFTER = re.compile("[A-Ja-j]"), re.compile("[A-J]"), ((")", ".", ":"), (")",))
_BEYOND = re.compile(
    r"\\(?:setminus|backslash|cap|mid|lfloor|lceil|begin\{cases\}|max|min|gcd|bmod|pmod|equiv|det|land|lor|subset)"
)
"""Commands of forms that math-verify may know. Nothing else is worth asking it: what is refused here stays refused."""
_WORDS = re.compile(r"[^\W\d_][\w'’.-]*(?: [\w'’.&-]+){0,7}")


def read(text: str) -> Answer:
    """The answer that ``text`` is, whole. Raises Unreadable: TooLarge for its size, Beyond for a form not known."""
    text = clean(text)
    try:
        return _read(text)
    except TooLarge:
        raise
    except Unreadable as error:
        if _BEYOND.search(text):
            raise Beyond(str(error)) from None
        raise


def _read(text: str) -> Answer:
    if numeral := chinese(text):
        value, in_percent = numeral
        return Value(number(value), PERCENT if in_percent else None)
    found = tokens(text)
    if not found or [token.text for token in found[:2]] == ["{", "{"]:
        raise Unreadable("a template" if found else "nothing is there")
    return _choice(found) or _words(found) or _Parser(found).whole()


def _words(found: list[Token]) -> Words | None:
    """Words and nothing else: an answer that is no formula."""
    if not all(token.kind in ("word", "text") for token in found):
        return None
    said = " ".join(" ".join(token.text for token in found).split())
    if not _WORDS.fullmatch(said):
        raise Unreadable("words that are no answer")
    return Words(said.casefold().rstrip("."))


def _choice(found: list[Token]) -> Choice | None:
    """``(B)``, ``B)``, ``B.``, ``(B) 42``: a lettered option, perhaps with what it offers."""
    opened = found[0].text == "("
    signs = [token.text for token in found[opened : opened + 2]]
    if len(signs) < 2 or not (_OPTION if opened else _CAPITAL).fullmatch(signs[0]) or signs[1] not in _AFTER[opened]:
        return None
    rest = found[opened + 2 :]
    if not rest:
        return Choice(signs[0].upper())
    if not rest[0].spaced or rest[0].kind not in ("number", "text", "word", "command"):
        return None
    try:
        beside = _words(rest) or _Parser(rest).whole()
    except TooLarge:
        raise
    except Unreadable:
        return None
    is_offer = isinstance(beside, Words) or (isinstance(beside, Value) and beside.value.rational is not None)
    return Choice(signs[0].upper(), beside) if is_offer else None


class _Parser(Formulas):
    """Lists, relations, brackets and units around values."""

    # --- lists, relations, sides

    def whole(self) -> Answer:
        """Everything, to the last token."""
        answer = self.listing()
        if self.place < len(self.found):
            raise Unreadable(f"{self.peek()!r} after the answer")
        return answer

    def listing(self) -> Answer:
        """Items and what stands between them; one item is itself."""
        items, kinds = [self.item()], set[str]()
        while separator := self.take(*_SEPARATORS):
            kinds.add("or" if separator == "or" else ",")
            if separator == "," and self.take("or", "and") == "or":
                kinds.add("or")
            items.append(self.item())
        if len(items) == 1:
            return items[0]
        return Group("or" if "or" in kinds else ",", tuple(items))

    def item(self) -> Answer:
        """A side, or a chain of relations between sides."""
        if name := self.function_of():
            return Named(name, self.item())
        sides, signs = [self.side()], list[str]()
        while self.peek() in _RELATIONS and self.kind() != "text":
            signs.append(_RELATIONS[self.take(self.peek())])
            sides.append(self.side())
        return _chain(sides, signs, self.calculator) if signs else sides[0]

    def function_of(self) -> str:
        """``f(x)`` with its sign of equality, taken together as a name; "" when there is none."""
        for length in range(4, 9):
            if self.peek(length) == "=" and not self.depth:
                said = "".join(token.text for token in self.found[self.place : self.place + length])
                if _FUNCTION_OF.fullmatch(said):
                    self.place += length + 1
                    return said
        return ""

    def side(self) -> Answer:
        """A union of parts, or a value with its unit, or words."""
        parts = [self.part()]
        while self.take(r"\cup"):
            parts.append(self.part())
        return parts[0] if len(parts) == 1 else Group("u", tuple(parts))

    def part(self) -> Answer:
        """A bracketed group that stands alone, a value with its unit, or words."""
        start, work, outer = self.place, self.work, self.functions
        self.work, self.functions = 0, set()
        if self.kind() in ("text", "word") and not known(self.peek()):
            return self.phrase()
        try:
            answer = self.standing_group() or self.measured()
        finally:
            self.work, self.functions = work + self.work, outer | self.functions
        if self.place == start:
            raise Unreadable(f"{self.peek() or 'the end'!r} where an answer belongs")
        return answer

    def phrase(self) -> Words:
        """Words up to the next token that is none."""
        start = self.place
        while self.kind() in ("text", "word"):
            self.place += 1
        return _words(self.found[start : self.place]) or Words("")

    def standing_group(self) -> Answer | None:
        """A tuple, interval, set or matrix; None (and nothing taken) where a value begins instead."""
        start = self.place
        if self.take(r"\emptyset"):
            return Group("{}", ())
        if self.peek() == r"\begin":
            return self.matrix()
        if self.peek() not in _BRACKETS:
            return self.ratio()
        answer = self.bracketed()
        if isinstance(answer, Value | Named | Relation | Words | Choice | Based):
            self.place = start
            self.work, self.functions = 0, set()
            return None
        return answer

    def ratio(self) -> Answer | None:
        """``3:2`` and longer, of whole numbers."""
        length = 1
        while self.peek(length - 1).isdigit() and self.peek(length) == ":":
            length += 2
        if length == 1 or not self.peek(length - 1).isdigit():
            return None
        items = [self.digits(self.found[self.place + step].text) for step in range(0, length, 2)]
        self.place += length
        return Group(":", tuple(Value(number(value)) for value in items))

    def bracketed(self) -> Answer:
        """A bracket, what it holds and the bracket that closes it; round ones around one item are only grouping."""
        self.deeper()
        opening = self.expect(*_BRACKETS)
        if self.take(*_BRACKETS[opening][:1]):
            self.depth -= 1
            if opening == r"\{":
                return Group("{}", ())
            raise Unreadable("brackets around nothing")
        inside = self.listing()
        closing = self.expect(*_BRACKETS[opening])
        self.depth -= 1
        if opening == r"\{":
            return Group("{}", _items(inside))
        opening, closing = opening.replace(r"\langle", "("), closing.replace(r"\rangle", ")")
        if isinstance(inside, Group) and inside.kind == "or":
            raise Unreadable("'or' within brackets")
        if opening + closing == "()" and not (isinstance(inside, Group) and inside.kind == ","):
            return inside
        return Group(opening + closing, _items(inside))

    def matrix(self) -> Group:
        """``\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}``; the kind of its brackets says nothing."""
        self.deeper()
        self.expect(r"\begin")
        name = self.environment()
        if name == "array" and self.take("{"):
            while set(self.peek()) & set("clr|"):
                self.place += 1
            self.expect("}")
        rows: list[Answer] = []
        while not self.take(r"\end"):
            row = [self.part()]
            while self.take("&"):
                row.append(self.part())
            rows.append(Group("m", tuple(row)))
            if not self.take("\\\\") and self.peek() != r"\end":
                raise Unreadable(f"{self.peek() or 'the end'!r} within a matrix")
        if self.environment() != name or len({len(_items(row)) for row in rows}) != 1:
            raise Unreadable("a matrix whose rows do not match")
        self.depth -= 1
        return Group("m", tuple(rows))

    def environment(self) -> str:
        """The braced name of an environment, one of a matrix."""
        self.expect("{")
        name = ""
        while self.kind() in ("letter", "word"):
            name += self.peek()
            self.place += 1
        self.expect("}")
        if name not in _MATRICES:
            raise Unreadable(f"an environment {name!r}")
        return name

    def measured(self) -> Answer:
        """A value with what measures it: a currency before, a unit or a base behind."""
        sign = -1 if self.peek() == "-" and self.peek(1) in _CURRENCIES and self.take("-") else 1
        currency = self.take(*_CURRENCIES)
        if based := self.based():
            return based
        self.is_infinite = False
        value = self.sum()
        if self.is_infinite and value.top not in ({((INFINITY, 1),): 1}, {((INFINITY, 1),): -1}):
            raise Unreadable("arithmetic with infinity")
        if sign < 0:
            value = self.calculator.negate(value)
        times, unit = self.unit()
        if currency:
            unit = self.currency(currency, unit)
        if times != 1:
            value = self.calculator.multiply(value, number(times))
        return _spread(Value(value, unit, self.work, frozenset(self.functions)), self.calculator)

    def currency(self, sign: str, unit: Unit | None) -> Unit | None:
        """The unit a currency's sign stands for, the one said behind the number agreeing."""
        meant = read_unit(sign)[1]
        if unit is not None and unit != meant:
            raise Unreadable("two units")
        return meant

    def unit(self) -> tuple[int, Unit | None]:
        """What stands behind a value up to the next separator, relation or bracket: a multiplier and a unit."""
        start, end = self.place, self.place
        if self.peek() == "%" or (self.peek() == "^" and self.degree()):
            return 1, PERCENT if self.take("%") else DEGREE
        if self.kind() not in ("text", "word") and self.peek() not in _CURRENCIES:
            return 1, None
        while self.kind() in ("text", "word", "number", "letter") or self.peek() in ("^", "{", "}", "/", "*", r"\cdot"):
            if self.kind() == "number" and self.peek(-1) not in ("^", "{"):
                break
            end = self.place = self.place + 1
        self.place += self.peek() in _CURRENCIES and start == end
        phrase = "".join(
            (" " if token.spaced or token.kind == "text" else "") + token.text
            for token in self.found[start : self.place]
        )
        times, unit = read_unit(phrase)
        return times, unit

    def based(self) -> Based | None:
        """``1010_2``: digits with the base they are written in."""
        if self.kind() != "number" or self.peek(1) != "_":
            return None
        digits, braced = self.peek(), self.peek(2) == "{"
        base, end = (self.peek(3), 5) if braced else (self.peek(2), 3)
        if not re.fullmatch(r"\d{1,2}", base) or (braced and self.peek(4) != "}") or not 2 <= int(base) <= 36:
            raise Unreadable("a subscript of a number that is no base")
        if not digits.isdigit() or any(int(digit) >= int(base) for digit in digits):
            raise Unreadable("a digit as large as the base")
        self.place += end
        return Based(digits.lstrip("0") or "0", int(base))


def _items(answer: Answer) -> tuple[Answer, ...]:
    return answer.items if isinstance(answer, Group) and answer.kind in (",", "m") else (answer,)


def _spread(said: Value, calculator: Calculator) -> Answer:
    """A value with ± as its two values."""
    if PLUS_MINUS not in said.value.atoms():
        return said
    both = tuple(replace(said, value=calculator.substitute(said.value, sign)) for sign in (1, -1))
    return Group(",", both)


def _chain(sides: list[Answer], signs: list[str], calculator: Calculator) -> Answer:
    """Relations between neighbours. Of several equations in a row the last side is the answer, if all can be true."""
    if signs == ["in"]:
        return sides[1] if _name(sides[0]) else _refuse("an element that is no letter")
    if set(signs) == {"="}:
        return _equation(sides, calculator)
    if any(not isinstance(side, Value) or side.unit for side in sides) or "in" in signs:
        raise Unreadable("a relation between things that are no values")
    links = tuple(_relation(sign, left, right) for sign, left, right in zip(signs, sides[:-1], sides[1:], strict=True))
    return links[0] if len(links) == 1 else Group("&", links)


def _relation(sign: str, left: Answer, right: Answer) -> Relation:
    assert isinstance(left, Value) and isinstance(right, Value)
    return Relation(sign.replace(">", "<"), right, left) if sign[0] == ">" else Relation(sign, left, right)


def _equation(sides: list[Answer], calculator: Calculator) -> Answer:
    """``x = 5`` (and ``5 = x``) names; ``2 + 3 = 5`` says 5 because it is true; ``41 = 42`` is no answer."""
    name = _name(sides[0])
    if not name and len(sides) == 2 and _name(sides[1]) and _is_constant(sides[0]):
        sides, name = sides[::-1], _name(sides[1])
    last = sides[-1]
    chain = sides[1:-1] if name else sides[:-1]
    if name and not chain and not (isinstance(last, Words) and isinstance(sides[0], Words)):
        return Named(name, last)
    if isinstance(last, Value) and all(isinstance(side, Value) for side in sides):
        proven = [calculator.equal(side.value, last.value) for side in chain if isinstance(side, Value)]
        if chain and all(proven):
            return Named(name, last) if name else last
        if len(sides) == 2 and not (_is_constant(sides[0]) and _is_constant(last)):
            return _relation("=", sides[0], last)
    raise Unreadable("an equation that is not true, or does not say what it solves")


def _name(side: Answer) -> str:
    """The letter (or word) that a side is, "" for any other side."""
    if isinstance(side, Words):
        return side.text
    if not isinstance(side, Value) or side.unit or len(side.value.top) != 1:
        return ""
    term, factor = next(iter(side.value.top.items()))
    is_letter = factor == 1 and len(term) == 1 and term[0][1] == 1 and term[0][0].kind == "letter"
    return term[0][0].key if is_letter else ""


def _is_constant(side: Answer) -> bool:
    return isinstance(side, Value) and not any(part.kind == "letter" for part in side.value.atoms())


def _refuse(why: str) -> Answer:
    raise Unreadable(why)
