"""`--trace FILE`: what the models wanted at each token, written while replies are generated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..errors import EftlocalError
from .options import Decorator, option
from .session import Deliver, Session, StartStream

if TYPE_CHECKING:
    from .. import Completion, FusedModel, Stream
    from ..explain import TraceWriter
    from .session import PrefillProgress


def trace_option() -> Decorator:
    """Declare `--trace`."""
    text = "Append what every model wanted at each token to this file; see eftlocal explain --from."
    return option("--trace", metavar="FILE", help=text)


def open_trace(path: str | None) -> AbstractContextManager[TraceWriter | None]:
    """Open the trace file, if one is named.

    Raises:
        UsageError: where it cannot be written, or is no trace.
    """
    if path is None:
        return nullcontext()
    from ..explain import TraceWriter

    return TraceWriter(path)


def make_traced(model: FusedModel) -> None:
    """Have all further generations of a model described token by token."""
    model.options = model.options.updated({"trace": True})


def recorded(
    start: StartStream,
    model: FusedModel,
    writer: TraceWriter | None,
    on_failure: Callable[[EftlocalError], None] | None = None,
) -> StartStream:
    """Return what starts a stream whose tokens are written to a trace, if there is one."""
    if writer is None:
        return start

    def start_recorded(on_prefill: PrefillProgress | None) -> Stream:
        stream = start(on_prefill)
        writer.follow(model, stream, on_failure)
        return stream

    return start_recorded


class TracedSession(Session):
    """A session whose replies go to a trace file; where that fails, the chat goes on without."""

    writer: TraceWriter | None = None

    def ask(self, text: str, deliver: Deliver) -> Completion:
        """See `Session.ask`."""
        return super().ask(text, self._traced(deliver))

    def regenerate(self, deliver: Deliver) -> Completion:
        """See `Session.regenerate`."""
        return super().regenerate(self._traced(deliver))

    def _traced(self, deliver: Deliver) -> Deliver:
        def run(start: StartStream) -> Completion:
            return deliver(recorded(start, self.model, self.writer, self._give_up))

        return run

    def _give_up(self, error: EftlocalError) -> None:
        self.writer = None
        self.trouble = f"the trace is no longer written: {error}"
