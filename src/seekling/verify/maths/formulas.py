"""The reader of values: sums, products, powers, fractions, roots, functions, from tokens, exactly.

    sum      := ["+" | "-"] product (("+" | "-" | "±") product)*
    product  := power (("*" | "/" | nothing) power)*
    power    := primary ("!")* ["^" power]

A whole number directly before a fraction of whole numbers is a mixed number, never a product. One sign may stand
before an operand, never two. Two numbers with only a blank between them are no value. ``a/bc`` is refused, since
readers differ about it. The operators of unfinished work (integral, sum, product, limit) are not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import comb, factorial

from seekling.verify.maths.lexer import Token
from seekling.verify.maths.limits import MAX_DEPTH, MAX_DIGITS, MAX_SCALE, Budget, TooLarge, Unreadable
from seekling.verify.maths.values import (
    FUNCTION_NAMES,
    IMAGINARY,
    INFINITY,
    ONE,
    PI,
    PLUS_MINUS,
    Atom,
    Calculator,
    E,
    Quotient,
    atom,
    letter,
    number,
)

_TIMES = frozenset({"*", r"\cdot", r"\times"})
_GREEK_LETTERS = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi chi psi
omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell hbar
"""
_GREEK = frozenset("\\" + name for name in _GREEK_LETTERS.split())
_FUNCTIONS = frozenset("\\" + name for name in FUNCTION_NAMES) | {r"\log", r"\exp"}
_DECORATIONS = frozenset({r"\mathbb", r"\vec", r"\hat", r"\bar", r"\overline", r"\mathcal", r"\overrightarrow"})
_MAX_FACTORIAL = 200
_RADIANS = Quotient({((PI, 1),): Fraction(1, 180)}, ONE)
"""A degree, within a function of an angle."""


