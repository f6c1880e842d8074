"""All that judges are asked about the replies: one by one, and in pairs of both orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..store import digest
from .dialogues import Exchange
from .roles import Form, Role
from .wording import Messages, pair_messages, score_messages

Replies = Mapping[str, Sequence[Exchange]]
"""Title of a system -> its exchanges; the same prompts and turns in all of them."""


@dataclass(frozen=True)
class Ask:
    """One question to a judge.

    Attributes:
        form: what the verdict looks like.
        messages: what the judge is told.
        about: prompt, turn and so on, for people. "systems" lists whose reply it is, or whose two
            replies in the order in which they are shown; several where they say the same.
    """

    form: Form
    messages: Messages
    about: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Names all that a verdict depends on beside the judge."""
        return digest([self.form.schema, self.messages])


def score_ask(title: str, exchange: Exchange, role: Role) -> Ask | None:
    """Ask for a number about a reply; None where there is no reply."""
    if exchange.error:
        return None
    about = {**_about(exchange, role), "systems": [[title]], "replies": [exchange.reply]}
    return Ask(Form(role, is_pair=False), score_messages(exchange, role), about)


def pair_asks(
    titles: tuple[str, str], pair: tuple[Exchange, Exchange], role: Role
) -> tuple[Ask, Ask] | None:
    """Ask which of two replies is better, in both orders; the second ask swaps them.

    None where one has no reply, or where both are the same.
    """
    first, second = pair
    if first.error or second.error or is_same(pair):
        return None
    found = []
    for names, (a, b) in ((titles, (first, second)), (titles[::-1], (second, first))):
        about = {**_about(a, role), "systems": [list(names)], "replies": [a.reply, b.reply]}
        found.append(Ask(Form(role, is_pair=True), pair_messages(a, b, role), about))
    return found[0], found[1]


def is_same(pair: tuple[Exchange, Exchange]) -> bool:
    """Whether there is nothing to compare: everything that was said is the same."""
    first, second = pair
    return (first.messages, first.reply) == (second.messages, second.reply)


def _about(exchange: Exchange, role: Role) -> dict[str, Any]:
    return {
        "prompt": exchange.prompt.name,
        "category": exchange.prompt.category,
        "turn": exchange.turn + 1,
        "role": role.name,
    }


def all_asks(replies: Replies, roles: Sequence[Role], pairs: bool) -> list[Ask]:
    """Every question once, with all systems that it is about; scores before pairs."""
    found: dict[str, Ask] = {}
    systems: dict[str, list[list[str]]] = {}
    for ask in _every(replies, roles, pairs):
        found.setdefault(ask.key, ask)
        systems.setdefault(ask.key, []).extend(ask.about["systems"])
    return [
        replace(ask, about={**ask.about, "systems": systems[key]}) for key, ask in found.items()
    ]


def _every(replies: Replies, roles: Sequence[Role], pairs: bool) -> Iterator[Ask]:
    for role in roles:
        for title, exchanges in replies.items():
            for exchange in exchanges:
                if ask := score_ask(title, exchange, role):
                    yield ask
    first, *others = replies
    for role in roles if pairs else ():
        for title in others:
            for pair in zip(replies[first], replies[title], strict=True):
                yield from pair_asks((first, title), pair, role) or ()
