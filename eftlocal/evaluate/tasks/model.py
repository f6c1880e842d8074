"""The model `eftlocal` of lm-evaluation-harness, in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

# The harness registers its own models only where no other is registered yet.
import lm_eval.models  # noqa: F401
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from ... import UsageError
from ..store import Record, Shelf, digest
from .arguments import Setup, read_setup
from .chat import Changes, ChatPrompt, Conversations, Message, going_on
from .gen_kwargs import wanted
from .requests import Score, Text, Wish, fulfil, shortened


@register_model("eftlocal")
class EftlocalLM(TemplateLM):  # type: ignore[misc]
    """A fused model, or one of its parts, as the harness sees it.

    Texts are tokenized as the harness does over HTTP (`local-completions` with `eftlocal serve`):
    markers are control tokens, and no BOS is put first unless `add_bos_token` says so. Where there
    is no context, BOS (EOS where there is none) takes its place. Prompts of a chat template begin
    with BOS where the model wants one.

    Args:
        entry: a name of models.toml; or give base, tuned and reference.
        setup: what is evaluated and how, instead of arguments.
        given: other arguments of the harness; see `arguments.read_setup`.

    Raises:
        EftlocalError: as `eftlocal.load` does.
    """

    def __init__(
        self, entry: str | None = None, *, setup: Setup | None = None, **given: Any
    ) -> None:
        super().__init__()
        self._setup = setup if setup is not None else read_setup(entry, given)
        self.system = self._setup.system
        self.changes = Changes()
        self.model = self.system.models.load()
        self._chat = Conversations(self.model, self.changes)
        self._done: dict[str, Record] = {}

    def close(self) -> None:
        """Free the models."""
        self.model.close()

    @property
    def max_length(self) -> int:
        """Most tokens of a scored text; one place of the context is for what follows it."""
        return int(self.model.n_ctx - 1)

    @property
    def max_gen_toks(self) -> int:
        """Length of a reply where a task does not say."""
        return self._setup.max_gen_toks

    @property
    def batch_size(self) -> int:
        """How many requests run at once."""
        return int(self.model.runtime.parallel)

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token."""
        return int(self.model.vocabulary.eos)

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: BOS, or EOS where there is none."""
        bos = int(self.model.vocabulary.bos)
        return bos if bos >= 0 else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        """A name for the tokenizer and the templates together."""
        content = self.system.content
        return f"eftlocal-{digest([content['files'], content['prompt']])}"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The source of the tuned model's template, for the harness's records.

        Raises:
            UsageError: for the name of another one.
        """
        if isinstance(chat_template, str):
            raise UsageError(f"no chat template {chat_template!r}: an entry has its own one")
        return (self.model.chat_template or "") if chat_template else ""

    def apply_chat_template(
        self, chat_history: Sequence[Message], add_generation_prompt: bool = True
    ) -> ChatPrompt:
        """A conversation as text, that remembers what it was made from.

        Raises:
            PromptError, ContextFull: as `Conversations.render` does.
        """
        return self._chat.render(chat_history, begun=not add_generation_prompt)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text; see the class about BOS."""
        special = self._setup.add_bos_token if add_special_tokens is None else add_special_tokens
        vocabulary = self.model.vocabulary
        ids: list[int] = vocabulary.tokenize(string, add_special=False, parse_special=True)
        if special and vocabulary.bos >= 0 and ids[:1] != [vocabulary.bos]:
            ids = [vocabulary.bos, *ids]
        return ids

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether every token of it is the likeliest.

        An empty continuation is certain: (0.0, True).
        """
        pairs = [request.args for request in requests]
        return self._loglikelihood_tokens([(pair, *self._encode_pair(*pair)) for pair in pairs])

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both: at least one each, but none of an empty continuation.

        As in the harness, white space that ends a context moves to the continuation (that of a
        template stays), and `prefix_token_id` stands for a context without text. The harness
        itself has no way to score a continuation that merges into the context's last token: it is
        tokenized on its own then, and follows the context's tokens.
        """
        if not continuation:
            return [self.prefix_token_id], []
        if isinstance(context, ChatPrompt):
            rest = self._chat.rest(context + continuation, continuation)
            return list(self._chat.prompts(context)[0]), list(rest)
        text = context.rstrip()
        continuation = context[len(text) :] + continuation
        if text:
            head = self.tok_encode(text)
            own = self.tok_encode(text + continuation)[len(head) :]
            return head, own or list(going_on(self._plain_ids, continuation))
        ids = self._plain_ids(continuation)
        if len(ids) > 1 and ids[0] == self.prefix_token_id:
            return ids[:1], ids[1:]
        return [self.prefix_token_id], ids

    def _plain_ids(self, text: str) -> list[int]:
        return self.tok_encode(text, add_special_tokens=False)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        wishes: list[Wish | None] = []
        for texts, context, continuation in requests:
            if not continuation:
                wishes.append(None)
                continue
            chat = texts is not None and isinstance(texts[0], ChatPrompt)
            prompts = self._chat.prompts(texts[0]) if chat else (tuple(context),)
            room = self.max_length - len(continuation)
            prompts, cut = shortened(prompts, room, f"a text of {len(continuation)} tokens")
            self.changes.truncated += cut
            wishes.append(
                Score(prompts, tuple(continuation), self._setup.reuse_prompts or len(prompts) > 1)
            )
        found = self._fulfil([wish for wish in wishes if wish is not None])
        records = iter(found)
        nothing = {"logprob": 0.0, "greedy": True}
        each = [nothing if wish is None else next(records) for wish in wishes]
        return [(float(record["logprob"]), bool(record["greedy"])) for record in each]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = True
    ) -> list[float]:
        """Log-probability of whole texts, in windows where they are longer than the context."""
        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for request in requests:
            (text,) = request.args
            pairs = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            own = [(None, *make_disjoint_window(pair)) for pair in pairs]
            windows += own
            counts.append(len(own))
        scores = iter(self._loglikelihood_tokens(windows))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Replies; a prompt is cut from the left where it leaves no room for max_gen_toks."""
        seen: Counter[str] = Counter()
        wishes = []
        for request in requests:
            context, kwargs = request.args
            asked = wanted(kwargs, self._setup.max_gen_toks)
            chat = context if isinstance(context, ChatPrompt) else None
            ids = self.tok_encode(context) or [self.prefix_token_id] if chat is None else []
            prompts = self._chat.prompts(chat) if chat is not None else (tuple(ids),)
            room = self.model.n_ctx - asked.max_tokens
            what = f"a reply of max_gen_toks = {asked.max_tokens}"
            prompts, cut = shortened(prompts, room, what)
            self.changes.truncated += cut
            messages = chat.messages if chat is not None else ()
            wish = Text(prompts, asked.options, messages)
            # Requests that are repeated are to give several samples.
            choice = seen[wish.key]
            seen[wish.key] += 1
            wishes.append(Text(prompts, asked.options, messages, choice) if choice else wish)
        return [str(record["text"]) for record in self._fulfil(wishes)]

    def _fulfil(self, wishes: Sequence[Wish]) -> list[Record]:
        """The records of all wishes; those that are known are not found out again."""
        keys = [wish.key for wish in wishes]
        with ExitStack() as stack:
            shelf: Shelf | None = None
            if (store := self._setup.store) is not None:
                content = {"kind": "harness requests", **self.system.content}
                shelf = stack.enter_context(store.shelf(content))
                for key in keys:
                    if (record := shelf.get(key)) is not None:
                        self._done[key] = record
            named = dict(zip(keys, wishes, strict=True))
            missing = {key: wish for key, wish in named.items() if key not in self._done}
            counts = Counter(keys)
            done = sum(n for key, n in counts.items() if key in self._done)
            self._setup.on_request(done, len(keys))
            names = list(missing)
            found = fulfil(self.model, list(missing.values()), self.system.options)
            for index, record in found:
                key = names[index]
                self._done[key] = record
                if shelf is not None:
                    shelf.put(key, record)
                done += counts[key]
                self._setup.on_request(done, len(keys))
        return [self._done[key] for key in keys]
