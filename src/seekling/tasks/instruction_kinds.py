"""The constraints that ``instructions`` asks for: how each is drawn, said, kept by a draft, and surely broken.

What a constraint means stands in ``verify.constraints``; nothing here decides whether a reply keeps it. ``concerns``
names what a constraint is about: two about the same are never asked for together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from random import Random
from typing import Any

from seekling.tasks.topics import ABOUT, HOW, SENTENCES, WHEN
from seekling.verify.constraints import sentences, words

Arguments = Mapping[str, Any]
Words = tuple[str, ...]

_RELATION_EN = {"at least": "at least", "less than": "fewer than", "exactly": "exactly", "at most": "at most"}
_RELATION_ZH = {"at least": "至少", "less than": "少于", "exactly": "正好", "at most": "最多"}
_LETTERS = {"j": "a joyful jar", "q": "a quick quiz", "x": "six boxes", "z": "a lazy puzzle"}
_ENDS = {"en": ("That is all I know.", "Thank you for reading."), "zh": ("我就写到这里。", "谢谢你的阅读。")}
_STARTS = {"en": ("To begin with", "In short", "Dear reader"), "zh": ("首先", "简单来说", "亲爱的读者")}
_ALL = frozenset({
    "shape", "case", "start", "end", "comma", "stop", "marks", "length", "letter", "placeholders", "postscript",
    "highlights", "title", "quote", "sentence", "constrained", "order", "frequency", "language",
})  # fmt: skip
_ENGLISH, _BOTH = ("en",), ("en", "zh")


@dataclass(slots=True)
class Draft:
    """A reply in the making: constraints set its parts, ``text`` puts them together."""

    language: str
    topic: str
    rng: Random
    holds: list[str] = field(default_factory=list)
    avoid: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    count: int = 0
    fill: Callable[[str], bool] = lambda text: True
    parts: int = 1
    join: Callable[[list[str]], str] = " ".join
    before: list[str] = field(default_factory=list)
    opening: str = ""
    after: list[str] = field(default_factory=list)
    marked: int = 0
    starred: int = 0
    shouted: int = 0
    finish: list[Callable[[str], str]] = field(default_factory=list)
    whole: str = ""

    def sentence(self) -> str:
        """A simple sentence about the topic, with its mark, without what is to be avoided."""
        while True:
            form = self.rng.choice(SENTENCES[self.language])
            how, when = self.rng.choice(HOW[self.language]), self.rng.choice(WHEN[self.language])
            said = form.format(topic=self.topic, Topic=_raised(self.topic), how=how, when=when)
            if not any(word in said.lower() for word in self.avoid):
                return said + self.mark()

    def about(self, word: str) -> str:
        """A sentence that holds ``word``."""
        return self.rng.choice(ABOUT[self.language]).format(word=word) + self.mark()

    def mark(self) -> str:
        """What ends a sentence."""
        return "." if self.language == "en" else "。"

    def text(self) -> str:
        """The reply. What it was told to be, it may still not be: a check decides."""
        if self.whole:
            return self.whole
        body = [*(self.about(word) for word in self.holds), *self.extra]
        around = len(sentences(" ".join(self.after)))
        least = max(self.parts, self.marked, self.starred, self.shouted, self.count - around, 1)
        for _ in range(400):
            if len(body) >= least and (self.count or self.fill(" ".join(body))):
                break
            body.append(self.sentence())
        if self.opening:
            comma = " " if self.language == "en" else ""
            body[0] = f"{self.opening}{comma}{body[0]}"
        body = [self._dressed(place, said) for place, said in enumerate(body)]
        share = [" ".join(part) if self.language == "en" else "".join(part) for part in _parted(body, self.parts)]
        text = "\n".join([*self.before, self.join(share), *self.after])
        return reduce(lambda told, change: change(told), self.finish, text)

    def _dressed(self, place: int, said: str) -> str:
        if place < self.marked:
            said = said[:-1] + ("!" if self.language == "en" else "！")
        if place < self.starred:
            said = re.sub(r"^\w+", lambda first: f"*{first[0]}*", said)
        return re.sub(r"^\w+", lambda first: first[0].upper(), said) if place < self.shouted else said


Keeps = Callable[[Draft, Arguments], None]
"""Sets what a draft needs to keep a constraint."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One constraint. ``place`` orders what is kept first; ``broken`` is None where no surely wrong text is known."""

    concerns: frozenset[str]
    draw: Callable[[Random, Words, str], dict[str, Any]]
    english: Callable[[Arguments], str]
    chinese: Callable[[Arguments], str]
    keep: Keeps
    broken: Callable[[str, Arguments], str | None] = lambda reply, arguments: None
    languages: tuple[str, ...] = _BOTH
    place: int = 1


