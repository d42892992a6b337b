"""Where the final answer of a reply stands. Exactly one place decides, and what was only thought was not said.

1. Thinking is cut off, by the tags and rules that all replies are read by.
2. The last complete ``<answer>`` is all that counts, where there is one.
3. Within that: the last ``\\boxed`` and those on its line before it, which are parts of one answer; a box that is empty
   or never closes is none. Else the content of ``<answer>``, whole. Else the last line: whole, behind "answer is" or
   ``####``, or one formula that ends it.
"""

from __future__ import annotations

import re

from seekling.verify.maths.limits import Unreadable

_THINK = re.compile(r"</?think>")
_ANSWER = re.compile(r"</?answer>")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LOOSE = re.compile(r"[^\s${}]+")
_MARKED = re.compile(
    r"(?:.{0,2000}[\s*_]|[*_#\s]*)?(?:answer(?:[*_]*\s+is)?[*_]*\s*:[*_]*|answer[*_]*\s+is|答案[是为]?\s*[:：]?|####)\s*(?P<said>.+)",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"(?P<before>[^$]{0,300})\$(?P<said>[^$]+)\$\s*[.。]?")
_CONCLUDES = re.compile(r"\b(?:is|are|equals|therefore|thus|hence|so|get|obtain|have|be)\b|[是为得]", re.IGNORECASE)
_DOUBTS = re.compile(
    r"\b(?:not|or|either|neither|nor|maybe|perhaps|possibly|if|unless|wrong)\b|n't|[不或]", re.IGNORECASE
)
_CUT = "\0"
"""What stands where thinking was cut out: an answer that spans it is none."""
_MAX_BOXES, _MAX_BOX_CHARS = 64, 8_000


def final_answer(reply: str) -> str:
    """The text of the final answer. Raises Unreadable when the reply gives none, or not exactly one."""
    said = outside_thinking(reply)
    tagged = _tagged(said)
    scope = (said if tagged is None else tagged).strip(_CUT + " \t\r\n")
    find = _boxed if _BOX.search(scope) else _last_line if tagged is None else _unfenced
    if not (found := bare(find(scope))):
        raise Unreadable("the answer is empty")
    return found


def outside_thinking(reply: str) -> str:
    """All that is said outside ``<think>``; thinking never closed lasts to the end (the rules of text/reasoning.py)."""
    said: list[str] = []
    depth, opened, start = 0, False, 0
    for tag in _THINK.finditer(reply):
        if not depth:
            said.append(reply[start : tag.start()])
        start = tag.end()
        if tag[0] == "<think>":
            depth, opened = depth + 1, True
        elif depth:
            depth -= 1
        elif not opened:
            said, opened = [], True
    return _CUT.join(said if depth else [*said, reply[start:]])


def bare(text: str) -> str:
    """``text`` without what only sets it off: blanks, ``$``, ``\\( \\)``, emphasis, a box, a full stop."""
    before = None
    while text != before:
        before, text = text, text.strip()
        for opening, closing in (("$$", "$$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`")):
            inner = text[len(opening) : -len(closing)]
            if inner and text.startswith(opening) and text.endswith(closing) and opening not in inner:
                text = inner
        if len(text) > 2 and text[0] == text[-1] == "$" and "$" not in text[1:-1].replace(r"\$", ""):
            text = text[1:-1]
        if text[-1:] in (".", "。") and text[-2:-1] != ".":
            text = text[:-1]
        text = _within_box(text)
    dollars = text.replace(r"\$", "").count("$")
    is_paired = dollars % 2 == 0 and dollars < _MAX_BOXES and "$$" not in text and r"\$" not in text
    return text.replace("$", "") if is_paired else text


def _tagged(said: str) -> str | None:
    """The content of the last complete ``<answer>``."""
    found, start = None, -1
    for tag in _ANSWER.finditer(said):
        if tag[0] == "<answer>":
            start = tag.end()
        elif start >= 0:
            found, start = said[start : tag.start()], -1
    return found


def _boxed(scope: str) -> str:
    """The last box, together with others on its line: ``\\boxed{2} and \\boxed{3}`` is one answer of two parts."""
    found = _boxes(scope)
    parts = [found[-1][0]]
    for (text, _, end), (_, after, _) in zip(found[-2::-1], found[:0:-1], strict=False):
        if "\n" in scope[end:after] or _CUT in scope[end:after]:
            break
        parts.insert(0, text)
    if any(not part.strip() for part in parts[-1:]):
        raise Unreadable("the box is empty")
    distinct = list(dict.fromkeys(bare(part) for part in parts))
    return ", ".join(distinct)


def _boxes(scope: str) -> list[tuple[str, int, int]]:
    """Content, start and end of every outermost box. Raises Unreadable for one that never closes."""
    found: list[tuple[str, int, int]] = []
    place = 0
    while box := _BOX.search(scope, place):
        if scope[box.end() : box.end() + 1] == "{":
            end = _closing(scope, box.end())
            found.append((scope[box.end() + 1 : end - 1], box.start(), end))
        elif loose := _LOOSE.match(scope, box.end()):
            end = loose.end()
            found.append((loose[0].rstrip(".,;"), box.start(), end))
        else:
            raise Unreadable("a box around nothing")
        place = end
        if len(found) > _MAX_BOXES:
            del found[0]
    return found


def _within_box(text: str) -> str:
    """What the one box that all of ``text`` is holds; ``text`` itself where it is none."""
    if not _BOX.match(text):
        return text
    try:
        found = _boxes(text)
    except Unreadable:
        return text
    return found[0][0] if len(found) == 1 and found[0][1:] == (0, len(text)) else text


def _closing(scope: str, opening: int) -> int:
    """Where the brace at ``opening`` closes."""
    depth = 0
    for brace in _BRACE.finditer(scope, opening, opening + _MAX_BOX_CHARS):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if not depth:
            return brace.end()
    raise Unreadable("a box that never closes, or holds far too much")


def _unfenced(text: str) -> str:
    """``text`` without the lines of a code fence around it."""
    lines = text.strip().split("\n")
    return "\n".join(lines[1:-1]) if len(lines) > 2 and lines[0][:3] == lines[-1].strip() == "```" else text


def _last_line(scope: str) -> str:
    """What the last line gives as the answer."""
    lines = [line.strip() for line in _unfenced(scope.strip()[-20_000:]).split("\n") if line.strip(" \t\r*_`")]
    if not lines:
        raise Unreadable("no answer is given")
    line = lines[-1][-4_000:]
    if (marked := _MARKED.fullmatch(line)) and line.count("####") < 2:
        said = marked["said"]
        return said.removesuffix("**") if said.count("**") % 2 else said
    formula = _FORMULA.fullmatch(line)
    if formula and _CONCLUDES.search(formula["before"]) and not _DOUBTS.search(formula["before"]):
        return formula["said"]
    return line
