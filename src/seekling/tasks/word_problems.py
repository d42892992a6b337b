"""Word problems in English and Chinese: the story of one quantity, told in sentences. How many are there at the end?

What there is to find is doing one operation at a time. The story decides the problem, its words do not: the same story
in other words or in the other language is the same problem, and in the same split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from seekling.config import Settings
from seekling.errors import UserError
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.answers import compared, integer

Language = Literal["en", "zh"]
Step = tuple[str, int, int]
"""A kind of event and its one or two numbers (0 where there is only one)."""

_LINE = re.compile(r"^[0-9]+(?:[-+*/][0-9]+)*(?:=[0-9]+)?$")
_SLIPS = (-10, -2, -1, 1, 2, 10)
_MAX_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Words:
    """A language: who, what, and sentences. ``{who}``, ``{thing}``, ``{a}``, ``{b}`` are filled in.

    A thing is what stands after a number, its measure word included where the language has one.
    """

    people: tuple[str, ...]
    things: tuple[str, ...]
    start: tuple[str, ...]
    events: Mapping[str, tuple[str, ...]]
    aside: tuple[str, ...]
    question: str
    gap: str


LANGUAGES: Mapping[str, Words] = {
    "en": Words(
        people=("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Mei", "Omar"),
        things=("apples", "books", "coins", "marbles", "pencils", "shells", "stamps", "stickers"),
        start=("{who} has {a} {thing}.", "{who} starts with {a} {thing}.", "At first {who} has {a} {thing}."),
        events={
            "gain": ("{who} finds {a} more.", "{who} buys {a} more.", "A friend gives {who} {a} more."),
            "lose": ("{who} gives away {a}.", "{who} loses {a}.", "{who} sells {a} of them."),
            "packs": ("{who} buys {a} boxes of {b} each.", "{who} gets {a} bags with {b} in each."),
            "times": ("Soon {who} has {a} times as many.", "The collection grows to {a} times its size."),
            "share": (
                "{who} splits all into {a} equal shares and keeps one.",
                "All go into {a} equal piles, and {who} keeps one pile.",
            ),
        },
        aside=("{who} has {a} {thing}.", "{who}, a neighbour, owns {a} {thing}."),
        question="How many {thing} does {who} have now?",
        gap=" ",
    ),
    "zh": Words(
        people=("小明", "小红", "小华", "小丽", "小刚", "小芳", "小军", "小兰"),
        things=("个苹果", "本书", "枚硬币", "颗弹珠", "支铅笔", "个贝壳", "张邮票", "张贴纸"),
        start=("{who}有{a}{thing}。", "一开始{who}有{a}{thing}。", "{who}原来有{a}{thing}。"),
        events={
            "gain": ("{who}又找到{a}{m}。", "{who}又买了{a}{m}。", "朋友又给了{who}{a}{m}。"),
            "lose": ("{who}送出{a}{m}。", "{who}丢了{a}{m}。", "{who}卖掉其中{a}{m}。"),
            "packs": ("{who}又买了{a}盒，每盒{b}{m}。", "{who}得到{a}袋，每袋{b}{m}。"),
            "times": ("后来{who}的数量变成刚才的{a}倍。", "接着总数变为{a}倍。"),
            "share": ("{who}把全部平均分成{a}份，自己留一份，其余送人。", "全部平均分成{a}堆，{who}留下一堆。"),
        },
        aside=("{who}有{a}{thing}。", "邻居{who}有{a}{thing}。"),
        question="{who}现在有多少{thing}？",
        gap="",
    ),
}


class WordProblems(Settings):
    """Stories of a quantity that grows, shrinks, and is shared out: how many are there at the end?

    Qualities of traces: expert writes one operation a line, right; careless puts all into one line, often slipping;
    guess says a number from the story; gives_up stops early.
    """

    quick: ClassVar[bool] = True
    qualities: ClassVar[tuple[str, ...]] = ("expert", "careless", "guess", "gives_up")
    verdict_qualities: ClassVar[tuple[str, ...]] = ()
    mixture: ClassVar[Mapping[str, float]] = {"expert": 0.15, "careless": 0.4, "guess": 0.2, "gives_up": 0.25}

    name: str = Field("word_problems", pattern="^word_problems$")
    sizes: tuple[int, ...] = Field((2, 3, 4), min_length=1, description="how many events a story has")
    languages: tuple[Language, ...] = Field(("en", "zh"), min_length=1, description="one is drawn for each problem")
    events: tuple[Literal["gain", "lose", "packs", "times", "share"], ...] = Field(
        ("gain", "lose", "packs", "times", "share"), min_length=1, description="what can happen"
    )
    high: int = Field(30, ge=2, description="largest number at the start, gained or lost; the smallest is 2")
    factor_max: int = Field(5, ge=2, description="largest number of boxes, in a box, times, and shares")
    most: int = Field(150, ge=10, description="largest quantity at any time; none is below 1")
    asides: int = Field(0, ge=0, le=4, description="sentences about others that do not matter")
    slip: float = Field(0.7, ge=0, le=1, description="share of careless lines that end wrong")

    @model_validator(mode="after")
    def _is_possible(self) -> WordProblems:
        if min(self.sizes) < 1:
            raise ValueError("a size is a number of events: 1 or more")
        if self.high > self.most:
            raise ValueError("high <= most must hold")
        return self

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """A story of ``size`` events. Raises UserError when the settings leave (almost) none to tell."""
        count, language = size or rng.choice(self.sizes), rng.choice(self.languages)
        start, steps = self._story(count, rng)
        return Problem(
            id=identity(self.name, start, steps),
            task=self.name,
            prompt=self._text(LANGUAGES[language], start, steps, rng),
            answer=str(_values(start, steps)[-1]),
            size=count,
            info={"start": start, "steps": steps, "language": language},
        )

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS when the answer is the one integer that is right, without what it counts."""
        return compared(integer(answer), int(problem.answer))

    def trace(self, problem: Problem, rng: Random, quality: str) -> str:
        """Thinking of the stated quality, then the number it arrived at."""
        start, steps = problem.info["start"], [(kind, a, b) for kind, a, b in problem.info["steps"]]
        if quality == "guess":
            lines = [str(rng.choice([start, *(a for _, a, _ in steps)]))]
        elif quality == "careless":
            wrong = max(1, int(problem.answer) + rng.choice(_SLIPS)) if rng.random() < self.slip else problem.answer
            lines = [f"{start}{''.join(map(_written, steps))}={wrong}"]
        else:
            lines = _worked(start, steps)
            if quality == "gives_up":
                lines = lines[: rng.randint(1, max(1, len(lines) - 1))]
        thinking = "\n".join(lines)
        return f"<think>{thinking}</think><answer>{lines[-1].rpartition('=')[2]}</answer>"

    def facts(self, rng: Random, count: int) -> str:
        """Single operations, one a line: always right."""
        return "\n".join(rng.choice(_worked(*self._story(1, rng))) for _ in range(count))

    def attempts(self, problem: Problem, thinking: str) -> list[str]:
        """The whole of the thinking, when every line of it is arithmetic; else none."""
        lines = thinking.strip("\n").split("\n")
        return ["\n".join(lines)] if all(map(_LINE.match, lines)) else []

    def hits(self, problem: Problem, thinking: str) -> bool:
        """Whether the last line ends in the right number."""
        return any(re.split("[=\n]", attempt)[-1] == problem.answer for attempt in self.attempts(problem, thinking))

    def guess(self, problem: Problem, rng: Random) -> str:
        """A uniformly random quantity."""
        return str(rng.randint(1, self.most))

    def others(self, problem: Problem, rng: Random) -> list[str]:
        """White space around the number."""
        return [f" {problem.answer}", f"{problem.answer}\n", f"\t{problem.answer} "]

    def traps(self, problem: Problem, rng: Random) -> list[str]:
        """Quantities on the way, neighbours, and the number with more said."""
        right, steps = int(problem.answer), [(kind, a, b) for kind, a, b in problem.info["steps"]]
        way = [problem.info["start"], *_values(problem.info["start"], steps)]
        near = [*(value for value in way if value != right), right + 1, right - 1, -right, 10 * right]
        return [*map(str, near), f"{right} apples", f"{right}个", f"{right}.0", f"0{right}", f"{right - 1}-{right + 1}"]

    def _story(self, count: int, rng: Random) -> tuple[int, list[Step]]:
        """A start and events, each drawn until the quantity stays within 1..most and comes out whole."""
        value = start = rng.randint(2, self.high)
        steps: list[Step] = []
        for _ in range(_MAX_DRAWS):
            if len(steps) == count:
                return start, steps
            step = self._event(rng)
            after = _after(value, step)
            if after is not None and 1 <= after <= self.most:
                value = after
                steps.append(step)
        raise UserError(
            f"word_problems finds no story of {count} events",
            where=f"events {', '.join(self.events)}, up to {self.most}",
            next_step="Raise most, or allow events of both directions.",
        )

    def _event(self, rng: Random) -> Step:
        kind, factor = rng.choice(self.events), rng.randint(2, self.factor_max)
        if kind == "packs":
            return kind, factor, rng.randint(2, self.factor_max)
        return kind, rng.randint(2, self.high) if kind in ("gain", "lose") else factor, 0

    def _text(self, words: Words, start: int, steps: Sequence[Step], rng: Random) -> str:
        """The story in sentences, drawn among the ways to say each, with asides of others in between."""
        who, *neighbours = rng.sample(words.people, self.asides + 1)
        thing = rng.choice(words.things)
        known = {"who": who, "thing": thing, "m": thing[0]}
        said = [rng.choice(words.start).format(a=start, **known)]
        said += [rng.choice(words.events[kind]).format(a=a, b=b, **known) for kind, a, b in steps]
        for neighbour in neighbours:
            aside = rng.choice(words.aside).format(who=neighbour, a=rng.randint(2, self.high), thing=thing)
            said.insert(rng.randint(1, len(said)), aside)
        question = words.question.format(who=who, thing=thing)
        return words.gap.join([*said, question])


def _after(value: int, step: Step) -> int | None:
    """The quantity after an event; None where it cannot be shared out."""
    kind, a, b = step
    if kind == "share":
        return value // a if value % a == 0 else None
    return {"gain": value + a, "lose": value - a, "packs": value + a * b, "times": value * a}[kind]


def _values(start: int, steps: Sequence[Step]) -> list[int]:
    values = [start]
    for step in steps:
        after = _after(values[-1], step)
        assert after is not None  # a story was drawn so
        values.append(after)
    return values[1:]


def _written(step: Step) -> str:
    """An event as what is done to a number."""
    kind, a, b = step
    return {"gain": f"+{a}", "lose": f"-{a}", "packs": f"+{a}*{b}", "times": f"*{a}", "share": f"/{a}"}[kind]


def _worked(start: int, steps: Sequence[Step]) -> list[str]:
    """One operation a line; of boxes, what is in them first."""
    lines, value = [], start
    for (kind, a, b), after in zip(steps, _values(start, steps), strict=True):
        if kind == "packs":
            lines.append(f"{a}*{b}={a * b}")
            lines.append(f"{value}+{a * b}={after}")
        else:
            lines.append(f"{value}{_written((kind, a, b))}={after}")
        value = after
    return lines
