"""The tokens on which quantized and unquantized models are compared, as a piece of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ... import FusedModel
from ...batch import completions
from ...registry import ROLES
from ...stream import Prepared
from ..store import Record, digest
from ..systems import greedy
from ..work import Loader
from .subject import Subject


@dataclass(frozen=True)
class Passages:
    """What the models as they are reply to prompts, and texts; one passage for each.

    A record has "prompts" (role -> ids), "tokens" (the ids that follow), "n_vocab", and "neutral"
    (ids for which base and reference count as equal).

    Attributes:
        subject: models and texts.
    """

    subject: Subject

    @property
    def title(self) -> str:
        """What it is called while it is done."""
        return "quantization: what is compared"

    @property
    def items(self) -> Sequence[str]:
        """A name per passage; as many as there is room for."""
        own = self.subject
        names = [digest(["prompt", *map(dict, one)]) for one in own.prompts]
        names += [digest(["text", text]) for text in own.texts]
        return names[: own.n_rows // own.n_tokens]

    @property
    def content(self) -> Record:
        """What the passages depend on beside their prompts and texts."""
        options = greedy(alpha=1.0, max_tokens=self.subject.n_tokens)
        return {"kind": "passages", **self.subject.models.content(options)}

    def run(self, missing: Sequence[int], loader: Loader) -> Iterator[tuple[int, Record]]:
        """Ask the prompts and cut the texts.

        Raises:
            EftlocalError: where models cannot be loaded or a prompt cannot be answered.
        """
        model = loader.get(self.subject.models)
        n_prompts = len(self.subject.prompts)
        yield from self._replies(model, [i for i in missing if i < n_prompts])
        for index in missing:
            if index >= n_prompts:
                ids = model.tokenize(self.subject.texts[index - n_prompts], special=True)
                ids = ids[: self.subject.n_tokens + 1]
                yield index, _record(model, dict.fromkeys(ROLES, ids[:1]), ids[1:])

    def _replies(self, model: FusedModel, asked: list[int]) -> Iterator[tuple[int, Record]]:
        options = greedy(alpha=1.0, max_tokens=self.subject.n_tokens)
        prepared: dict[int, Prepared] = {}

        def job(index: int) -> Prepared:
            conversation = self.subject.prompts[index]
            return prepared.setdefault(index, model.prepare_chat(conversation, **options))

        jobs = ((lambda index=index: job(index)) for index in asked)
        for number, completion in completions(model, jobs):
            index = asked[number]
            prompts = prepared.pop(index).request.prompts
            yield index, _record(model, _by_role(model, prompts), completion.tokens)


def _by_role(model: FusedModel, prompts: Sequence[Sequence[int]]) -> dict[str, Sequence[int]]:
    """Prompts of contexts as those of roles."""
    roles = model.engine.ensemble.roles
    places = (roles.base, *roles.experts[0])
    return {role: prompts[place] for role, place in zip(ROLES, places, strict=True)}


def _record(
    model: FusedModel, prompts: Mapping[str, Sequence[int]], tokens: Sequence[int]
) -> Record:
    return {
        "prompts": {role: list(ids) for role, ids in prompts.items()},
        "tokens": list(tokens),
        "n_vocab": model.n_vocab,
        "neutral": sorted(model.engine.neutral),
    }
