"""An OpenAI-compatible endpoint as a judge; alone imports openai."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion

from ...errors import EftlocalError, UsageError
from .reading import Verdict, read_answer
from .roles import Form
from .wording import Messages, retry_message

SEED = 0
_KEPT = "what is done is kept, and the same command goes on from there"
_CONTEXT_WORDS = ("context_length", "context length", "context window", "context holds", "too long")
_CAREFUL: dict[str, Any] = {"temperature": 0, "seed": SEED}
DEFAULT_KEY = "OPENAI_API_KEY"
"""The environment variable of a key that is OpenAI's until somebody says otherwise."""
_FIRST = 3
"""So many questions that are refused in every form, before any is answered, are no accident."""
_OFTEN = 2
"""So many questions in a row that only a plainer form gets through mean that all need it."""
_HEADERS = ("accept", "authorization", "content-type", "user-agent")


@dataclass(frozen=True)
class Server:
    """Where a judge is and how it is asked.

    Attributes:
        url: of the API, such as http://127.0.0.1:8080/v1.
        model: its name there.
        key_variable: the environment variable with the key.
        sends_key: whether this URL may be sent the key.
        key_option: names another variable.
        timeout: seconds that one answer may take.
        retries: how often a request is sent again after 408, 409, 429, 5xx and lost connections,
            with growing pauses, or as Retry-After says.
        concurrency: requests at once.
        max_tokens: of an answer.
    """

    url: str
    model: str
    key_variable: str = DEFAULT_KEY
    sends_key: bool = True
    key_option: str = "--judge-key-env"
    timeout: float = 120.0
    retries: int = 4
    concurrency: int = 4
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_url(self.url))

    @property
    def key(self) -> str:
        """The key; "none" where the variable is not set, as local servers want none."""
        return (os.environ.get(self.key_variable, "") if self.sends_key else "") or "none"

    @property
    def content(self) -> dict[str, Any]:
        """What verdicts depend on beside the question: another server may mean another model."""
        return {"url": self.url, "model": self.model, "max_tokens": self.max_tokens, "seed": SEED}


