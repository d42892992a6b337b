"""Instructions that a text either follows or not: lengths, words, forms, languages.

The first 25 go by the names and arguments of IFEval (Zhou et al., arXiv:2311.07911) and decide as that paper's own
checkers do, except where it says otherwise below; the rest are ours. Every one is pure, takes time in proportion to
the text, and says False to what it cannot read. ``strict`` takes a reply as it stands; ``loose`` also without its
first or last line and without asterisks, as the paper reports beside it: for a reward, strict is meant.

Other than IFEval's: sentences and words are told apart by the rules below rather than by nltk's models, languages by
``languages`` rather than by a random classifier, keywords are plain text and no patterns, of brackets that nest the
innermost count, and a line of dashes is no bullet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from seekling.verify.languages import is_in
from seekling.verify.schema import Unreadable, follows, read

MAX_CHARS = 50_000
"""A longer reply follows nothing."""

Arguments = Mapping[str, Any]
Checker = Callable[[str, Arguments], bool]

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s|$)|[。！？]+[”’」』）]*")
_ABBREVIATION = re.compile(r"(?:^|\W)(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|[A-Z])$")
_BULLET = re.compile(r"^[ \t]*(?:\*(?!\*)|-(?!-))[ \t]*\S", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*[0-9]{1,3}[.)][ \t]+\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*\]")
_HIGHLIGHT = re.compile(r"\*\*([^\n*]+)\*\*|\*([^\n*]+)\*")
_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*?)\n?```\Z", re.DOTALL | re.IGNORECASE)
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


def strict(reply: str, instructions: Sequence[tuple[str, Arguments]]) -> bool:
    """Whether ``reply`` follows all ``instructions``, each a name in ``CHECKERS`` and its arguments."""
    return all(CHECKERS[name](reply, arguments) for name, arguments in instructions)


def loose(reply: str, instructions: Sequence[tuple[str, Arguments]]) -> bool:
    """As ``strict``, of each instruction whatever form of the reply follows it: see above."""
    lines = reply.split("\n")
    cut = [reply, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])]
    forms = [form for text in cut for form in (text.strip(), text.replace("*", "").strip())]
    return all(any(CHECKERS[name](form, arguments) for form in [reply, *forms]) for name, arguments in instructions)


POLICIES: Mapping[Literal["strict", "loose"], Callable[[str, Sequence[tuple[str, Arguments]]], bool]] = {
    "strict": strict,
    "loose": loose,
}


def words(text: str) -> list[str]:
    """Runs of letters and digits, as IFEval counts them: an apostrophe parts two."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """Parts that end with a full stop or its kin, and what is left; abbreviations and initials end none."""
    found, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        if end[0][0] == "." and _ABBREVIATION.search(text[max(0, end.start() - 6) : end.start()]):
            continue
        found.append(text[start : end.end()])
        start = end.end()
    return [part.strip() for part in [*found, text[start:]] if _WORD.search(part)]


def _relates(count: int, wanted: int, relation: str) -> bool:
    """``less than``, ``at least``, and, of our own, ``exactly`` and ``at most``. Raises KeyError for another."""
    return {
        "less than": count < wanted,
        "at least": count >= wanted,
        "at most": count <= wanted,
        "exactly": count == wanted,
    }[relation]


def _times(text: str, keyword: str) -> int:
    return text.lower().count(keyword.lower()) if keyword else 0


def _has_word(text: str, word: str) -> bool:
    """Whether ``word`` stands there by itself; in writing without blanks, whether it stands there at all."""
    edges = (r"\b" if re.match(r"\w", word) and not _HAN.match(word) else "", "" if _HAN.search(word[-1:]) else r"\b")
    return bool(word) and re.search(f"{edges[0]}{re.escape(word)}{edges[1]}", text, re.IGNORECASE) is not None


def _paragraphs(reply: str, arguments: Arguments) -> bool:
    """Parted by ``***``; none is empty but what comes before the first mark or after the last."""
    parts = [part.strip() for part in reply.split("***")]
    inner = parts[1:-1] if len(parts) > 2 else []
    return all(inner) and sum(map(bool, parts)) == int(arguments["num_paragraphs"])


def _nth_paragraph(reply: str, arguments: Arguments) -> bool:
    """Parted by empty lines: their number, and the first word of one of them (counted from 1)."""
    parts = [part.strip() for part in reply.split("\n\n") if part.strip()]
    number = arguments["nth_paragraph"]
    if len(parts) != arguments["num_paragraphs"] or not 1 <= number <= len(parts):
        return False
    found = _WORD.search(parts[number - 1])
    return found is not None and found[0].lower() == str(arguments["first_word"]).lower()


def _postscript(reply: str, arguments: Arguments) -> bool:
    """A line, or what follows a blank, begins with the marker; blanks between its letters do not matter."""
    marker = arguments["postscript_marker"].lower()
    letters = r"\s?".join(re.escape(sign) for sign in marker if not sign.isspace())
    return re.search(rf"(?:^|\s){letters}", reply.lower()) is not None


def _highlights(reply: str, arguments: Arguments) -> bool:
    found = sum(bool((strong or weak).strip()) for strong, weak in _HIGHLIGHT.findall(reply))
    return found >= int(arguments["num_highlights"])


def _sections(reply: str, arguments: Arguments) -> bool:
    """``Section 1``, ``Section 2`` and so on, at least as many as asked for."""
    found = re.findall(rf"{re.escape(arguments['section_spliter'])}\s?[0-9]", reply)
    return len(found) >= int(arguments["num_sections"])


def _title(reply: str, arguments: Arguments) -> bool:
    """``<<a title>>`` on one line."""
    found = ((line, line.find("<<"), line.rfind(">>")) for line in reply.split("\n"))
    return any(0 <= opened < closed and line[opened + 2 : closed].strip("<> ") for line, opened, closed in found)


def _two_responses(reply: str, arguments: Arguments) -> bool:
    """Two that differ, parted by six asterisks."""
    parts = [part.strip() for part in reply.split("******")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _quoted(reply: str, arguments: Arguments) -> bool:
    text = reply.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _ends_with(reply: str, arguments: Arguments) -> bool:
    return reply.strip().strip('"').lower().endswith(arguments["end_phrase"].strip().lower())


def _capital_words(reply: str, arguments: Arguments) -> bool:
    """Words all in capitals; a single letter is one, as in IFEval."""
    count = sum(word.isupper() for word in words(reply))
    return _relates(count, arguments["capital_frequency"], arguments["capital_relation"])


def _json(reply: str, arguments: Arguments) -> bool:
    """The whole reply is JSON, in a fence or not; with a schema, what it asks for."""
    text = reply.strip()
    fenced = _FENCE.match(text)
    try:
        value = read(fenced[1] if fenced else text)
    except Unreadable:
        return False
    return follows(value, arguments.get("schema", {}))


def _letters(reply: str, arguments: Arguments) -> bool:
    count = reply.lower().count(arguments["letter"].lower())
    return _relates(count, arguments["let_frequency"], arguments["let_relation"])


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _alternates(reply: str) -> bool:
    """Whether the letters turn from capital to small and back."""
    letters = [sign.isupper() for sign in reply if sign.isalpha()]
    return len(letters) > 1 and all(a != b for a, b in pairwise(letters))


def _bounded(checker: Checker) -> Checker:
    def check(reply: str, arguments: Arguments) -> bool:
        return bool(reply.strip()) and len(reply) <= MAX_CHARS and checker(reply, arguments)

    return check


_IFEVAL: Mapping[str, Checker] = {
    "keywords:existence": lambda r, a: all(_times(r, keyword) for keyword in a["keywords"]),
    "keywords:frequency": lambda r, a: _relates(_times(r, a["keyword"]), a["frequency"], a["relation"]),
    "keywords:forbidden_words": lambda r, a: not any(_has_word(r, word) for word in a["forbidden_words"]),
    "keywords:letter_frequency": _letters,
    "language:response_language": lambda r, a: is_in(r, a["language"]),
    "length_constraints:number_sentences": lambda r, a: _relates(len(sentences(r)), a["num_sentences"], a["relation"]),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda r, a: _relates(len(words(r)), a["num_words"], a["relation"]),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda r, a: len(_PLACEHOLDER.findall(r)) >= a["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda r, a: len(_BULLET.findall(r)) == a["num_bullets"],
    "detectable_format:constrained_response": lambda r, a: any(option in r for option in _OPTIONS),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": lambda r, a: _json(r, {}),
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda r, a: r.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": _ends_with,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda r, a: r.isupper() and is_in(r, "en"),
    "change_case:english_lowercase": lambda r, a: r.islower() and is_in(r, "en"),
    "punctuation:no_comma": lambda r, a: not any(comma in r for comma in ",，、"),
}
_OURS: Mapping[str, Checker] = {
    "startend:start_checker": lambda r, a: r.strip().lower().startswith(a["start_phrase"].strip().lower()),
    "length_constraints:number_characters": lambda r, a: _relates(
        len(re.sub(r"\s", "", r)), a["num_characters"], a["relation"]
    ),
    "length_constraints:number_lines": lambda r, a: _relates(len(_lines(r)), a["num_lines"], a["relation"]),
    "length_constraints:sentence_words": lambda r, a: all(
        _relates(len(words(part)), a["num_words"], a["relation"]) for part in sentences(r)
    ),
    "length_constraints:different_words": lambda r, a: _relates(
        len({word.lower() for word in words(r)}), a["num_words"], a["relation"]
    ),
    "detectable_format:json_schema": lambda r, a: _json(r, {"schema": a["schema"]}),
    "detectable_format:number_numbered_items": lambda r, a: len(_NUMBERED.findall(r)) == a["num_items"],
    "keywords:line_starts": lambda r, a: all(line.lower().startswith(a["word"].lower()) for line in _lines(r)),
    "keywords:in_order": lambda r, a: _in_order(r, a["keywords"]),
    "punctuation:no_full_stop": lambda r, a: not any(stop in r for stop in ".。"),
    "punctuation:exclamation_marks": lambda r, a: _relates(r.count("!") + r.count("！"), a["num_marks"], a["relation"]),
    "change_case:alternating": lambda r, a: _alternates(r),
}


def _in_order(reply: str, keywords: Sequence[str]) -> bool:
    """Whether the keywords stand there one after another."""
    start, text = 0, reply.lower()
    for keyword in keywords:
        found = text.find(keyword.lower(), start)
        if found < 0:
            return False
        start = found + len(keyword)
    return True


IFEVAL = tuple(_IFEVAL)
"""The names that IFEval knows."""

CHECKERS: Mapping[str, Checker] = {name: _bounded(checker) for name, checker in {**_IFEVAL, **_OURS}.items()}
"""By name: whether a reply follows one instruction. Arguments are IFEval's own; KeyError when one is missing."""