class Formulas:
    """Recursive descent over one list of tokens; every call goes a token forward or a level deeper.

    ``work`` counts the operations read that could have been worked out, ``functions`` names those of numbers.
    """

    def __init__(self, found: list[Token]) -> None:
        self.found, self.place, self.depth = found, 0, 0
        self.calculator = Calculator(Budget())
        self.work, self.functions, self.angles, self.is_infinite = 0, set[str](), 0, False

    # --- tokens

    def peek(self, ahead: int = 0) -> str:
        """The text of a coming token, "" at the end."""
        place = self.place + ahead
        return self.found[place].text if place < len(self.found) else ""

    def kind(self, ahead: int = 0) -> str:
        """The kind of a coming token, "" at the end."""
        place = self.place + ahead
        return self.found[place].kind if place < len(self.found) else ""

    def take(self, *texts: str) -> str:
        """The next token when it is one of ``texts``, else ""."""
        if self.place < len(self.found) and self.found[self.place].text in texts and self.kind() != "text":
            self.place += 1
            return self.found[self.place - 1].text
        return ""

    def expect(self, *texts: str) -> str:
        """The next token, which must be one of ``texts``."""
        if taken := self.take(*texts):
            return taken
        raise Unreadable(f"{self.peek() or 'the end'!r} where {' or '.join(texts)!r} belongs")

    def deeper(self) -> None:
        """One level of nesting more."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"more than {MAX_DEPTH} levels of nesting")

    # --- arithmetic

    def sum(self) -> Quotient:
        """Terms added up."""
        self.deeper()
        sign = self.take("+", "-", r"\pm", r"\mp")
        total = self.signed(sign, self.product())
        while sign := self.take("+", "-", r"\pm", r"\mp"):
            self.work += 1
            total = self.calculator.add(total, self.signed(sign, self.product()))
        self.depth -= 1
        return total

    def signed(self, sign: str, value: Quotient) -> Quotient:
        """A term with the sign before it."""
        if sign in (r"\pm", r"\mp"):
            value = self.calculator.multiply(atom(PLUS_MINUS), value)
        return self.calculator.negate(value) if sign in ("-", r"\mp") else value

    def product(self) -> Quotient:
        """Factors multiplied and divided from the left; nothing between two factors multiplies them."""
        if (mixed := self.mixed()) is not None:
            return mixed
        if (plain := self.plain_fraction()) is not None:
            return plain
        value, divided = self.power(), False
        while True:
            sign = self.take(*_TIMES, "/")
            if sign == "/":
                self.work, divided = self.work + 1, True
                value = self.calculator.divide(value, self.power())
            elif sign:
                self.work += not (self.peek() == "10" and self.peek(1) == "^")
                value = self.calculator.multiply(value, self.operand())
            elif self.begins_factor():
                if divided:
                    raise Unreadable("a product after a division bar: readers differ about it")
                value = self.calculator.multiply(value, self.power())
            else:
                return value

    def operand(self) -> Quotient:
        """A factor after a sign of multiplication; a power of ten there is scientific notation, no work."""
        work, ten = self.work, self.peek() == "10"
        value = self.power()
        if ten and value.rational is not None:
            self.work = work
        return value

    def begins_factor(self) -> bool:
        """Whether the next token begins a factor that is multiplied without a sign."""
        kind, text = self.kind(), self.peek()
        if kind == "number":
            raise Unreadable("a number right behind another factor")
        return (
            kind == "letter"
            or text in ("(", "{", r"\sqrt", r"\surd", r"\frac", r"\pi", r"\binom", r"\infty")
            or text in _FUNCTIONS
            or text in _GREEK
            or text in _DECORATIONS
        )

    def mixed(self) -> Quotient | None:
        """``1\\frac{1}{2}`` and ``1 1/2``; None (and nothing taken) for anything else."""
        if self.kind() != "number" or not self.peek().isdigit():
            return None
        start, whole = self.place, self.digits(self.peek())
        self.place += 1
        fraction = self.literal_fraction()
        if fraction is None or (self.found[start + 1].text != r"\frac" and fraction >= 1):
            self.place = start
            return None
        return number(whole + fraction)

    def literal_fraction(self) -> Fraction | None:
        """A fraction of two whole numbers and nothing behind it that would bind to it."""
        start = self.place
        if self.take(r"\frac"):
            top, bottom = self.literal(), self.literal()
        else:
            if self.kind() != "number" or not self.found[self.place].spaced or self.peek(1) != "/":
                return None
            top, bottom = (self.digits(self.peek(step)) if self.peek(step).isdigit() else None for step in (0, 2))
            self.place += 3
        if top is None or not bottom or self.peek() in ("^", "!", "_") or self.kind() == "letter":
            self.place = start
            return None
        return Fraction(top, bottom)

    def literal(self) -> int | None:
        """A whole number in braces, or one digit of several."""
        signed = self.peek() == "{" and self.peek(1) == "-"
        if self.peek() == "{" and self.peek(1 + signed).isdigit() and self.peek(2 + signed) == "}":
            self.place += 3 + signed
            return self.digits(self.peek(-2)) * (-1 if signed else 1)
        if self.kind() == "number" and self.peek().isdigit():
            return self.digits(self.one_digit())
        return None

    def one_digit(self) -> str:
        """What a command takes of digits that stand without braces: ``\\frac12`` is a half, ``\\frac123`` unclear."""
        if self.kind() != "number" or not self.peek().isdigit():
            raise Unreadable(f"{self.peek() or 'the end'!r} where a digit belongs")
        token = self.found[self.place]
        if len(token.text) == 1:
            self.place += 1
            return token.text
        if len(token.text) == 2 and self.peek(-1) == r"\frac":
            rest = token._replace(text=token.text[1], at=token.at + 1)
            self.found[self.place : self.place + 1] = [token._replace(text=token.text[0], end=token.at + 1), rest]
            self.place += 1
            return token.text[0]
        raise Unreadable("several digits without braces after a command")

    def plain_fraction(self) -> Quotient | None:
        """A fraction of whole numbers that stands alone: work only where it could be worked out to a whole number."""
        start = self.place
        if self.kind() == "number" and self.peek(1) == "/" and self.kind(2) == "number":
            digits = [self.peek(0), self.peek(2)]
            self.place += 3
        elif self.peek() == r"\frac":
            self.place += 1
            values = [self.literal(), self.literal()]
            digits = ["x" if value is None else str(value) for value in values] if len(values) == 2 else []
        else:
            return None
        ends = self.peek() not in (*_TIMES, "/", "^", "!", "_", "(", "{") and not self.begins_plainly()
        if not ends or not all(text.removeprefix("-").isdigit() for text in digits) or not self.digits(digits[1]):
            self.place = start
            return None
        value = Fraction(self.digits(digits[0]), self.digits(digits[1]))
        self.work += value.denominator == 1
        return number(value)

    def begins_plainly(self) -> bool:
        """Whether a factor without a sign follows, numbers left to those who refuse them."""
        return self.kind() != "number" and self.begins_factor()

    def power(self) -> Quotient:
        """A primary with what stands behind it, to an exponent."""
        self.deeper()
        base = self.primary()
        while self.peek() == "!" and self.kind() == "sign":
            self.take("!")
            base = self.factorial(base)
        if self.peek() == "^" and self.peek(1) != r"\circ" and self.peek(2) != r"\circ":
            self.take("^")
            self.work += base.rational is not None
            base = self.calculator.power(base, self.exponent())
        if self.angles and self.degree():
            base = self.calculator.multiply(base, _RADIANS)
        self.depth -= 1
        return base

    def degree(self) -> bool:
        """Take ``^\\circ`` or ``^{\\circ}``, if it is there."""
        for signs in (("^", r"\circ"), ("^", "{", r"\circ", "}")):
            if tuple(self.peek(step) for step in range(len(signs))) == signs:
                self.place += len(signs)
                return True
        return False

    def exponent(self) -> Quotient:
        """What is raised to: a group, or one sign, number or letter; a second exponent behind it is unclear."""
        sign = self.take("-", "+") if self.peek() != "{" else ""
        work = self.work
        value = self.group() if self.peek() == "{" else self.primary()
        self.work = work + (self.work > work + 1)
        if self.peek() == "^":
            raise Unreadable("an exponent to an exponent")
        return self.calculator.negate(value) if sign == "-" else value

    def factorial(self, base: Quotient) -> Quotient:
        """``n!`` of a small number, or of a letter."""
        self.work += 1
        plain = base.rational
        if plain is None:
            return self.calculator.function("factorial", base)
        if plain.denominator > 1 or plain < 0:
            raise Unreadable("a factorial of no natural number")
        if plain > _MAX_FACTORIAL:
            raise TooLarge("a factorial too large to work out")
        return number(factorial(int(plain)))

    def primary(self) -> Quotient:
        """The smallest value: a number, a letter, a group, a root, a fraction, a function of one."""
        kind, text = self.kind(), self.peek()
        if kind == "number":
            self.place += 1
            return number(self.decimal(text))
        if kind == "letter":
            return self.symbol()
        readers: dict[str, Callable[[], Quotient]] = {
            "(": self.parenthesised, "{": self.group, "|": self.absolute, r"\frac": self.fraction,
            r"\sqrt": self.root, r"\surd": self.plain_root, r"\binom": self.binomial,
        }  # fmt: skip
        if kind not in ("text", "word") and text in readers:
            return readers[text]()
        if kind == "command" and text in _FUNCTIONS:
            return self.function()
        if kind == "command" and (text in _GREEK or text in _DECORATIONS or text in (r"\pi", r"\infty")):
            return self.symbol()
        raise Unreadable(f"{text or 'the end'!r} where a value belongs")

    def decimal(self, text: str) -> Fraction:
        """Digits, a decimal point, a repeating part, a power of ten: exactly."""
        plain, repeats, cycle = text.partition(r"\overline")
        plain, _, exponent = plain.lower().partition("e")
        if len(exponent) > 5 or abs(int(exponent or 0)) > MAX_SCALE:
            raise TooLarge("a power of ten too high")
        whole, _, digits = plain.partition(".")
        value = Fraction(self.digits(whole + digits or "0"), 10 ** len(digits))
        if repeats:
            cycle = cycle.strip(" {}")
            value += Fraction(self.digits(cycle), (10 ** len(cycle) - 1) * 10 ** len(digits))
        return value * Fraction(10) ** int(exponent or 0)

    def digits(self, text: str) -> int:
        """A whole number of not too many digits."""
        if len(text) > MAX_DIGITS + 1:
            raise TooLarge(f"a number of more than {MAX_DIGITS:,} digits")
        return int(text)

    def symbol(self) -> Quotient:
        """A letter, Greek ones and decorated ones too, with its subscript and primes; i, e, pi are what they are."""
        name = self.peek()
        self.place += 1
        if name in _DECORATIONS:
            name += self.braced_name()
        plain = {"i": IMAGINARY, "e": E, r"\pi": PI, r"\infty": INFINITY}.get(name)
        self.is_infinite |= plain == INFINITY
        if self.take("_"):
            name += "_" + (self.braced_name() if self.peek() == "{" else self.one_sign())
        elif plain is not None:
            return atom(plain)
        while self.take("'"):
            name += "'"
        return letter(name)

    def one_sign(self) -> str:
        """One digit or letter of a subscript."""
        if self.kind() not in ("number", "letter"):
            raise Unreadable("a subscript that is no digit or letter")
        self.place += 1
        return self.peek(-1)

    def braced_name(self) -> str:
        """What stands in braces, as a name and not as a value."""
        self.expect("{")
        name = ""
        while self.kind() in ("letter", "number", "word", "text") or self.peek() in ("+", "-", ","):
            name += self.peek()
            self.place += 1
        self.expect("}")
        return name

    def group(self) -> Quotient:
        """A sum in braces."""
        self.expect("{")
        value = self.sum()
        self.expect("}")
        return value

    def parenthesised(self) -> Quotient:
        """A sum in round brackets."""
        self.expect("(")
        value = self.sum()
        self.expect(")")
        return value

    def absolute(self) -> Quotient:
        """``|x|``."""
        self.expect("|")
        value = self.sum()
        self.expect("|")
        self.work += 1
        plain = value.rational
        return number(abs(plain)) if plain is not None else self.calculator.function("abs", value)

    def argument(self) -> Quotient:
        """What a command takes: a group in braces, or one digit or letter."""
        if self.peek() == "{":
            return self.group()
        if self.kind() == "number":
            return number(int(self.one_digit()))
        return self.symbol() if self.kind() == "letter" or self.peek() == r"\pi" else self.group()

    def fraction(self) -> Quotient:
        """``\\frac{a}{b}``."""
        self.expect(r"\frac")
        self.work += 1
        top = self.argument()
        return self.calculator.divide(top, self.argument())

    def root(self) -> Quotient:
        """``\\sqrt[n]{x}``."""
        self.expect(r"\sqrt")
        index = 2
        if self.take("["):
            index = int(self.peek()) if re.fullmatch(r"[1-9]\d?", self.peek()) else 0
            self.place += 1
            self.expect("]")
        if not index:
            raise Unreadable("a root whose index is no small number")
        self.work += 1
        return self.calculator.root(self.argument(), index)

    def plain_root(self) -> Quotient:
        """The root of what stands right behind it: a number, a letter, brackets."""
        self.expect(r"\surd")
        self.work += 1
        return self.calculator.root(self.primary(), 2)

    def binomial(self) -> Quotient:
        """``\\binom{n}{k}`` of small numbers, or of letters."""
        self.expect(r"\binom")
        self.work += 1
        top, bottom = self.argument(), self.argument()
        above, below = top.rational, bottom.rational
        if above is None or below is None:
            return atom(Atom(f"binom({top.key},{bottom.key})", "function", ("binom", top, bottom)))
        if above.denominator > 1 or below.denominator > 1 or min(above, below) < 0:
            raise Unreadable("a binomial coefficient of no natural numbers")
        if above > _MAX_FACTORIAL:
            raise TooLarge("a binomial coefficient too large to work out")
        return number(comb(int(above), int(below)))

    def function(self) -> Quotient:
        """``\\sin x``, ``\\log_2 8``, ``\\sin^2 x``: its argument is a group, or the factors up to the next sign."""
        name = self.peek()[1:]
        self.place += 1
        base = self.argument() if self.take("_") else None
        power = self.exponent() if self.take("^") else None
        if power is not None and power.rational is not None and power.rational < 0:
            if power.rational != -1 or name not in ("sin", "cos", "tan"):
                raise Unreadable("a function to a negative power: inverse or reciprocal")
            name, power = f"arc{name}", None
        of = self.function_argument()
        self.work += 1
        value = self.applied(name, base, of)
        if not any(part.kind == "letter" for part in of.atoms()):
            self.functions.add("ln" if name == "log" else name)
        return value if power is None else self.calculator.power(value, power)

    def function_argument(self) -> Quotient:
        """Brackets and nothing else, or plain factors: ``\\sin 2x`` is the sine of ``2x``."""
        self.deeper()
        self.angles += 1
        is_bracketed, value = self.peek() in ("(", "{", "|"), self.power()
        if not is_bracketed:
            while self.kind() == "letter" or self.peek() in (r"\pi", r"\frac") or self.peek() in _GREEK:
                value = self.calculator.multiply(value, self.power())
        self.angles -= 1
        self.depth -= 1
        return value

    def applied(self, name: str, base: Quotient | None, of: Quotient) -> Quotient:
        """The value of a function; logarithms are brought to the natural one."""
        if base is not None and name != "log":
            raise Unreadable(f"a subscript of {name}")
        if name == "exp":
            return self.calculator.power(atom(E), of)
        if name == "log":
            below = self.calculator.logarithm(base or number(10))
            return self.calculator.divide(self.calculator.logarithm(of), below)
        return self.calculator.logarithm(of) if name == "ln" else self.calculator.function(name, of)