def checked_url(url: str) -> str:
    """A URL without slashes at its end.

    Raises:
        UsageError: for what is no HTTP URL, or one with a password in it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise UsageError(f"{url!r} is not the URL of an API; use one such as http://HOST:8080/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            "a judge's URL holds no password, query or fragment; "
            "put the key into the variable that --judge-key-env names"
        )
    return url.rstrip("/")


def same_place(one: str, other: str) -> bool:
    """Whether two URLs lead to the same server."""
    first, second = urlsplit(checked_url(one)), urlsplit(checked_url(other))
    return (first.scheme, first.netloc.lower()) == (second.scheme, second.netloc.lower())


def may_have_default_key(url: str) -> bool:
    """Whether a URL is OpenAI's own, or on this machine: others get keys that are named for them.

    Raises:
        UsageError: as `checked_url` does.
    """
    parts = urlsplit(checked_url(url))
    host = parts.hostname or ""
    if (parts.scheme, host) == ("https", "api.openai.com") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Api(openai.AsyncOpenAI):
    """The package's client, without what it sends along because the environment says so.

    An organization, a project and custom headers are meant for OpenAI, not for every judge.
    """

    @property
    def default_headers(self) -> dict[str, Any]:
        """Only what a request needs."""
        return {
            name: value
            for name, value in super().default_headers.items()
            if name.lower() in _HEADERS or name.lower().startswith("x-stainless-")
        }


@dataclass(frozen=True)
class Given:
    """What a judge gave to one question.

    Attributes:
        verdict: None where there is none.
        answers: as they came.
        refused: why it did not take the question, in its own words; "" where it took it.
    """

    verdict: Verdict | None
    answers: Sequence[str]
    refused: str = ""


class _Refused(Exception):
    """The judge does not take this question."""


@dataclass
class Client:
    """Asks one judge; belongs to one event loop.

    Args:
        server: where it is.
        has_answered: whether it has given verdicts before, so that its refusals are about
            questions, not about how it is asked.
    """

    server: Server
    has_answered: bool = False
    _api: openai.AsyncOpenAI = field(init=False)
    _form: int = field(init=False, default=0)
    _plainer: list[int] = field(init=False, default_factory=list)
    _n_refused: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        key = self.server.key
        self._api = _Api(
            base_url=self.server.url,
            api_key=key,
            # Said here, because the environment could name another one.
            default_headers={"Authorization": f"Bearer {key}"},
            timeout=self.server.timeout,
            max_retries=self.server.retries,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def judge(self, messages: Messages, form: Form) -> Given:
        """A verdict and the answers as they came; asked once more where one cannot be read.

        There is no verdict where the second answer cannot be read either, or where the judge
        refuses the question: its filter does, or it is too long.

        Raises:
            EftlocalError: where the endpoint does not do its work; says what to do.
        """
        told = list(messages)
        answers: list[str] = []
        for _ in range(2):
            try:
                text = await self._ask(told, form)
            except _Refused as refusal:
                return Given(None, answers, str(refusal))
            answers.append(text)
            if verdict := read_answer(text, form):
                return Given(verdict, answers)
            told = [*told, {"role": "assistant", "content": text or "(nothing)"}]
            told.append({"role": "user", "content": retry_message(form)})
        return Given(None, answers)

    async def _ask(self, messages: Messages, form: Form) -> str:
        """One answer.

        Endpoints differ in what they take: whatever one refuses with 400 is asked again in a
        plainer form, and one that is needed often is the first one from then on.

        Raises:
            _Refused: where the judge takes this question in no form.
        """
        forms = self._forms(form)
        refused: openai.APIStatusError | None = None
        for number in range(self._form, len(forms)):
            try:
                reply = await self._send(messages, forms[number])
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = error
                if _is_too_long(error):
                    raise _Refused(self._said(error)) from None
                continue
            text = self._text(reply)
            self._passed(number)
            return text
        assert refused is not None
        self._n_refused += 1
        if not self.has_answered and self._n_refused >= _FIRST:
            raise self._failure(refused)
        raise _Refused(self._said(refused))

    def _passed(self, number: int) -> None:
        """Remember which form was answered."""
        self.has_answered = True
        self._plainer = [*self._plainer, number] if number > self._form else []
        if len(self._plainer) >= _OFTEN:
            self._form, self._plainer = min(self._plainer), []

    def _forms(self, form: Form) -> Sequence[dict[str, Any]]:
        schema = {"name": "verdict", "strict": True, "schema": form.schema}
        as_json = {"response_format": {"type": "json_schema", "json_schema": schema}}
        limit = self.server.max_tokens
        # Models that think refuse a temperature, and count their tokens under another name.
        thinking = {"max_completion_tokens": limit}
        careful = {**_CAREFUL, "max_tokens": limit}
        return ({**as_json, **careful}, careful, {**as_json, **thinking}, thinking)

    async def _send(self, messages: Messages, options: dict[str, Any]) -> object:
        try:
            found: object = await self._api.chat.completions.create(
                model=self.server.model,
                messages=messages,  # type: ignore[arg-type]
                **options,
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            raise
        except (openai.OpenAIError, ValueError) as error:
            raise self._failure(error) from None
        return found

    def _text(self, reply: object) -> str:
        choices = reply.choices if isinstance(reply, ChatCompletion) else None
        message = choices[0].message if choices else None
        if message is None:
            raise EftlocalError(
                f"the judge at {self.server.url} answers with something that is no chat "
                "completion; the URL of most APIs ends in /v1"
            )
        # Half a character, as JSON may hold, could not be written down.
        return (message.content or "").encode(errors="replace").decode()

    def _failure(self, error: Exception) -> EftlocalError:
        """What went wrong and what to do, in one line."""
        server = self.server
        where = f"the judge at {server.url}"
        if isinstance(error, openai.APITimeoutError):
            text = f"does not answer within {server.timeout:g} s; raise --judge-timeout"
        elif isinstance(error, openai.APIConnectionError):
            text = "cannot be reached; is it running, and is the URL right?"
        elif isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            text = self._unwelcome(error.status_code)
        elif isinstance(error, openai.NotFoundError):
            text = f"has no model {server.model!r}, or no chat completions under this URL (404);"
            text += f" check --judge-model and that the URL ends as the API's: {self._said(error)}"
        elif isinstance(error, openai.RateLimitError):
            text = f"still asks to slow down after {server.retries} retries (429); lower"
            text += " --concurrency, raise --judge-retries, or wait"
        elif isinstance(error, openai.APIStatusError):
            text = f"answers with status {error.status_code}: {self._said(error)}"
        else:
            text = "answers with something that is no JSON; the URL of most APIs ends in /v1"
        return EftlocalError(f"{where} {text} ({_KEPT})")

    def _unwelcome(self, status: int) -> str:
        """What is wrong with the key, and which option changes it."""
        server = self.server
        if not server.sends_key:
            hint = f"name the variable that holds its key with {server.key_option}"
            return f"wants a key, and was sent none ({status}); {hint}"
        return (
            f"refuses the key ({status}); set {server.key_variable} to one that it takes, or "
            f"name another variable with {server.key_option}"
        )

    def _said(self, error: openai.APIStatusError) -> str:
        """The server's own words, without what a terminal would obey and without the key."""
        body = error.body
        said = body.get("message") if isinstance(body, dict) else None
        text = " ".join(str(said or error.message).split())[:300]
        text = "".join(c for c in text if c.isprintable())
        return text if self.server.key == "none" else text.replace(self.server.key, "***")


def _is_too_long(error: openai.APIStatusError) -> bool:
    said = f"{error.code} {error.message}".casefold()
    return any(word in said for word in _CONTEXT_WORDS)
