"""Replies that say nothing: told apart by rule, so that nobody is ever asked, or paid, for an opinion of them.

Judges by model have been caught paying for a lone ``:`` and for the first words of a solution that never came
(arXiv 2507.08794). What a rule can see must not reach them.
"""

from __future__ import annotations

import re

_OPENERS = re.compile(
    r"(?:thought process|thoughts?|thinking|reasoning|analysis|answer|final answer|the answer is|response|reply"
    r"|solution|explanation|step 1|okay|ok|sure|certainly|of course|let me think|let'?s think"
    r"|(?:let'?s|let us|i will|i'll|we will) (?:solve|answer|work|think|go|break)[\w ]{0,40}(?:step by step|it|this)"
    r"|sure,? here (?:is|are)[\w ]{0,40}|解|答|答案|思考|思考过程|解答|让我们一步一步地?(?:思考|解决)(?:这个问题)?"
    r"|かいせつ|解説|respuesta|solución|lösung|réponse|risposta)",
    re.IGNORECASE,
)
"""Announcements of an answer, in the words of the paper and their kin. Alone they are none."""

_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


def emptiness(reply: str) -> str:
    """Why ``reply`` says nothing, or "": no letter or digit, one announcement, or one line that ends with a colon."""
    core = _EDGES.sub("", reply)
    if not core:
        return "it holds no word and no number"
    if len(core) <= 120 and _OPENERS.fullmatch(core.replace("’", "'")):
        return "it announces an answer and gives none"
    if "\n" not in reply.strip() and reply.rstrip().endswith((":", "：")):
        return "it breaks off at a colon"
    return ""
