"""Saved traces of replies, what they say, and how they are drawn as a page.

>>> with TraceWriter("trace.jsonl") as writer:
...     stream = model.stream_chat(messages, trace=True)
...     writer.follow(model, stream)
...     text = "".join(event.text for event in stream)
>>> reply = read_trace("trace.jsonl")[-1]
"""

from .page import page
from .records import Header, Reply, TracedToken
from .tracefile import Recorder, TraceWriter, header_of, read_trace, record

__all__ = [
    "Header",
    "Recorder",
    "Reply",
    "TraceWriter",
    "TracedToken",
    "header_of",
    "page",
    "read_trace",
    "record",
]
