"""Many requests through one model: all of its sequences stay busy until the last one is done."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from .errors import EftlocalError
from .model import FusedModel
from .stream import Completion, Prepared, Stream

Job = Callable[[], Prepared]
"""Prepares a request, with `FusedModel.prepare_chat` or `prepare_complete`."""

Outcome = Completion | EftlocalError


def run_batch(
    model: FusedModel, jobs: Iterable[Job], may_start: Callable[[], bool] = lambda: True
) -> Generator[tuple[int, Outcome], None, None]:
    """Run requests, `parallel` of them at once; nothing else may run in the model meanwhile.

    Args:
        model: with at least one sequence (`RuntimeOptions.parallel`).
        jobs: prepared one by one, when a sequence is free.
        may_start: asked before every round, and before every job, whether one more may start; it
            has to say so where nothing runs. What it raises ends everything.

    Yields:
        The number of a job and its completion as soon as it ended; the error instead where its
        request was refused or failed alone. Closing the iterator ends what runs.

    Raises:
        BackendError: where a model failed; everything that ran has ended then.
    """
    waiting = enumerate(jobs)
    running: dict[int, Stream] = {}
    try:
        while True:
            while (
                may_start()
                and len(running) < model.runtime.parallel
                and (entry := next(waiting, None))
            ):
                index, job = entry
                try:
                    running[index] = model.start(job())
                except EftlocalError as error:
                    yield index, error
            if not running:
                return
            model.engine.step()
            for index in [i for i, stream in running.items() if _has_ended(stream)]:
                yield index, _outcome(running.pop(index))
    finally:
        for stream in running.values():
            stream.close()


def completions(model: FusedModel, jobs: Iterable[Job]) -> Iterator[tuple[int, Completion]]:
    """Run requests as `run_batch` does, where none of them may fail.

    Raises:
        EftlocalError: of the first one that was refused or failed.
    """
    with closing(run_batch(model, jobs)) as outcomes:
        for index, outcome in outcomes:
            if not isinstance(outcome, Completion):
                raise outcome
            yield index, outcome


def _has_ended(stream: Stream) -> bool:
    stream.take()
    return not stream.is_running


def _outcome(stream: Stream) -> Outcome:
    if stream.error is None:
        return stream.completion
    if isinstance(stream.error, EftlocalError):
        return stream.error
    raise stream.error
