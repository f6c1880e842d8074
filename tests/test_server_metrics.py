"""/metrics: what is counted is what was answered, under names that no client chooses."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from .full_server import FRANCE, Running


def values(server: Running) -> dict[tuple[str, ...], float]:
    """(name, labels ...) -> value of every sample."""
    response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_the_counters_are_those_of_the_answers(server: Running) -> None:
    """Tokens, cached tokens, drafts, outcomes: as the answers' usage says."""
    server.load()
    before = values(server)
    answers = [server.chat(), server.chat(), server.chat(max_tokens=2)]
    after = values(server)

    def more(*key: str) -> float:
        name, *rest = key
        return (
            after[f"eftlocal:{name}", "atlas", *rest] - before[f"eftlocal:{name}", "atlas", *rest]
        )

    usages = [answer["usage"] for answer in answers]
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert cached > 0
    assert more("cached_prompt_tokens_total") == cached
    assert more("prompt_tokens_total") == sum(u["prompt_tokens"] for u in usages) - cached
    assert more("tokens_predicted_total") == sum(u["completion_tokens"] for u in usages)
    details = [usage["completion_tokens_details"] for usage in usages]
    accepted = sum(d["accepted_prediction_tokens"] for d in details)
    drafted = accepted + sum(d["rejected_prediction_tokens"] for d in details)
    assert more("spec_decode_num_accepted_tokens_total") == accepted
    assert more("spec_decode_num_draft_tokens_total") == drafted
    assert more("requests_total", "stop") == 2
    assert more("requests_total", "length") == 1
    for name in ("time_to_first_token", "inter_token", "request_duration"):
        assert more(f"{name}_seconds_count") == 3
    for name in ("prompt_tokens_seconds", "predicted_tokens_seconds", "prompt_seconds_total"):
        assert after[f"eftlocal:{name}", "atlas"] > 0
    assert 0 < after["eftlocal:kv_cache_usage_ratio", "atlas"] < 1
    assert after["eftlocal:model_loaded", "atlas"] == 1
    assert not any(name.endswith("_created") for name, *_ in after)


def test_labels_are_bounded(server: Running) -> None:
    """Nothing that a client writes becomes a label."""
    server.load()
    for i in range(5):
        server.post("/v1/chat/completions", 404, model=f"made-up-{i}", messages=FRANCE)
        server.client.get(f"/made-up-{i}")
    text = server.client.get("/metrics").text
    assert "made-up" not in text
    assert 'eftlocal:http_responses_total{status="4xx"}' in text
    openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    assert server.client.get("/metrics", headers=openmetrics).text.endswith("# EOF\n")


def test_jobs_that_fail_or_leave_are_counted(server: Running) -> None:
    """Cancelled while it runs, and while it waits."""
    server.load()
    before = values(server)

    async def cancel() -> None:
        worker = await server.host.worker()
        ready = worker.model.prepare_complete("Once", logit_bias={2: -1e6, 6: -1e6})
        jobs = [worker.submit(ready.with_choice(i)) for i in range(4)]
        await asyncio.sleep(0.05)
        for job in jobs:
            job.cancel()

    server.do(cancel())
    server.until_jobs(0, 0)
    key = ("eftlocal:requests_total", "atlas", "cancelled")
    assert values(server)[key] - before[key] == 4
