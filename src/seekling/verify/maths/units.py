"""Units, currencies and counted things: a short strict table. Of one dimension, they convert exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from seekling.verify.maths.limits import Unreadable


@dataclass(frozen=True, slots=True)
class Unit:
    """``dimension``: (base, power) pairs in order, or ``(("apple", 1),)`` for a thing; ``factor`` to the base."""

    dimension: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)


PERCENT = Unit((("percent", 1),))
DEGREE = Unit((("degree", 1),))

_TABLE = """
length   m=1 meter metre | km=1000 kilometer kilometre | cm=1/100 centimeter centimetre
length   mm=1/1000 millimeter millimetre
length   in=127/5000 inch | ft=381/1250 foot | yd=1143/1250 yard | mi=201168/125 mile
mass     kg=1 kilogram | g=1/1000 gram | mg=1/1000000 milligram
mass     lb=45359237/100000000 pound | oz=45359237/1600000000 ounce
time     s=1 sec second | min=60 minute | h=3600 hr hour | day=86400 | week=604800
years    year=1 yr | month=1/12
volume   L=1 l liter litre | mL=1/1000 ml milliliter millilitre | gal=473176473/125000000 gallon
degree   deg=1 degree
radian   rad=1 radian
kelvin   K=1 kelvin
newton   N=1 newton
joule    J=1 joule | kJ=1000 kilojoule
watt     W=1 watt | kW=1000 kilowatt
hertz    Hz=1 hertz
percent  %=1 percent pct
dollar   $=1 dollar usd buck | cent=1/100 ¢
euro     €=1 euro eur
pound£   £=1 gbp
yen      ¥=1 yen jpy
yuan     yuan=1 rmb cny 元
"""
_ALIASES = {
    "feet": "foot", "inches": "inch", "mph": "mile/hour", "kph": "km/hour", "cc": "cm^3", "pennies": "cent",
    "米": "m", "厘米": "cm", "千米": "km", "公里": "km", "千克": "kg", "公斤": "kg", "克": "g",
    "小时": "hour", "分钟": "minute", "秒": "s", "度": "degree", "美元": "dollar", "块": "yuan", "升": "L",
    "天": "day", "周": "week", "年": "year", "岁": "year", "平方米": "m^2", "平方厘米": "cm^2", "立方米": "m^3",
}  # fmt: skip
MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
COUNTERS = frozenset("个只人名本张棵辆支件")
"""Measure words: they count things, so they name no unit."""
_CHANGING = """
squared cubed factorial plus minus times over mod base halves half third thirds quarter quarters fourths point not
or and but about approximately roughly around nearly almost least most than wrong false incorrect negative root
power divided multiplied percent percentage pairs couple score tenths hundredths thousandths millionths unless
except nor reciprocal inverse double triple twice thrice through else modulo remainder was are infinity hundreds
thousands millions billions tens dozens choose ratio off maybe perhaps possibly probably likely guess unsure never
less hundredth thousandth tenth lakh crore gross one two three four five six seven eight nine ten zero eleven twelve
twenty
"""
NO_THING = frozenset(_CHANGING.split())
"""Words that change a number, or doubt it: after one they are no name of a thing."""

_PART = re.compile(r"\s*(?P<name>[A-Za-z°%$€£¥¢]+|[一-鿿]+)\.?(?:\^\{?(?P<power>-?[1-9])\}?)?\s*")


def _table() -> dict[str, tuple[str, Fraction]]:
    units: dict[str, tuple[str, Fraction]] = {}
    for line in _TABLE.strip().splitlines():
        dimension, _, rest = line.partition(" ")
        for entry in rest.split("|"):
            short, *long = entry.split()
            symbol, factor = short.split("=")
            for name in (symbol, *long):
                units[name] = (dimension, Fraction(factor))
    return units


UNITS = _table()


def known(word: str) -> bool:
    """Whether a bare word of several letters is a unit or a multiplier rather than a product of letters."""
    return word in MULTIPLIERS or _named(word) is not None


def read_unit(phrase: str) -> tuple[int, Unit | None]:
    """What stands after a number: a multiplier (1 for none) and a unit. Raises Unreadable."""
    words = phrase.replace(r"\cdot", " ").replace("/", " / ").replace("*", " ").split()
    times = 1
    while words and words[0].lower() in MULTIPLIERS:
        times *= MULTIPLIERS[words.pop(0).lower()]
    if words[:1] == ["of"] and words[1:]:
        words = words[1:]
    words = [word for word in words if word not in COUNTERS]
    return times, _unit(words) if words else None


def _unit(words: list[str]) -> Unit:
    """A product of powers of units, one division at most; else the name of one thing."""
    dimension: dict[str, int] = {}
    factor, sign, power_next = Fraction(1), 1, 1
    for word in words:
        if word in ("/", "per"):
            if sign < 0 or not dimension:
                raise Unreadable("two divisions in a unit")
            sign = -1
        elif word.lower() in ("square", "sq", "cubic"):
            power_next = 3 if word.lower() == "cubic" else 2
        elif found := _part(word):
            name, times, power = found
            power *= sign * power_next
            power_next = 1
            dimension[name] = dimension.get(name, 0) + power
            factor *= times**power
        else:
            return _thing(words)
    if power_next > 1 or not dimension:
        raise Unreadable("a unit that breaks off")
    return Unit(tuple(sorted((name, power) for name, power in dimension.items() if power)), factor)


def _part(word: str) -> tuple[str, Fraction, int] | None:
    match = _PART.fullmatch(word)
    entry = _named(match["name"]) if match else None
    if match is None or entry is None:
        return None
    dimension, factor, power = entry
    return dimension, factor, power * int(match["power"] or 1)


def _named(word: str) -> tuple[str, Fraction, int] | None:
    """Dimension, factor and power of one unit's name, in the singular or plural."""
    for name in (word, word.lower(), word.removesuffix("s"), word.lower().removesuffix("s")):
        if len(word) > 1 and name in _ALIASES and "/" not in _ALIASES[name]:
            name, _, power = _ALIASES[name].partition("^")
            return (*UNITS[name], int(power or 1))
        if name in UNITS and (name == word or len(name) > 1):
            return (*UNITS[name], 1)
    return None


def _thing(words: list[str]) -> Unit:
    """``apples``, ``red apples``: what is counted, in the singular. Names of one thing agree when equal."""
    if len(words) == 1 and words[0].lower() in _ALIASES:
        return _unit(_ALIASES[words[0].lower()].replace("/", " / ").split())
    plain = [word.lower().removesuffix(".") for word in words]
    if len(words) > 3 or not all(len(word) > 2 and word.isalpha() and word not in NO_THING for word in plain):
        raise Unreadable("words after a number that name no unit")
    return Unit(((" ".join([*plain[:-1], plain[-1].removesuffix("s")]), 1),))
