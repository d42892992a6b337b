"""Chinese numerals, where a whole answer is one: 四十二, 三分之二, 百分之五十, 负三, 一点五."""

from __future__ import annotations

from fractions import Fraction

_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "亿": 10**8}
_MAX_CHARS = 40


def chinese(text: str) -> tuple[Fraction, bool] | None:
    """The number, and whether it is given in percent; None for anything that is not one number."""
    if not text or len(text) > _MAX_CHARS:
        return None
    sign = -1 if text[0] == "负" else 1
    bottom, parted, top = text.removeprefix("负").partition("分之")
    if not parted:
        value = _decimal(bottom)
        return None if value is None else (sign * value, False)
    over, under = _decimal(top), Fraction(100) if bottom == "百" else _decimal(bottom)
    if over is None or not under:
        return None
    return (sign * over, True) if bottom == "百" else (sign * over / under, False)


def _decimal(text: str) -> Fraction | None:
    whole, point, digits = text.partition("点")
    value = _whole(whole)
    if value is None or not point:
        return None if value is None else Fraction(value)
    if not digits or any(digit not in _DIGITS for digit in digits):
        return None
    return value + Fraction(int("".join(str(_DIGITS[digit]) for digit in digits)), 10 ** len(digits))


def _whole(text: str) -> int | None:
    """A whole number: digits with places, each place smaller than the one before within its myriad."""
    if not text:
        return None
    if len(text) > 1 and all(sign in _DIGITS and sign != "两" for sign in text):
        return int("".join(str(_DIGITS[sign]) for sign in text))  # 二〇二五: digit by digit
    total, section, digit, place, myriad = 0, 0, None, 10**4, 10**12
    for sign in text:
        if sign in _DIGITS:
            if digit:
                return None
            digit = _DIGITS[sign]
        elif sign in _PLACES:
            if _PLACES[sign] >= place or (not digit and (sign != "十" or section)):
                return None
            place = _PLACES[sign]
            section, digit = section + (digit or 1) * place, None
        elif sign in _MYRIADS and _MYRIADS[sign] < myriad and (section or digit):
            myriad = _MYRIADS[sign]
            total, section, digit, place = total + (section + (digit or 0)) * myriad, 0, None, 10**4
        else:
            return None
    if digit and len(text) > 1 and text[-2] not in "十零〇":
        return None  # 二百五 is said for 250 and read as 205
    return total + section + (digit or 0)
