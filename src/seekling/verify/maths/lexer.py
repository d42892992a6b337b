"""Text of an answer to tokens: one clean spelling first, then numbers, words, letters, commands and signs.

Full-width forms, unusual blanks and mathematical characters become plain ones; what could show a reader something else
than it says (characters that reverse the order of writing, control characters, lone surrogates, digits of other
scripts) is refused. Zero-width blanks say nothing and are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from seekling.verify.maths.limits import MAX_CHARS, MAX_DIGITS, MAX_TOKENS, TooLarge, Unreadable
from seekling.verify.maths.units import known


class Token(NamedTuple):
    """``kind``: number, letter, word (plain letters of no formula), text (inside ``\\text``), command, sign.

    ``spaced`` says that a blank stands before it; ``at`` and ``end`` are its place in the clean text.
    """

    kind: str
    text: str
    spaced: bool
    at: int
    end: int


_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SIGNS = {
    "−": "-", "–": "-", "﹣": "-", "×": r"\times ", "÷": "/", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "∗": "*", "√": r"\surd ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ",
    "∓": r"\mp ", "∪": r"\cup ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "′": "'", "θ": r"\theta ",
    "∶": ":", "、": ",", "。": ".", "≈": r"\approx ", "⁄": "/", "∕": "/", "“": '"', "”": '"', "’": "'",
    "⟨": r"\langle ", "⟩": r"\rangle ", "ℝ": r"\mathbb{R}", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅙": r"\frac{1}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}",
}  # fmt: skip
_CLEAN = str.maketrans(
    _SIGNS
    | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | dict.fromkeys("\u3000\xa0\u2002\u2003\u2004\u2005\u2007\u2008\u2009\u200a\u202f\u205f", " ")
    | dict.fromkeys("\u200b\u2060\ufeff")
)
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200c-\u200f\u202a-\u202e\u2061-\u206f\ud800-\udfff]")
_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_LAYOUT = re.compile(
    r"\\(?:displaystyle|textstyle|left|right|limits|(?:big|Big|bigg|Bigg)[lrm]?|mathopen|mathclose)(?![A-Za-z])"
)
_TEXT = r"\\(?:text|textbf|textit|textrm|textup|mbox|mathrm|mathbf|mathit|operatorname|rm|bf)\s*\{(?P<text>[^{}]*)\}"
_NUMBER = (
    r"(?P<number>(?:\d{1,3}(?:(?:\{,\}|,\\!|\\,|,)\d{3})+(?!\d)|\d+)?\.\d*\\overline\s*\{\d+\}"
    r"|(?:\d{1,3}(?:(?:\{,\}|,\\!|\\,|,)\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d+(?![\w.]))?|\.\d+)"
)
_TOKEN = re.compile(
    rf"(?P<blank>(?:\s|~|\\[ ,;:!]|\\q?quad(?![A-Za-z]))+)|{_TEXT}|{_NUMBER}"
    r"|(?P<command>\\(?:[A-Za-z]+|[{}%$|\\&#_]))|(?P<word>[A-Za-z]+)|(?P<cjk>[㐀-鿿]+)"
    r"|(?P<sign><=|>=|!=|\*\*|[-+*/^_=<>!|(){}\[\],;:.&%$€£¥¢'])"
)
_FORMULA, _OPTION = (
    re.compile(r"[-+.,\d\s()=]*\d[-+.,\d\s()=]*|[A-Z](?:,\s*[A-Z])+"),
    re.compile(r"\([A-Ja-j]\) ?|[A-J][).]? ?"),
)
_BARE_COMMA = re.compile(r"(?<![\\{]),(?!\\!)")
_GROUPED = re.compile(r"\{,\}|,\\!|\\,|,")
_RENAMED = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne",
    r"\leqslant": r"\le", r"\geqslant": r"\ge", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lvert": "|", r"\rvert": "|",
    r"\vert": "|", r"\lt": "<", r"\gt": ">", r"\dbinom": r"\binom", r"\tbinom": r"\binom", r"\varnothing": r"\emptyset",
    r"\%": "%", r"\$": "$", r"\asin": r"\arcsin", r"\lbrack": "[", r"\rbrack": "]", r"\div": "/", r"\ast": "*",
    r"\degree": r"\circ", r"\colon": ":", r"\imath": "i", "**": "^", "<=": r"\le", ">=": r"\ge", "!=": r"\ne",
}  # fmt: skip
_PLAIN = "pi sin cos tan ln log exp infty theta alpha beta lambda arcsin arccos arctan sec csc cot"
_WORD_COMMANDS = {name: "\\" + name for name in _PLAIN.split()} | {
    "sqrt": r"\surd",
    "inf": r"\infty",
    "infinity": r"\infty",
    "oo": r"\infty",
    "Infinity": r"\infty",
}
_SAYS_LIST = {"or": "or", "and": "and", "或": "or", "和": "and", "与": "and", "或者": "or", "以及": "and"}
_OPEN, _CLOSE = ("(", "[", r"\{", r"\langle"), (")", "]", r"\}", r"\rangle")
_LIST = """
no yes odd not if is on in at to of as an the all any two one six ten day man men boy red net nan may mon tue wed thu
fri sat sun jan feb mar apr jun jul aug sep oct nov dec am pm
"""
SHORT_WORDS = frozenset(_LIST.split())
"""Words that are no products of letters, though as short as those. Longer runs of letters are words anyway."""


def clean(text: str) -> str:
    """``text`` in one spelling. Raises Unreadable for characters that a reader could not see, or too many."""
    if len(text) > MAX_CHARS:
        raise TooLarge(f"longer than {MAX_CHARS:,} characters")
    if not text.isascii():
        if refused := _REFUSED.search(text):
            raise Unreadable(f"a character that is not seen, U+{ord(refused[0]):04X}")
        text = _RAISED.sub(lambda found: "^{" + found[0].translate(_SUPERSCRIPT) + "}", text)
        text = _LOWERED.sub(lambda found: "_{" + found[0].translate(_SUBSCRIPT) + "}", text).translate(_CLEAN)
    elif refused := _REFUSED.search(text):
        raise Unreadable(f"a character that is not seen, U+{ord(refused[0]):04X}")
    return _LAYOUT.sub("", text).strip() if "\\" in text else text.strip()


def tokens(text: str) -> list[Token]:
    """The tokens of clean text. Raises Unreadable at the first character of no token."""
    found: list[Token] = []
    place, spaced, depth = 0, False, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise Unreadable(f"unexpected character {text[place]!r}")
        if match.lastgroup == "blank":
            place, spaced = match.end(), True
            continue
        new = list(_tokens_of(match, text, spaced, depth))
        depth += (new[0].text in _OPEN) - (new[0].text in _CLOSE) if new else 0
        place, spaced = (new[-1].end if new else match.end()), False
        found += new
        if len(found) > MAX_TOKENS:
            raise TooLarge(f"more than {MAX_TOKENS} tokens")
    return found


def _tokens_of(match: re.Match[str], text: str, spaced: bool, depth: int) -> Iterator[Token]:
    kind, said, at, end = str(match.lastgroup), match[0], match.start(), match.end()
    if kind == "text" and len(match["text"]) == 1 and said.startswith((r"\mathbf", r"\bf")):
        yield Token("letter", match["text"], spaced, at, end)
    elif kind == "text":
        yield from _texts(match["text"], spaced, at, end)
    elif kind == "number":
        said, end = _number(said, depth, at, end, text)
        yield Token("number", said, spaced, at, end)
    elif kind == "word":
        yield from _letters(said, spaced, at)
    elif kind == "cjk":
        yield (
            Token("sign", _SAYS_LIST[said], True, at, end)
            if said in _SAYS_LIST
            else Token("text", said, spaced, at, end)
        )
    else:
        said = _RENAMED.get(said, said)
        yield Token("command" if said[0] == "\\" else "letter" if said == "i" else "sign", said, spaced, at, end)


def _number(said: str, depth: int, at: int, end: int, text: str) -> tuple[str, int]:
    """Digits without their separators. Inside brackets a bare comma separates items, so the number ends there."""
    if depth and (comma := _BARE_COMMA.search(said)):
        end = at + comma.start()
        said = text[at:end]
    said = _GROUPED.sub("", said)
    if len(said) > MAX_DIGITS:
        raise TooLarge(f"a number of more than {MAX_DIGITS:,} digits")
    if not said.isascii():
        raise Unreadable("digits of another script")
    return said, end


def _texts(said: str, spaced: bool, at: int, end: int) -> Iterator[Token]:
    """What stands in ``\\text{}``: words that make a list, a formula after all, or words."""
    words = said.strip()
    if words in _SAYS_LIST:
        yield Token("sign", _SAYS_LIST[words], True, at, end)
    elif _FORMULA.fullmatch(words) or _OPTION.fullmatch(said):
        for token in tokens(words):
            yield token._replace(spaced=spaced, at=at, end=end)
    elif words:
        yield Token("text", words, spaced or said[0] == " ", at, end)


def _letters(said: str, spaced: bool, at: int) -> Iterator[Token]:
    """A run of plain letters: a function's name, a word, or a product of letters."""
    end = at + len(said)
    if said in _SAYS_LIST:
        yield Token("sign", _SAYS_LIST[said], spaced, at, end)
    elif said in _WORD_COMMANDS:
        yield Token("command", _WORD_COMMANDS[said], spaced, at, end)
    elif len(said) > 1 and (len(said) > 3 or said.lower() in SHORT_WORDS or known(said)):
        yield Token("word", said, spaced, at, end)
    else:
        for place, one in enumerate(said, at):
            yield Token("letter", one, spaced and place == at, place, place + 1)
