"""Counters, histograms and gauges of a server, as Prometheus reads them.

The names are those of llama-server, under the prefix `eftlocal:`. The only labels are the names of
served entries, outcomes and classes of HTTP status: nothing that a client writes.

    metrics = Metrics()
    host = Host(settings, metrics.on_job_end)          counts every job, however it ends
    metrics.answered(404)                              every HTTP answer, where it is sent
    body, content_type = metrics.render(host, accept)  for GET /metrics
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from ..stream import Completion, Timings
from .jobs import Job
from .states import Closing
from .worker import Worker

if TYPE_CHECKING:
    from .host import Host

OUTCOMES = ("stop", "length", "cancelled", "closed", "error")
"""How jobs end: as completions do; because the server ended them; or with an error."""

_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_RECENT = 64
"""Completions over which rates are averaged."""

_COUNTERS = {
    "prompt_tokens": "Prompt tokens that were read, without cached ones.",
    "cached_prompt_tokens": "Prompt tokens that were in the cache already.",
    "prompt_seconds": "Seconds of reading prompts.",
    "tokens_predicted": "Generated tokens.",
    "tokens_predicted_seconds": "Seconds of generating tokens.",
    "n_decode": "Rounds, each of which decides one or several tokens of a sequence.",
    "spec_decode_num_draft_tokens": "Drafted tokens that were checked.",
    "spec_decode_num_accepted_tokens": "Drafted tokens that were accepted.",
}
_HISTOGRAMS = {
    "time_to_first_token_seconds": ("From the request to its first token.", _FIRST_TOKEN),
    "inter_token_seconds": ("Mean time between two tokens of a request.", _BETWEEN),
    "request_duration_seconds": ("From the request to its last token.", _DURATION),
}
_GAUGES = {
    "requests_processing": "Requests that have a sequence.",
    "requests_deferred": "Requests that wait for a sequence.",
    "kv_cache_tokens": "Tokens that the base's cache holds.",
    "kv_cache_usage_ratio": "The same as a share of its room.",
    "prompt_tokens_seconds": f"Prompt tokens per second, over the last {_RECENT} requests.",
    "predicted_tokens_seconds": f"Generated tokens per second, over the last {_RECENT} requests.",
    "model_loaded": "Whether the model is loaded.",
}


@dataclass(frozen=True, slots=True)
class _Rates:
    """Tokens and seconds of one completion."""

    prompt_tokens: int
    prompt_seconds: float
    tokens: int
    seconds: float


class Metrics:
    """What a server counts, in a registry of its own; any thread may call it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"eftlocal:{name}", text, ("model",), registry=self._registry)
            for name, text in _COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(
                f"eftlocal:{name}", text, ("model",), registry=self._registry, buckets=buckets
            )
            for name, (text, buckets) in _HISTOGRAMS.items()
        }
        self._requests = Counter(
            "eftlocal:requests",
            "Completions that are over, by how they ended.",
            ("model", "outcome"),
            registry=self._registry,
        )
        self._answers = Counter(
            "eftlocal:http_responses",
            "HTTP answers, by the class of their status.",
            ("status",),
            registry=self._registry,
        )
        self._recent: dict[str, deque[_Rates]] = {}
        self._lock = threading.Lock()

    def answered(self, status: int) -> None:
        """Count an HTTP answer."""
        self._answers.labels(f"{min(max(status // 100, 1), 5)}xx").inc()

    def on_job_end(
        self, model: str, job: Job, completion: Completion | None, error: BaseException | None
    ) -> None:
        """Count a job that is over.

        Args:
            model: the name of the entry.
            job: the job.
            completion: what was generated; None where it never ran.
            error: what ended it, where that was an error.
        """
        self._requests.labels(model, _outcome(completion, error)).inc()
        if completion is None:
            return
        times = completion.timings
        self._count(model, times)
        seconds = times.first_token_seconds
        if times.generated_tokens:
            self._histograms["time_to_first_token_seconds"].labels(model).observe(seconds)
        if times.generated_tokens > 1:
            mean = times.generation_seconds / (times.generated_tokens - 1)
            self._histograms["inter_token_seconds"].labels(model).observe(mean)
        self._histograms["request_duration_seconds"].labels(model).observe(
            time.perf_counter() - job.created
        )

    def _count(self, model: str, times: Timings) -> None:
        read = times.prompt_tokens - times.cached_tokens
        for name, value in (
            ("prompt_tokens", read),
            ("cached_prompt_tokens", times.cached_tokens),
            ("prompt_seconds", times.prompt_seconds),
            ("tokens_predicted", times.generated_tokens),
            ("tokens_predicted_seconds", times.generation_seconds),
            ("n_decode", times.rounds),
            ("spec_decode_num_draft_tokens", times.drafted),
            ("spec_decode_num_accepted_tokens", times.accepted),
        ):
            self._counters[name].labels(model).inc(max(value, 0))
        rates = _Rates(read, times.prompt_seconds, times.generated_tokens, times.generation_seconds)
        with self._lock:
            self._recent.setdefault(model, deque(maxlen=_RECENT)).append(rates)

    def render(self, host: Host, accept: str = "") -> tuple[bytes, str]:
        """All of it as text, and its content type.

        Args:
            host: whose entries are shown, also those that nothing happened to; gauges are read
                from it.
            accept: the Accept header; OpenMetrics where that is asked for.
        """
        for name in host.names():
            for family in (*self._counters.values(), *self._histograms.values()):
                family.labels(name)
            for outcome in OUTCOMES:
                self._requests.labels(name, outcome)
        encode, content_type = choose_encoder(accept)
        return encode(_Families(self._families(host))), content_type

    def _families(self, host: Host) -> Iterator[Metric]:
        for family in self._registry.collect():
            # The library's times of creation say nothing here.
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family
        gauges = {
            name: GaugeMetricFamily(f"eftlocal:{name}", text, labels=("model",))
            for name, text in _GAUGES.items()
        }
        loaded = host.loaded()
        for model in host.names():
            values = self._rates(model) | _gauges(loaded.get(model))
            for name, gauge in gauges.items():
                gauge.add_metric((model,), values.get(name, 0.0))
        yield from gauges.values()

    def _rates(self, model: str) -> dict[str, float]:
        with self._lock:
            recent = list(self._recent.get(model, ()))
        read = sum(item.prompt_tokens for item in recent)
        made = sum(item.tokens for item in recent)
        return {
            "prompt_tokens_seconds": _ratio(read, sum(item.prompt_seconds for item in recent)),
            "predicted_tokens_seconds": _ratio(made, sum(item.seconds for item in recent)),
        }


class _Families(CollectorRegistry):
    """A registry for one answer."""

    def __init__(self, families: Iterator[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """What there is."""
        return self._families


def _gauges(worker: Worker | None) -> dict[str, float]:
    if worker is None:
        return {"model_loaded": 0.0}
    held = sum(slot.held_tokens for slot in worker.slots())
    return {
        "model_loaded": 1.0,
        "requests_processing": worker.n_running,
        "requests_deferred": worker.n_waiting,
        "kv_cache_tokens": held,
        "kv_cache_usage_ratio": held / (worker.model.n_ctx * worker.n_sequences),
    }


def _outcome(completion: Completion | None, error: BaseException | None) -> str:
    if error is not None:
        return "closed" if isinstance(error, Closing) else "error"
    reason = completion.finish_reason if completion else "cancelled"
    return reason if reason in OUTCOMES else "error"


def _ratio(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