def _as_it_is(draft: Draft, arguments: Arguments) -> None:
    """Plain sentences keep it already."""


def _put(part: str, argument: str) -> Keeps:
    """Keep by setting a part of the draft to an argument."""
    return lambda draft, arguments: setattr(draft, part, arguments[argument])


def _finish(change: Callable[[str], str]) -> Keeps:
    """Keep by changing the whole text at the end."""
    return lambda draft, arguments: draft.finish.append(change)


def _quoted(listed: list[str], language: str) -> str:
    return " and ".join(f'"{word}"' for word in listed) if language == "en" else "和".join(f"“{w}”" for w in listed)


def _raised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _parted(body: list[str], parts: int) -> list[list[str]]:
    """``body`` in ``parts`` runs, none of them empty, in order."""
    edges = [round(place * len(body) / parts) for place in range(parts + 1)]
    return [body[start:end] for start, end in pairwise(edges)]


def _no_arguments(rng: Random, about: Words, language: str) -> dict[str, Any]:
    return {}


def _number(name: str, low: int, high: int, *relations: str, relation: str = "relation") -> Any:
    """Arguments of a number and, with several ``relations``, one of them."""

    def draw(rng: Random, about: Words, language: str) -> dict[str, Any]:
        told = {relation: rng.choice(relations)} if relations else {}
        return {name: rng.randint(low, high)} | told

    return draw


def _counted(name: str, english: str, chinese: str, relation: str = "relation") -> dict[str, Any]:
    """How a bounded number is said: ``{n}`` and ``{how}`` stand in the texts."""
    return {
        "english": lambda a: english.format(n=a[name], how=_RELATION_EN[a.get(relation, "exactly")]),
        "chinese": lambda a: chinese.format(n=a[name], how=_RELATION_ZH[a.get(relation, "exactly")]),
    }


def _said(english: str, chinese: str = "") -> dict[str, Any]:
    """How a constraint is said whose arguments stand in the text by their names."""
    return {"english": lambda a: english.format(**a), "chinese": lambda a: chinese.format(**a)}


def _length(measure: Callable[[str], int], name: str) -> Keeps:
    """Fill up to what is asked for; of what must stay small, write no more than there is to say."""

    def keep(draft: Draft, arguments: Arguments) -> None:
        if arguments["relation"] == "at least":
            draft.fill = lambda text: measure(text) >= arguments[name]

    return keep


def _sentence_count(draft: Draft, arguments: Arguments) -> None:
    offset = {"less than": -1, "at least": 0, "exactly": 0}[arguments["relation"]]
    draft.count = arguments["num_sentences"] + offset


def _more(draft: Draft, texts: list[str]) -> None:
    draft.extra += texts


def _repeats(draft: Draft, arguments: Arguments) -> None:
    if arguments["relation"] == "at least":
        _more(draft, [draft.about(arguments["keyword"]) for _ in range(arguments["frequency"])])


def _starred_paragraphs(draft: Draft, arguments: Arguments) -> None:
    draft.parts, draft.join = arguments["num_paragraphs"], "\n***\n".join


def _nth(draft: Draft, arguments: Arguments) -> None:
    draft.parts = arguments["num_paragraphs"]

    def join(shares: list[str]) -> str:
        place = arguments["nth_paragraph"] - 1
        shares[place] = f"{_raised(arguments['first_word'])} {shares[place][:1].lower()}{shares[place][1:]}"
        return "\n\n".join(shares)

    draft.join = join


def _itemised(name: str, mark: Callable[[int], str]) -> Keeps:
    def keep(draft: Draft, arguments: Arguments) -> None:
        draft.parts = arguments[name]
        draft.join = lambda shares: "\n".join(f"{mark(n)}{share}" for n, share in enumerate(shares, 1))

    return keep


def _sectioned(draft: Draft, arguments: Arguments) -> None:
    name, draft.parts = arguments["section_spliter"], arguments["num_sections"]
    draft.join = lambda shares: "\n".join(f"{name} {n}\n{share}" for n, share in enumerate(shares, 1))


def _lines(draft: Draft, arguments: Arguments) -> None:
    draft.parts, draft.join = arguments["num_lines"], "\n".join


