"""Bodies of strangers, and the one sentence that each mistake is answered with."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, Request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from eftlocal.errors import (
    BackendError,
    ContextFull,
    HubError,
    ModelFileError,
    NotDownloaded,
    PromptError,
    RegistryError,
    UsageError,
    VocabularyMismatch,
)
from eftlocal.server.app import guard
from eftlocal.server.failures import ApiError, failure_of, scrub
from eftlocal.server.security.strict_json import parse_object
from eftlocal.server.states import ClientLeft, Closing, LoadFailed, Loading, Overloaded

from .serving import api_of, error_in, run_app, running, settings_of

router = APIRouter()


class Part(BaseModel):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message."""

    role: Literal["user", "system"]
    content: str | list[Part]


class Body(BaseModel, extra="forbid"):
    """A request with all kinds of fields."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=3)]
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    n: int = 1
    stop: str | list[str] | None = None
    stream: bool = False


@router.post("/echo")
async def echo(body: Body) -> dict[str, int]:
    """Take a body."""
    return {"messages": len(body.messages)}


@router.post("/raw")
async def raw(request: Request) -> dict[str, Any]:
    """Read the body without a schema."""
    return {"size": len(await request.body()), "parsed": request.state.json is not None}


@router.get("/items/{number}")
async def item(number: int, top: Annotated[int, Field(le=9)] = 1) -> dict[str, int]:
    """Take parameters of the address."""
    return {"number": number, "top": top}


def post(content: bytes | object, path: str = "/echo", **headers: str) -> tuple[int, Any]:
    """Status and body of one request; what is no bytes is sent as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    settings = settings_of(limits={"max_body": 2_000_000})
    app = guard(api_of(settings, [router]), settings)
    request = {"method": "POST", "path": path, "headers": headers, "body": body}
    status, _, answer = run_app(app, **request)
    return status, json.loads(answer) if status < 400 else error_in(answer)


OK = {"messages": [{"role": "user", "content": "hi"}]}

