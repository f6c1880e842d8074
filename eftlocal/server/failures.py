"""Errors -> answers: every failure of a request is one OpenAI error object with one sentence.

Routes raise; the handlers here answer. What is already streaming uses `failure_of` for its last
event. No path, address or traceback gets into an answer; the log has them under the request's id.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ..errors import (
    BackendError,
    ConstraintError,
    ContextFull,
    EftlocalError,
    HubError,
    ModelFileError,
    NotDownloaded,
    PromptError,
    RegistryError,
    UsageError,
    VocabularyMismatch,
)
from .sentences import explain
from .states import ClientLeft, LoadFailed, Unavailable

logger = logging.getLogger("eftlocal.server")

CLIENT_LEFT = 499
"""Status of a request whose client left; only the log sees it."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_SENTENCES = {
    404: "there is nothing at this address; /docs lists what there is",
    405: "this address does not know the method {method}",
}
_OF_THE_MODEL: tuple[tuple[type[EftlocalError], str], ...] = (
    (NotDownloaded, "a file of the model is not downloaded; `eftlocal pull` on the server gets it"),
    (HubError, "a file of the model cannot be had from the hub; the server's log says why"),
    (ModelFileError, "a file of the model cannot be loaded; the server's log says why"),
    (VocabularyMismatch, "the files of the model do not go together; the server's log says why"),
    (BackendError, "llama.cpp failed; the server's log says why"),
)
_PATH = re.compile(
    r"(?<![\w.:/\\~-])(?:file:/+|~?/|[A-Za-z]:[\\/]|\\\\)(?:[^\s'\"`<>|:;,()]*[\\/])+"
)
"""The folders of an absolute path, up to its last separator."""
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


class ApiError(EftlocalError):
    """An answer that a route gives up with.

    Args:
        status: of HTTP, 400 or above.
        message: one sentence for the client: what is wrong, what to do.
        param: the field that it is about.
        code: a word that programs can test, such as "model_not_found".
        headers: of the answer, beside the usual ones.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a request that failed.

    Attributes:
        status: of HTTP.
        object: the body, `{"error": {...}}`.
        headers: beside the usual ones.
    """

    status: int
    object: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The sentence alone."""
        return str(self.object["error"]["message"])

    def response(self) -> Response:
        """The same as an answer."""
        return JSONResponse(self.object, self.status, headers=dict(self.headers))


def error_object(
    message: str,
    type: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
) -> dict[str, Any]:
    """OpenAI's error object; the message is cleaned of folders and memory addresses."""
    return {"error": {"message": scrub(message), "type": type, "param": param, "code": code}}


def scrub(message: str) -> str:
    """One line of text without the folders of absolute paths, and without memory addresses."""
    text = _ADDRESS.sub("0x...", _PATH.sub("", " ".join(message.split())))
    return text.encode("utf-8", "replace").decode()


def failure_of(error: BaseException) -> Failure:
    """The answer for an exception; unknown ones are an internal error and say nothing more."""
    if isinstance(error, ApiError):
        return _failure(error.status, str(error), error.param, error.code, error.headers)
    if isinstance(error, Unavailable):
        headers = {"Retry-After": str(error.retry_after)}
        return _failure(503, str(error), headers=headers)
    if isinstance(error, ContextFull):
        return _failure(400, str(error), code="context_length_exceeded")
    if isinstance(error, RegistryError):
        return _failure(404, str(error), "model", "model_not_found")
    if isinstance(error, ClientLeft):
        return _failure(CLIENT_LEFT, str(error))
    if isinstance(error, UsageError | PromptError | ConstraintError):
        return _failure(400, str(error))
    if isinstance(error, LoadFailed):
        return _failure(500, str(error))
    for kind, sentence in _OF_THE_MODEL:
        if isinstance(error, kind):
            return _failure(500, sentence)
    return _failure(500, "internal error")


def _failure(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Failure:
    default = "server_error" if status >= 500 else "invalid_request_error"
    return Failure(
        status, error_object(message, _TYPES.get(status, default), param, code), headers or {}
    )


def of_request(request: Request, error: Exception) -> Failure:
    """The answer to one request for an exception; what is the server's fault goes to the log."""
    if isinstance(error, RequestValidationError):
        message, param = explain(error.errors(), error.body)
        return _failure(400, message, param)
    if isinstance(error, HTTPException):
        sentence = _SENTENCES.get(error.status_code, str(error.detail))
        message = sentence.format(method=request.method)
        return _failure(error.status_code, message, headers=error.headers)
    failure = failure_of(error)
    if failure.status != 500:
        return failure
    state = request.scope.get("state", {})
    request_id = state.get("request_id", "-")
    unexpected = None if isinstance(error, EftlocalError) else error
    text = f"{type(error).__name__}: {error}"
    logger.error("request %s failed: %s", request_id, text, exc_info=unexpected)
    # `access.AccessLog` gets the same error afterwards.
    state["reported"] = True
    return _failure(failure.status, f"{failure.message} (request {request_id})")


async def _answer(request: Request, error: Exception) -> Response:
    return of_request(request, error).response()


def add_handlers(app: FastAPI) -> None:
    """Have all exceptions of an application answered as above."""
    for kind in (EftlocalError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)
