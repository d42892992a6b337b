"""From what a request asks of its tokens to the rules that see to it: one function, which refuses what cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seekling.engine.grammar import Grammar, Written, from_schema
from seekling.engine.rules import AtLeast, Ban, Banned, Bias, Penalties, Rule, StopText, Thinking, Thought
from seekling.errors import UserError
from seekling.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a request asks of its own tokens. As it stands, nothing.

    ``stops`` are the ids that end the answer (None: the tokenizer's), ``max_tokens`` where it ends anyhow. ``thought``
    says how thoughts are marked; ``most_thought`` and ``least_thought`` bound each of them, in tokens. At most one of
    ``json`` (a schema, as a value or as text), ``regex`` and ``lark``; beside a thought it begins after it.
    """

    ban: Ban | None = None
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    max_tokens: int | None = None
    stops: tuple[int, ...] | None = None
    stop_texts: tuple[str, ...] = ()
    thought: Thought | None = None
    most_thought: int | None = None
    least_thought: int = 0
    json: Any = None
    regex: str | None = None
    lark: str | None = None


def rules_for(terms: Terms, tokenizer: Tokenizer, prompt: Sequence[int]) -> tuple[Rule, ...]:
    """The rules of one answer, in the order in which they change its scores; another answer needs its own.

    What is added comes first, then what is lowered, then what is forbidden; a forced end of a thought outweighs all.
    Raises UserError for values outside their ranges, and for what contradicts itself.
    """
    _check(terms, tokenizer)
    stops = tokenizer.stops if terms.stops is None else terms.stops
    rules: list[Rule] = []
    if terms.bias:
        rules.append(Bias(terms.bias))
    if (terms.repetition, terms.presence, terms.frequency) != (1, 0, 0):
        rules.append(Penalties(prompt, terms.repetition, terms.presence, terms.frequency))
    if terms.ban is not None:
        rules.append(Banned(terms.ban))
    if (written := _written(terms)) is not None:
        rules.append(Grammar(written, tokenizer, terms.thought, stops))
    if terms.min_tokens:
        rules.append(AtLeast(terms.min_tokens, stops))
    if terms.thought is not None and (terms.most_thought is not None or terms.least_thought):
        rules.append(Thinking(terms.thought, stops, terms.most_thought, terms.least_thought))
    if terms.stop_texts:
        rules.append(StopText(tokenizer, terms.stop_texts))
    return tuple(rules)


def _written(terms: Terms) -> Written | None:
    given = {"json": terms.json, "regex": terms.regex, "lark": terms.lark}
    asked = [kind for kind, text in given.items() if text is not None]
    if len(asked) > 1:
        raise UserError(f"an answer cannot keep to both {asked[0]} and {asked[1]}", next_step="Give one of them.")
    if terms.json is not None:
        return from_schema(terms.json)
    if terms.regex is not None:
        return Written("regex", terms.regex)
    return None if terms.lark is None else Written("lark", terms.lark)


def _check(terms: Terms, tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    marks = (*terms.thought.open, *terms.thought.close) if terms.thought else ()
    for where, ids in (("bias", terms.bias), ("stops", terms.stops or ()), ("thought", marks)):
        if wrong := [token for token in ids if not 0 <= token < size]:
            raise UserError(f"token id {wrong[0]} is outside the vocabulary of {size}", where=where)
    if terms.min_tokens < 0 or (terms.max_tokens is not None and terms.min_tokens > terms.max_tokens):
        raise UserError(
            f"at least {terms.min_tokens} tokens and at most {terms.max_tokens}", where="min_tokens",
            next_step="Let the least be 0 or more, and the most not below it.",
        )  # fmt: skip
    if terms.thought is None and (terms.most_thought is not None or terms.least_thought):
        raise UserError("a thought is bounded, and nothing says how thoughts are marked", where="thought")
