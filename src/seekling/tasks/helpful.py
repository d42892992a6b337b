"""General helpfulness: everyday requests with generated text, whose replies no rule can grade. A judge has to."""

from __future__ import annotations

from random import Random
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from seekling.config import Settings
from seekling.records import Problem, Verdict
from seekling.tasks.protocol import identity
from seekling.verify.verifiers import says_something

Language = Literal["en", "zh"]

REQUESTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Explain to {reader} {subject}.",
        "Write a short note to {reader} about {subject}.",
        "{Reader} asks about {subject}. What do you answer?",
        "Name the points that matter most to {reader} about {subject}.",
    ),
    "zh": (
        "请向{reader}解释{subject}。",
        "请给{reader}写一段关于{subject}的短信。",
        "{Reader}问起{subject}，你怎么回答？",
        "关于{subject}，对{reader}来说最重要的几点是什么？",
    ),
}

SUBJECTS: dict[Language, tuple[str, ...]] = {
    "en": (
        "why bread rises", "how a bicycle stays upright", "what to do in a thunderstorm", "how to learn a language",
        "why leaves change colour", "how to share a kitchen", "what a bank loan costs", "how vaccines work",
        "why the sea is salty", "how to say no politely", "what to pack for a mountain hut", "how a lock works",
        "why we sleep", "how to prepare for an interview", "what inflation is", "how to keep a houseplant alive",
        "why the moon has phases", "how to repair a puncture", "what makes a good apology", "how a vote is counted",
        "why metals rust", "how to save on heating", "what to ask a landlord", "how noise travels",
    ),
    "zh": (
        "面包为什么会发起来", "自行车为什么不会倒", "雷雨时该怎么做", "怎样学一门外语", "树叶为什么变色",
        "合租时怎样共用厨房", "贷款到底要花多少钱", "疫苗是怎样起作用的", "海水为什么是咸的", "怎样礼貌地拒绝别人",
        "去山里住一周该带什么", "锁是怎样工作的", "人为什么要睡觉", "怎样准备面试", "什么是通货膨胀",
        "怎样养活一盆绿植", "月亮为什么有圆缺", "怎样补自行车胎", "怎样才算好好道歉", "选票是怎样清点的",
        "金属为什么会生锈", "怎样节省取暖费", "租房前该问房东什么", "声音是怎样传播的",
    ),
}  # fmt: skip

READERS: dict[Language, tuple[str, ...]] = {
    "en": ("a child of ten", "a busy colleague", "a worried neighbour", "a beginner", "an expert of another field",
           "someone who disagrees", "a friend on the phone", "a visitor from abroad"),
    "zh": ("十岁的孩子", "忙碌的同事", "担心的邻居", "初学者", "别的行业的专家", "持不同意见的人", "电话里的朋友",
           "外国来的客人"),
}  # fmt: skip

DEMANDS: dict[Language, tuple[str, ...]] = {
    "en": ("Give one example.", "Keep it under eighty words.", "Use no technical terms.", "Say what is uncertain.",
           "End with something to do next.", "Mention a common mistake.", "Compare it with something familiar.",
           "Begin with the short answer.", "Be kind, and frank."),
    "zh": ("请举一个例子。", "不要超过一百个字。", "不要用专业术语。", "请说明哪些还不确定。",
           "最后给出一个可以马上做的建议。", "请提到一个常见的错误。", "请用熟悉的事物作比较。",
           "先说简短的结论。", "态度要友好而坦率。"),
}  # fmt: skip

STANDARD: dict[Language, str] = {
    "en": "It keeps to the subject and suits the reader. What it says is true and clear, and no longer than needed.",
    "zh": "切题，适合读者；内容真实、清楚，不啰嗦。",
}


class Helpful(Settings):
    """Everyday requests in English and Chinese: a subject, a reader, and as many demands as the size says.

    A check can only tell whether a reply says anything at all, and that is what PASS means here. So weigh accuracy
    with 0 and a judge with 1: ``rubric = { accuracy = 0, judge = { weight = 1, model = "..." } }``. The answer key is
    what a good reply does, problem by problem, and the judge reads it beside the reply. Your own requests are the task
    ``file`` with ``verifier = "reply"``.
    """

    quick: ClassVar[bool] = True
    reads: ClassVar[str] = "reply"

    name: Literal["helpful"] = "helpful"
    languages: tuple[Language, ...] = Field(("en", "zh"), min_length=1, description="languages of the requests")
    sizes: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="how many demands a request makes, at most 9")

    @field_validator("sizes")
    @classmethod
    def _few(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(0 <= size <= len(DEMANDS["en"]) for size in value):
            raise ValueError(f"a request makes 0 to {len(DEMANDS['en'])} demands")
        return value

    def draw(self, rng: Random, size: int | None = None) -> Problem:
        """One request; a size beyond all demands makes all of them."""
        size = rng.choice(self.sizes) if size is None else size
        language = rng.choice(self.languages)
        subject, reader = rng.choice(SUBJECTS[language]), rng.choice(READERS[language])
        demands = rng.sample(DEMANDS[language], min(size, len(DEMANDS[language])))
        request = rng.choice(REQUESTS[language])
        asked = request.format(reader=reader, Reader=reader[:1].upper() + reader[1:], subject=subject)
        prompt = (" " if language == "en" else "").join([asked, *demands])
        wanted = " ".join([STANDARD[language], *demands])
        key = identity(self.name, language, subject, reader, sorted(demands))
        return Problem(key, self.name, prompt, wanted, size, {"language": language})

    def check(self, problem: Problem, answer: str) -> Verdict:
        """PASS for a reply that says anything at all; UNPARSED for one that does not."""
        return says_something(answer, problem.answer)

    def guess(self, problem: Problem, rng: Random) -> str:
        """A polite nothing: what a judge should give next to no points."""
        return rng.choice(("That is a good question.", "It depends on many things.", "这个问题很好。"))
