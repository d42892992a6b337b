"""A chat template at work: jinja2's immutable sandbox, with what published templates expect to find in it.

The names and filters are those of transformers' ``apply_chat_template``: ``raise_exception``, ``strftime_now``,
``tojson`` without HTML escapes, ``break`` and ``continue``, and the tag ``{% generation %}``, which says what the
assistant says. A foreign template runs only in a worker's child (``turns``): the sandbox bounds what it can
reach, not how long it takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from seekling.errors import UserError

MOST_CHARS = 2**22
"""A rendered conversation longer than this is refused."""

FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What a wrong template can raise besides jinja's own errors."""


class Marks(Extension):
    """``{% generation %}``: while ``opening`` and ``closing`` are set, they stand around what such a block makes."""

    tags = {"generation"}  # noqa: RUF012  # jinja's protocol

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.seen = False
        self.opening = self.closing = ""

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call of ``_around``."""
        self.seen = True
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_around"), [], [], body).set_lineno(line)

    def _around(self, caller: Callable[[], str]) -> str:
        return f"{self.opening}{caller()}{self.closing}"


class Template:
    """A compiled template and the text it holds itself. Raises UserError for anything it does wrong.

    ``marks_speech`` says whether it has ``{% generation %}`` blocks; ``literals`` are its pieces of text.
    """

    def __init__(self, source: str) -> None:
        environment = _environment()
        environment.filters["tojson"] = self._to_json
        self._mark = ""
        self._marks: Marks = environment.extensions[Marks.identifier]  # type: ignore[assignment]
        try:
            tree = environment.parse(source)
            self._template = environment.from_string(source)
        except (TemplateError, *FAULTS) as error:
            raise fault(error) from None
        self.marks_speech = self._marks.seen
        texts = (node.data for node in tree.find_all(nodes.TemplateData))
        constants = (node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str))
        self.literals = frozenset((*texts, *constants)) - {""}

    def render(self, variables: Mapping[str, Any], mark: str = "") -> str:
        """The text for ``variables``. ``mark`` is what guards look-alikes in them: ``tojson`` leaves it readable."""
        self._mark = mark
        try:
            text = self._template.render(variables)
        except (TemplateError, *FAULTS) as error:
            raise fault(error) from None
        if len(text) > MOST_CHARS:
            raise bad_template("what it makes is far too long")
        if not _is_text(text):
            raise bad_template("it makes half a character")
        return text

    def render_marked(
        self, variables: Mapping[str, Any], opening: str, closing: str, mark: str = ""
    ) -> tuple[str, list[tuple[int, int]]]:
        """``render``, and the character ranges of its ``{% generation %}`` blocks."""
        self._marks.opening, self._marks.closing = opening, closing
        try:
            pieces = re.split(f"([{opening}{closing}])", self.render(variables, mark))
        finally:
            self._marks.opening = self._marks.closing = ""
        edges, text, starts = [], "", []
        for piece in pieces:
            if piece not in (opening, closing):
                text += piece
            elif piece == opening:
                starts.append(len(text))
            elif starts:
                edges.append((starts.pop(), len(text)))
        return text, _disjoint(edges)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        """The filter. ``ensure_ascii`` would spell the mark as an escape, and it could not be taken out again."""
        text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        if not (self._mark and ensure_ascii):
            return text
        escape = re.escape(json.dumps(self._mark)[1:-1])
        return re.sub(rf"(\\\\)|{escape}", lambda found: found[1] or self._mark, text)


def fault(error: BaseException) -> UserError:
    """What a template raised, as a letter."""
    return bad_template(f"{type(error).__name__}: {error}"[:300])


def bad_template(reason: str) -> UserError:
    """The letter about a template that cannot be used."""
    return UserError("the chat template cannot be used", where=reason, next_step="Mend chat_template.jinja.")


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Marks, "jinja2.ext.loopcontrols"]
    )
    environment.globals |= {
        "raise_exception": _complain,
        "strftime_now": _now,
        "namespace": _Namespace,
        "dict": _dict,
    }
    return environment


def _complain(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _dict(*items: Any, **named: Any) -> dict[Any, Any]:
    """A function in place of the class, whose attributes a template could reach for."""
    return dict(*items, **named)


class _Namespace(Namespace):
    """jinja's namespace, without names that begin with an underscore."""

    def __init__(*args: Any, **named: Any) -> None:
        self, *rest = args
        values = dict(*rest, **named)
        for name in values:
            _refuse_underscore(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: str) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a template may not keep {name!r} in a namespace")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _disjoint(edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, without those inside others and without empty ones."""
    whole = sorted({edge for edge in edges if edge[0] < edge[1]}, key=lambda edge: (edge[0], -edge[1]))
    inside = {right for left, right in pairwise(whole) if right[1] <= left[1]}
    return [edge for edge in whole if edge not in inside]
