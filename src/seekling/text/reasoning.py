"""Take a reply apart into thinking and answer, whatever its tags look like.

The rules, in the order in which the tags are read, once, from left to right:

1. ``<think>`` opens thinking and ``</think>`` closes it; they nest. Thinking that never closes lasts to the
   end.
2. A ``</think>`` before any ``<think>`` says that the text began inside thinking (the prompt had opened it):
   everything before it is thinking. A later surplus ``</think>`` opens and closes nothing.
3. Tags of an answer inside thinking mean nothing: an answer that was only thought was not given.
4. Outside thinking ``<answer>`` opens an answer, a second one starts it anew, and ``</answer>`` completes it.
   A tag of thinking inside an answer abandons it. The last complete answer is final.
5. Well formed is only ``<think>..</think><answer>..</answer>``, each tag once, nothing else but whitespace
   around.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAG = re.compile(r"</?(?:think|answer)>")
_ORDER = ["<think>", "</think>", "<answer>", "</answer>"]


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A reply taken apart.

    ``answer`` is stripped of outer whitespace, and None when none was completed; ``reply`` is all text
    outside thinking, without tags: what a reader is shown where a model does not tag its answers.
    """

    thinking: str
    answer: str | None
    reply: str
    well_formed: bool


def split(text: str) -> Reasoning:
    """Thinking, answer and form of ``text`` by the rules above, in one pass and linear time."""
    thought: list[str] = []
    said: list[str] = []
    answer: str | None = None
    depth, opened, answer_from, gap_from = 0, False, -1, 0
    for tag in _TAG.finditer(text):
        (thought if depth else said).append(text[gap_from : tag.start()])
        gap_from = tag.end()
        match tag[0]:
            case "<think>":
                depth, opened, answer_from = depth + 1, True, -1
            case "</think>" if depth:
                depth -= 1
            case "</think>" if not opened:
                thought, said, answer, answer_from, opened = said, [], None, -1, True
            case "</think>":
                answer_from = -1
            case "<answer>" if not depth:
                answer_from = tag.end()
            case "</answer>" if not depth and answer_from >= 0:
                answer, answer_from = text[answer_from : tag.start()].strip(), -1
    (thought if depth else said).append(text[gap_from:])
    return Reasoning(_joined(thought), answer, _joined(said), _is_well_formed(text))


def _joined(spans: list[str]) -> str:
    """Spans that tags held apart, each on lines of its own so that no two numbers fuse."""
    return "\n".join(span for span in spans if span.strip())


def _is_well_formed(text: str) -> bool:
    tags = list(_TAG.finditer(text))
    if [tag[0] for tag in tags] != _ORDER:
        return False
    around = text[: tags[0].start()], text[tags[1].end() : tags[2].start()], text[tags[3].end() :]
    return not any(gap.strip() for gap in around)