NOT_JSON = {
    "nothing": (b"", "the request has no body; send a JSON object"),
    "null": (b"null", "the body is not a JSON object"),
    "list": (b"[]", "the body is not a JSON object"),
    "text": (b'"x"', "the body is not a JSON object"),
    "cut": (b'{"messages": [', "the body is not JSON: EOF"),
    "form": (b"messages=1", "the body is not JSON: expected"),
    "more": (b"{}{}", "the body is not JSON: trailing characters"),
    "not UTF-8": (b'{"n": "\xff"}', "the body is not UTF-8 text (byte 7)"),
    "UTF-16": ('{"n": 1}'.encode("utf-16"), "the body is not UTF-8 text"),
    "lone surrogate": (b'{"n": "\\ud800"}', "the body is not JSON: "),
    "control character": (b'{"n": "\x00"}', "the body is not JSON: control character"),
    "nan": (b'{"n": NaN}', "NaN or infinite"),
    "infinity": (b'{"n": [1, -Infinity]}', "NaN or infinite"),
    "huge number": (b'{"n": 1e999}', "the number 1e999 is too large"),
    "long integer": (b'{"n": ' + b"9" * 4000 + b"}", "an integer has 4,000 digits"),
    "longer integer": (b'{"n": ' + b"9" * 1_000_000 + b"}", "a number with too many digits"),
    "twice": (b'{"n": 1, "n": 2}', "the field 'n' is given twice"),
    "twice inside": (b'{"x": [{"n": 1, "m": 2, "m": 2}]}', "the field 'm' is given twice"),
    "deep lists": (b'{"n": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested too deeply"),
    "deep objects": (b'{"n":' * 60_000 + b"1" + b"}" * 60_000, "nested too deeply"),
    "open lists": (b"[" * 1_000_000, "nested too deeply"),
    "many names": (
        b"{" + b",".join(b'"%d":1' % i for i in range(100_000)) + b',"99999":1}',
        "the field '99999' is given twice",
    ),
}


@pytest.mark.parametrize(("body", "message"), NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_json_object_is_one_sentence(body: bytes, message: str) -> None:
    """400 says what is wrong, for routes with a schema; it never takes long."""
    started = time.process_time()
    status, error = post(body)
    assert time.process_time() - started < 2
    assert status == 400
    assert message in error["message"]
    assert len(error["message"]) < 200
    assert error["type"] == "invalid_request_error"
    if body:
        assert post(body, "/raw") == (status, error)


def test_any_content_type_and_a_byte_order_mark() -> None:
    """Curl says that JSON is a form; PowerShell begins files with a mark."""
    for kind in (
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data",
        "nonsense",
    ):
        assert post(OK, **{"content-type": kind}) == (200, {"messages": 1})
    assert post(b"\xef\xbb\xbf" + json.dumps(OK).encode())[0] == 200
    assert post(b"", "/raw") == (200, {"size": 0, "parsed": False})
    assert post(OK, "/raw")[1]["parsed"] is True


def test_compressed_bodies_are_refused() -> None:
    """415, and not a sentence about bytes."""
    status, error = post(b"\x1f\x8b", **{"content-encoding": "gzip"})
    assert (status, "compressed" in error["message"]) == (415, True)
    assert post(OK, **{"content-encoding": "identity"})[0] == 200


def test_an_unknown_address_is_404_whatever_the_body() -> None:
    """And a wrong method is 405, with the right ones."""
    assert post(b"[[[", "/nowhere")[0] == 404
    status, error = post(b"[[[", "/items/1")
    assert (status, error["message"]) == (405, "this address does not know the method POST")
    assert post(OK, "/echo/")[0] == 404


def changed(**changes: Any) -> dict[str, Any]:
    """A good body with some fields replaced."""
    return OK | changes


def message(**changes: Any) -> dict[str, Any]:
    """A body with one message."""
    return {"messages": [{"role": "user", "content": "hi", **changes}]}


LONG = "x" * 5000
WRONG_FIELDS: list[tuple[object, str, str]] = [
    ({}, "messages", "messages is missing"),
    (changed(messages=[]), "messages", "use 1 or more items"),
    (changed(messages=OK["messages"] * 4), "messages", "use at most 3 items"),
    (changed(messages=5), "messages", "messages = 5 is not allowed; use a list"),
    (changed(messages=[5]), "messages[0]", "messages[0] = 5 is not allowed; use an object"),
    (message(role="x"), "messages[0].role", "use 'user' or 'system'"),
    (message(content=5), "messages[0].content", "= 5 is not allowed; use a string or a list"),
    (message(content=None), "messages[0].content", "= null is not allowed; use a string or a list"),
    (message(content=[{"type": "text"}]), "messages[0].content[0].text", "is missing"),
    (
        message(content=[{"type": "image", "text": "a"}]),
        "messages[0].content[0].type",
        "messages[0].content[0].type = \"image\" is not allowed; use 'text'",
    ),
    (changed(temperature="hot"), "temperature", 'temperature = "hot" is not allowed; use a number'),
    (changed(temperature=3), "temperature", "temperature = 3 is not allowed; use at most 2.0"),
    (changed(temperature=-1), "temperature", "use 0.0 or more"),
    (changed(n=1.5), "n", "n = 1.5 is not allowed; use an integer"),
    (changed(n=LONG), "n", "n is not allowed; use an integer"),
    (changed(stop=[1]), "stop[0]", "stop[0] = 1 is not allowed; use a string"),
    (changed(stop=5), "stop", "stop = 5 is not allowed; use a string or a list"),
    (changed(stream="maybe"), "stream", 'stream = "maybe" is not allowed; use true or false'),
    (changed(nonsense=1), "nonsense", "nonsense is not a known field"),
    (changed(**{LONG: 1}), "x" * 80 + "...", "is not a known field"),
]


@pytest.mark.parametrize(("body", "param", "sentence"), WRONG_FIELDS)
def test_wrong_fields_are_one_sentence(body: object, param: str, sentence: str) -> None:
    """It names the field as a path, what was given where that is short, and what is allowed."""
    status, error = post(body)
    assert (status, error["param"]) == (400, param)
    assert error["message"].startswith(param)
    assert sentence in error["message"]
    assert len(error["message"]) < 250


def test_wrong_parameters_of_the_address() -> None:
    """They are 400 too, never 422."""
    settings = settings_of()
    app = guard(api_of(settings, [router]), settings)
    status, _, body = run_app(app, path="/items/x")
    assert (status, error_in(body)["param"]) == (400, "number")
    status, _, body = run_app(app, path="/items/1", query_string=b"top=10")
    assert (status, error_in(body)["param"]) == (400, "top")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(["messages", "temperature", "n", "stop", "stream", "role", "content", "x"])


@given(st.dictionaries(FIELDS, JSON, max_size=5) | JSON)
def test_nothing_that_json_can_say_is_more_than_a_400(content: object) -> None:
    """Always an error object with one line."""
    assert post(content)[0] in (200, 400)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_400(content: bytes) -> None:
    """Also what is no JSON at all."""
    assert post(content)[0] in (200, 400)


@given(JSON)
def test_good_objects_are_parsed_as_json_says(content: object) -> None:
    """The strict parser agrees with Python's where it accepts something."""
    text = json.dumps({"x": content})
    try:
        found = parse_object(text.encode())
    except ApiError:
        return
    assert found == json.loads(text)


ERRORS: list[tuple[BaseException, int, str | None, str]] = [
    (UsageError("top_p = 3 is not allowed"), 400, None, "top_p = 3 is not allowed"),
    (PromptError("messages[0] has no role"), 400, None, "messages[0] has no role"),
    (ContextFull("9 tokens"), 400, "context_length_exceeded", "9 tokens"),
    (RegistryError("no model x"), 404, "model_not_found", "no model x"),
    (Loading(7), 503, None, "being loaded"),
    (Overloaded(), 503, None, "too many"),
    (Closing(), 503, None, "shutting down"),
    (ClientLeft(), 499, None, "closed the connection"),
    (LoadFailed("m", "too little memory"), 500, None, "too little memory"),
    (HubError("/home/me/x: no"), 500, None, "the hub"),
    (NotDownloaded("/home/me/x: no"), 500, None, "eftlocal pull"),
    (ModelFileError("/home/me/x.gguf: damaged"), 500, None, "the server's log says why"),
    (VocabularyMismatch("/home/me/x"), 500, None, "the server's log says why"),
    (BackendError("llama_decode at 0x7ffdeadbeef"), 500, None, "llama.cpp failed"),
    (RuntimeError("/home/me/secret"), 500, None, "internal error"),
    (ApiError(413, "too large", "p", "c"), 413, "c", "too large"),
]


@pytest.mark.parametrize(("error", "status", "code", "sentence"), ERRORS, ids=repr)
def test_every_error_has_its_answer(
    error: BaseException, status: int, code: str | None, sentence: str
) -> None:
    """Status, code and sentence; none tells a path."""
    failure = failure_of(error)
    found = error_in(json.dumps(failure.object).encode())
    assert (failure.status, found["code"]) == (status, code)
    assert sentence in found["message"]
    assert "/home" not in found["message"] and "0x7" not in found["message"]
    assert ("Retry-After" in failure.headers) == (status == 503)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/me/models/x.gguf: no such file", "x.gguf: no such file"),
        ("in '/home/me/models.toml', line 3", "in 'models.toml', line 3"),
        ("~/models/x.gguf is damaged", "x.gguf is damaged"),
        (r"C:\Users\me\x.gguf is damaged", "x.gguf is damaged"),
        (r"\\server\share\x.gguf", "x.gguf"),
        ("file:///home/me/x", "x"),
        ("object at 0x7f1234567890", "object at 0x..."),
        ("alpha = 1/2 or and/or, 3 / 4", "alpha = 1/2 or and/or, 3 / 4"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("hf:user/repo/file.gguf", "hf:user/repo/file.gguf"),
        ("two\nlines\tof text", "two lines of text"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
    ],
)
def test_answers_have_no_folders(text: str, clean: str) -> None:
    """The names of files stay, where they are is nobody's business."""
    assert scrub(text) == clean


def test_unexpected_errors_say_nothing_but_an_id(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback under the id that the answer names."""
    broken = APIRouter()

    @broken.get("/broken")
    async def fail() -> None:
        raise RuntimeError("secret in /home/me/x")

    @broken.get("/damaged")
    async def damaged() -> None:
        raise ModelFileError("/home/me/x.gguf: damaged")

    settings = settings_of()
    app = guard(api_of(settings, [broken]), settings)
    for path, tells, has_traceback in (("/broken", "secret", True), ("/damaged", "damaged", False)):
        caplog.clear()
        status, headers, body = run_app(app, path=path)
        error = error_in(body)
        assert (status, error["type"]) == (500, "server_error")
        assert f"(request {headers['x-request-id']})" in error["message"]
        assert "/home" not in error["message"] and "secret" not in error["message"]
        (record,) = [item for item in caplog.records if item.levelname == "ERROR"]
        assert headers["x-request-id"] in record.getMessage()
        assert tells in record.getMessage()
        assert bool(record.exc_info) == has_traceback


def test_the_document_tells_of_errors() -> None:
    """OpenAPI shows error objects, and no 422."""
    with running(settings_of(), router) as server:
        document = httpx.get(f"{server.url}/openapi.json").json()
        assert httpx.get(f"{server.url}/redoc").status_code == 404
    for path in document["paths"].values():
        for operation in path.values():
            assert {"4XX", "5XX"} <= set(operation["responses"])
            assert "422" not in operation["responses"]
    assert "Error" in document["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(document)