def _line_starts(draft: Draft, arguments: Arguments) -> None:
    blank = " " if draft.language == "en" else ""
    draft.parts = 3
    draft.join = lambda shares: "\n".join(f"{arguments['word']}{blank}{share}" for share in shares)


def _two(draft: Draft, arguments: Arguments) -> None:
    draft.join = lambda shares: f"{shares[0]}\n******\n{draft.sentence()}"


def _placeholders(draft: Draft, arguments: Arguments) -> None:
    names = ("name", "place", "date", "number")
    form = "Here I think of [{}]." if draft.language == "en" else "这里我想到[{}]。"
    _more(draft, [form.format(names[n % 4]) for n in range(arguments["num_placeholders"])])


def _postscript(draft: Draft, arguments: Arguments) -> None:
    draft.after.append(f"{arguments['postscript_marker']} {draft.sentence()}")


def _letters(draft: Draft, arguments: Arguments) -> None:
    thing = _LETTERS[arguments["letter"]]
    _more(draft, [f"I think of {thing} {when}." for when in WHEN["en"][: (arguments["let_frequency"] + 1) // 2]])


def _as_json(draft: Draft, arguments: Arguments) -> None:
    value = _example(arguments.get("schema") or _TEXT_SCHEMA, draft)
    draft.whole = json.dumps(value, ensure_ascii=False)


_TEXT_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "tags": {"type": "array"}}}


def _example(schema: Arguments, draft: Draft) -> Any:
    """A value that follows a schema of ``_schema``; its strings hold what the draft must hold."""
    if "enum" in schema:
        return draft.rng.choice(schema["enum"])
    match schema["type"]:
        case "object":
            return {name: _example(part, draft) for name, part in schema["properties"].items()}
        case "array":
            return [draft.topic] * schema.get("minItems", 1)
        case "string":
            return " ".join([*(draft.about(word) for word in draft.holds), draft.sentence()])
        case "boolean":
            return draft.rng.random() < 0.5
    return draft.rng.randint(schema.get("minimum", 0), schema.get("maximum", 9))


def _schema(rng: Random, about: Words, language: str) -> dict[str, Any]:
    """Text, and two or three other fields of different types."""
    low = rng.randint(1, 5)
    choices = {
        "count": {"type": "integer", "minimum": low, "maximum": low + rng.randint(1, 9)},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": rng.randint(1, 4)},
        "is_common": {"type": "boolean"},
        "kind": {"type": "string", "enum": ["place", "thing", "time"]},
        "score": {"type": "number", "minimum": 0, "maximum": 10},
    }
    names = ["text", *rng.sample(sorted(choices), rng.randint(2, 3))]
    properties = {name: choices.get(name, {"type": "string"}) for name in names}
    return {"schema": {"type": "object", "properties": properties, "required": names, "additionalProperties": False}}


def _frequency(rng: Random, about: Words, language: str) -> dict[str, Any]:
    least = rng.random() < 0.7
    relation, times = ("at least", rng.randint(2, 4)) if least else ("less than", rng.randint(2, 3))
    return {"keyword": rng.choice(about), "frequency": times, "relation": relation}


def _nth_arguments(rng: Random, about: Words, language: str) -> dict[str, Any]:
    number = rng.randint(2, 4)
    return {"num_paragraphs": number, "nth_paragraph": rng.randint(1, number), "first_word": rng.choice(about)}


def _cut(reply: str, part: str) -> str:
    """``reply`` without ``part``, whatever its case."""
    return re.sub(re.escape(part), "…", reply, flags=re.IGNORECASE)


def _far_too_much(reply: str, arguments: Arguments) -> str | None:
    """Far too much, where a most or a number is asked for."""
    return reply + "\n" + f"{reply} " * 200 if arguments["relation"] != "at least" else None


KINDS: Mapping[str, Kind] = {
    "keywords:existence": Kind(
        frozenset(), lambda rng, about, language: {"keywords": rng.sample(about, 2)},
        lambda a: f"Use the words {_quoted(a['keywords'], 'en')}.",
        lambda a: f"请用到{_quoted(a['keywords'], 'zh')}这两个词。",
        lambda draft, a: draft.holds.extend(a["keywords"]),
        lambda reply, a: _cut(reply, a["keywords"][0]), place=0,
    ),
    "keywords:frequency": Kind(
        frozenset({"frequency"}), _frequency,
        lambda a: f'Use the word "{a["keyword"]}" {_RELATION_EN[a["relation"]]} {a["frequency"]} times.',
        lambda a: f"“{a['keyword']}”这个词{_RELATION_ZH[a['relation']]}出现{a['frequency']}次。",
        _repeats,
        lambda reply, a: _cut(reply, a["keyword"]) if a["relation"] == "at least"
        else f"{reply} {a['keyword']} {a['keyword']} {a['keyword']}",
    ),
    "keywords:forbidden_words": Kind(
        frozenset({"forbidden"}), lambda rng, about, language: {"forbidden_words": rng.sample(HOW["en"], 2)},
        lambda a: f"Do not use the words {_quoted(a['forbidden_words'], 'en')}.", lambda a: "",
        lambda draft, a: draft.avoid.extend(a["forbidden_words"]),
        lambda reply, a: f"{reply} {a['forbidden_words'][1]}", _ENGLISH, place=0,
    ),
    "keywords:letter_frequency": Kind(
        frozenset({"letter"}),
        lambda rng, about, language: _number("let_frequency", 2, 6, "at least", relation="let_relation")(
            rng, about, language) | {"letter": rng.choice("jqxz")},
        lambda a: f"Use the letter {a['letter']} at least {a['let_frequency']} times.", lambda a: "", _letters,
        lambda reply, a: _cut(reply, a["letter"]), _ENGLISH,
    ),
    "keywords:in_order": Kind(
        frozenset({"order"}), lambda rng, about, language: {"keywords": rng.sample(about, 3)},
        lambda a: f"Mention {_quoted(a['keywords'], 'en')}, in this order.",
        lambda a: f"请按顺序提到{_quoted(a['keywords'], 'zh')}。",
        lambda draft, a: _more(draft, [draft.about(word) for word in a["keywords"]]),
        lambda reply, a: _cut(reply, a["keywords"][1]),
    ),
    "keywords:line_starts": Kind(
        frozenset({"shape", "start", "title", "postscript", "quote", "end"}),
        lambda rng, about, language: {"word": rng.choice(about)},
        lambda a: f'Begin every line with "{a["word"]}".', lambda a: f"每一行都以“{a['word']}”开头。",
        _line_starts, lambda reply, a: f"{reply}\n?",
    ),
    "language:response_language": Kind(
        frozenset({"language"}), lambda rng, about, language: {"language": language},
        lambda a: "Answer in English.", lambda a: "请用中文回答。", _as_it_is,
        lambda reply, a: "море и небо " * 200 + reply,
    ),
    "length_constraints:number_sentences": Kind(
        frozenset({"length", "title", "constrained"}),
        _number("num_sentences", 8, 14, "at least", "less than", "exactly"),
        **_counted("num_sentences", "Write {how} {n} sentences.", "{how}写{n}个句子。"),
        keep=_sentence_count, broken=_far_too_much,
    ),
    "length_constraints:number_words": Kind(
        frozenset({"length"}), lambda rng, about, language: rng.choice((
            {"num_words": rng.randint(40, 120), "relation": "at least"},
            {"num_words": rng.randint(90, 150), "relation": "less than"},
        )),
        **_counted("num_words", "Write {how} {n} words.", ""),
        keep=_length(lambda text: len(words(text)), "num_words"), broken=_far_too_much, languages=_ENGLISH,
    ),
    "length_constraints:number_characters": Kind(
        frozenset({"length"}), lambda rng, about, language: rng.choice((
            {"num_characters": rng.randint(80, 200), "relation": "at least"},
            {"num_characters": rng.randint(600, 900), "relation": "at most"},
        )),
        **_counted("num_characters", "Write {how} {n} characters, blanks not counted.", "{how}写{n}个字，空格不算。"),
        keep=_length(lambda text: len(re.sub(r"\s", "", text)), "num_characters"), broken=_far_too_much,
    ),
    "length_constraints:different_words": Kind(
        frozenset({"length"}), lambda rng, about, language: {"num_words": rng.randint(20, 35), "relation": "at least"},
        **_counted("num_words", "Use {how} {n} different words.", ""),
        keep=_length(lambda text: len({word.lower() for word in words(text)}), "num_words"),
        languages=_ENGLISH,
    ),
    "length_constraints:sentence_words": Kind(
        frozenset({"sentence", "title", "start", "placeholders", "shape", "stop"}),
        _number("num_words", 12, 16, "at most"),
        **_counted("num_words", "No sentence may have more than {n} words.", ""),
        keep=_as_it_is, broken=lambda reply, a: f"{reply} {'and on ' * 20}it goes.", languages=_ENGLISH,
    ),
    "length_constraints:number_paragraphs": Kind(
        frozenset({"shape", "highlights"}), _number("num_paragraphs", 2, 5),
        **_said("Write {num_paragraphs} paragraphs, parted by ***.", "写{num_paragraphs}段，用***隔开。"),
        keep=_starred_paragraphs,
        broken=lambda reply, a: f"{reply}\n***\n?",
    ),
    "length_constraints:nth_paragraph_first_word": Kind(
        frozenset({"shape", "title", "postscript", "quote", "start", "end"}), _nth_arguments,
        **_said('Write {num_paragraphs} paragraphs, parted by empty lines; '
                'begin number {nth_paragraph} with "{first_word}".'),
        keep=_nth, broken=lambda reply, a: f"{reply}\n\n?", languages=_ENGLISH,
    ),
    "length_constraints:number_lines": Kind(
        frozenset({"shape", "title", "postscript", "end"}), _number("num_lines", 3, 7, "exactly"),
        **_counted("num_lines", "Write {how} {n} lines.", "{how}写{n}行。"),
        keep=_lines, broken=lambda reply, a: f"{reply}\n?",
    ),
    "detectable_content:number_placeholders": Kind(
        frozenset({"placeholders", "sentence"}), _number("num_placeholders", 1, 4),
        **_said("Leave at least {num_placeholders} placeholders in square brackets, such as [name].",
                "至少留出{num_placeholders}个方括号占位符，例如[name]。"),
        keep=_placeholders, broken=lambda reply, a: reply.replace("[", "("),
    ),
    "detectable_content:postscript": Kind(
        frozenset({"postscript", "end"}),
        lambda rng, about, language: {"postscript_marker": rng.choice(("P.S.", "P.P.S"))},
        **_said("Add a postscript that begins with {postscript_marker}.",
                "最后加一段以{postscript_marker}开头的附言。"),
        keep=_postscript, broken=lambda reply, a: _cut(reply, a["postscript_marker"]),
    ),
    "detectable_format:number_bullet_lists": Kind(
        frozenset({"shape", "start"}), _number("num_bullets", 2, 6),
        **_said("Answer in exactly {num_bullets} bullet points, each on a line that begins with a dash.",
                "正好用{num_bullets}个要点回答，每行以-开头。"),
        keep=_itemised("num_bullets", lambda n: "- "), broken=lambda reply, a: f"{reply}\n- one more",
    ),
    "detectable_format:number_numbered_items": Kind(
        frozenset({"shape", "start", "stop", "length"}), _number("num_items", 2, 6),
        **_said("Answer in a numbered list of exactly {num_items} items, such as 1. first.",
                "用正好{num_items}项的编号列表回答，例如1. 第一。"),
        keep=_itemised("num_items", lambda n: f"{n}. "), broken=lambda reply, a: f"{reply}\n9. one more",
    ),
    "detectable_format:constrained_response": Kind(
        frozenset({"constrained", "case", "stop", "language"}), _no_arguments,
        **_said('Somewhere say "My answer is yes.", "My answer is no." or "My answer is maybe."',
                "文中要有“My answer is yes.”、“My answer is no.”或“My answer is maybe.”。"),
        keep=lambda draft, a: _more(draft, ["My answer is maybe."]),
        broken=lambda reply, a: _cut(reply, "My answer is"),
    ),
    "detectable_format:number_highlighted_sections": Kind(
        frozenset({"highlights", "start", "quote"}), _number("num_highlights", 2, 4),
        **_said("Highlight at least {num_highlights} parts with asterisks, *like this*.",
                "至少用星号突出{num_highlights}处，例如*这样*。"),
        keep=_put("starred", "num_highlights"), broken=lambda reply, a: reply.replace("*", "_"),
    ),
    "detectable_format:multiple_sections": Kind(
        frozenset({"shape", "start", "case"}),
        lambda rng, about, language: {
            "section_spliter": rng.choice(("Section", "PART")), "num_sections": rng.randint(2, 4)},
        **_said("Write {num_sections} sections, each begun with {section_spliter} and its number.",
                "写{num_sections}节，每节以{section_spliter}和编号开头。"),
        keep=_sectioned, broken=lambda reply, a: _cut(reply, a["section_spliter"]),
    ),
    "detectable_format:json_format": Kind(
        _ALL, _no_arguments, **_said("Answer in JSON and nothing else.", "只用JSON回答。"),
        keep=_as_json, broken=lambda reply, a: f"Here it is: {reply}", place=9,
    ),
    "detectable_format:json_schema": Kind(
        _ALL, _schema,
        lambda a: f"Answer only in JSON that follows this schema: {json.dumps(a['schema'])}",
        lambda a: f"只用符合这个模式的JSON回答：{json.dumps(a['schema'])}",
        _as_json, lambda reply, a: reply.rstrip("}") + ', "more": 1}', place=9,
    ),
    "detectable_format:title": Kind(
        frozenset({"title", "start", "quote"}), _no_arguments,
        **_said("Give it a title in double angular brackets, such as <<a title>>.",
                "用双尖括号写一个标题，例如<<标题>>。"),
        keep=lambda draft, a: draft.before.append(f"<<{_raised(draft.topic)}>>"),
        broken=lambda reply, a: reply.replace("<<", "(("),
    ),
    "combination:two_responses": Kind(
        frozenset({"shape", "highlights"}), _no_arguments,
        **_said("Give two different answers, parted by ******.", "给出两个不同的回答，用******隔开。"),
        keep=_two, broken=lambda reply, a: reply.replace("******", "---"),
    ),
    "startend:start_checker": Kind(
        frozenset({"start", "quote"}),
        lambda rng, about, language: {"start_phrase": rng.choice(_STARTS[language])},
        **_said('Begin with "{start_phrase}".', "以“{start_phrase}”开头。"),
        keep=_put("opening", "start_phrase"), broken=lambda reply, a: f"Sure. {reply}",
    ),
    "startend:end_checker": Kind(
        frozenset({"end", "stop"}),
        lambda rng, about, language: {"end_phrase": rng.choice(_ENDS[language])},
        **_said('End with "{end_phrase}" and nothing after it.', "以“{end_phrase}”结尾，后面什么都不要写。"),
        keep=lambda draft, a: draft.after.append(a["end_phrase"]), broken=lambda reply, a: f"{reply} Bye",
    ),
    "startend:quotation": Kind(
        frozenset({"quote", "start"}), _no_arguments,
        **_said("Put the whole answer in double quotation marks.", '把整个回答放在英文双引号"里。'),
        keep=_finish(lambda text: f'"{text}"'), broken=lambda reply, a: reply.strip('"'), place=2,
    ),
    "change_case:capital_word_frequency": Kind(
        frozenset({"case"}),
        _number("capital_frequency", 2, 4, "at least", relation="capital_relation"),
        **_counted("capital_frequency", "Write {how} {n} words in capital letters.", "", "capital_relation"),
        keep=_put("shouted", "capital_frequency"), broken=lambda reply, a: reply.lower(), languages=_ENGLISH,
    ),
    "change_case:english_capital": Kind(
        frozenset({"case", "constrained"}), _no_arguments, **_said("Use capital letters only."),
        keep=_finish(str.upper), broken=lambda reply, a: f"{reply} x", languages=_ENGLISH,
    ),
    "change_case:english_lowercase": Kind(
        frozenset({"case", "constrained"}), _no_arguments, **_said("Use small letters only."),
        keep=_finish(str.lower), broken=lambda reply, a: f"{reply} X", languages=_ENGLISH,
    ),
    "punctuation:no_comma": Kind(
        frozenset({"comma"}), _no_arguments, **_said("Use no commas.", "不要用逗号和顿号。"),
        keep=_as_it_is, broken=lambda reply, a: f"{reply}, yes",
    ),
    "punctuation:no_full_stop": Kind(
        frozenset({"stop", "marks", "postscript", "end", "constrained"}), _no_arguments,
        **_said("Use no full stops.", "不要用句号。"),
        keep=_finish(lambda text: text.replace(".", "!").replace("。", "！")), broken=lambda reply, a: f"{reply}.",
        place=2,
    ),
    "punctuation:exclamation_marks": Kind(
        frozenset({"marks"}), _number("num_marks", 1, 3, "exactly"),
        **_counted("num_marks", "Use {how} {n} exclamation marks.", "{how}用{n}个感叹号。"),
        keep=_put("marked", "num_marks"), broken=lambda reply, a: f"{reply}!",
    ),
}  # fmt: skip
"""By name; each name is one of ``verify.constraints.CHECKERS``."""
