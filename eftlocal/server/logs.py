"""The server's log on stderr: lines for people, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LEVELS = ("debug", "info", "warning", "error")

_LOGGERS = ("eftlocal", "uvicorn", "asyncio", "py.warnings")


class PlainFormatter(logging.Formatter):
    """Time, level where it is not info, text; an exception's traceback below."""

    default_time_format = "%Y-%m-%d %H:%M:%S"
    default_msec_format = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as text; control characters of a message cannot forge lines."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{self.formatTime(record)} {level}{_one_line(record.getMessage())}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per record; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as a line of JSON."""
        created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content: dict[str, Any] = {
            "time": f"{created}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        content |= getattr(record, "fields", {})
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def set_up_logs(level: str = "info", as_json: bool = False, verbose: bool = False) -> None:
    """Send the log of this package and of the web server to stderr.

    Args:
        level: of LEVELS.
        as_json: one JSON object per line.
        verbose: whether llama.cpp's own log is part of it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    logging.captureWarnings(True)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    # uvicorn tells of every start and stop by itself; ours says more.
    if level == "info":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("eftlocal.llama").setLevel(logging.NOTSET if verbose else logging.WARNING)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
