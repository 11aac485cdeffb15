"""Spans and metrics as OpenTelemetry's own SDK exports them, of a client that talks to the emulator."""

import asyncio
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import GenAiOperationNameValues
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode

from pinecone_embed_async import ConfigurationError, DenseEmbeddings, EmbedClient, EmbedError, SqliteCache
from pinecone_embed_async.emulator import Emulator, FaultMix
from pinecone_embed_async.integrations.opentelemetry import DURATION_BUCKETS, TOKEN_BUCKETS, OpenTelemetryHook
from tests.clients import E5, QUICK
from tests.pages import DOCS
from tests.service import Service


class Watched:
    """A hook with exporters in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.hook = OpenTelemetryHook(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def calls(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == f"embeddings {E5}"]

    def requests(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == "embeddings request"]

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def watched() -> Watched:
    return Watched()


def client_of(emulator: Emulator, watched: Watched, **options: Any) -> EmbedClient[DenseEmbeddings]:
    options = {"retry": QUICK, "parameters": {"input_type": "passage"}, **options}
    return EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url, hooks=[watched.hook], **options)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def common(emulator: Emulator) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "pinecone",
        "gen_ai.request.model": E5,
        "server.address": "127.0.0.1",
        "server.port": int(emulator.url.rpartition(":")[2]),
    }


async def test_a_call_is_a_span_after_the_conventions_and_its_requests_are_children(
    emulator: Emulator, watched: Watched
) -> None:
    async with client_of(emulator, watched, max_batch_size=2) as client:
        result = await client.embed(["a", "b", "c"])
    (call,) = watched.calls()
    assert call.kind is SpanKind.CLIENT
    assert call.status.status_code is StatusCode.UNSET
    assert attributes(call) == {
        **common(emulator),
        "gen_ai.response.model": E5,
        "gen_ai.embeddings.dimension.count": 1024,
        "gen_ai.usage.input_tokens": result.usage.total_tokens,
        "pinecone.embed.method": "embed",
        "pinecone.embed.inputs": 3,
        "pinecone.embed.input_type": "passage",
        "pinecone.embed.embedded": 3,
        "pinecone.embed.failed": 0,
        "pinecone.embed.cached": 0,
        "pinecone.embed.requests": 2,
    }
    requests = watched.requests()
    assert len(requests) == 2
    assert call.context is not None
    for request in requests:
        assert request.parent is not None
        assert request.parent.span_id == call.context.span_id
        assert request.context is not None
        assert request.context.trace_id == call.context.trace_id
        assert request.kind is SpanKind.CLIENT
        assert common(emulator).items() <= attributes(request).items()
        assert "http.request.resend_count" not in attributes(request)
        assert (call.start_time or 0) <= (request.start_time or 0) < (request.end_time or 0) <= (call.end_time or 0)
    assert sum(attributes(request)["pinecone.embed.tokens"] for request in requests) == result.usage.total_tokens
    assert {span.instrumentation_scope.name for span in watched.spans if span.instrumentation_scope} == {
        "pinecone_embed_async"
    }


async def test_the_span_of_a_call_is_a_child_of_the_programs_own(emulator: Emulator, watched: Watched) -> None:
    async with client_of(emulator, watched) as client:
        with watched.tracers.get_tracer("program").start_as_current_span("search") as own:
            await asyncio.gather(client.embed("a"), client.embed_one("a"))
            async with client.stream(["a"]) as batches:
                assert [len(batch) async for batch in batches] == [1]
    calls = watched.calls()
    assert sorted(attributes(call)["pinecone.embed.method"] for call in calls) == ["embed", "embed_one", "stream"]
    for call in calls:
        assert call.parent is not None
        assert call.parent.span_id == own.get_span_context().span_id
    # A stream does not know how many inputs there are.
    (stream,) = (call for call in calls if attributes(call)["pinecone.embed.method"] == "stream")
    assert "pinecone.embed.inputs" not in attributes(stream)
    assert attributes(stream)["pinecone.embed.embedded"] == 1


async def test_a_request_that_calls_share_is_the_child_of_one_and_linked_to_the_others(
    emulator: Emulator, watched: Watched
) -> None:
    async with client_of(emulator, watched) as client:
        await asyncio.gather(*(client.embed_one(f"text {number}") for number in range(4)))
    (request,) = watched.requests()
    assert request.parent is not None
    found = [request.parent.span_id, *(link.context.span_id for link in request.links)]
    assert sorted(found) == sorted(call.context.span_id for call in watched.calls() if call.context)
    assert len(found) == 4
    for call in watched.calls():
        assert "gen_ai.usage.input_tokens" not in attributes(call)
    assert attributes(request)["pinecone.embed.tokens"] == emulator.statistics().tokens_billed


async def test_retries_and_waits_are_events_of_the_request_and_metrics(emulator: Emulator, watched: Watched) -> None:
    emulator.inject("status=503", times=2)
    emulator.inject("rate_limited=0.3")
    async with client_of(emulator, watched, max_concurrency=1) as client:
        await client.embed("a")
    (request,) = watched.requests()
    assert attributes(request)["http.request.resend_count"] == 3
    assert attributes(request)["pinecone.embed.backed_off"] > 0
    assert attributes(request)["pinecone.embed.waited"] > 0
    events: list[tuple[str, dict[str, Any]]] = [(event.name, dict(event.attributes or {})) for event in request.events]
    assert [name for name, _ in events] == ["retry", "retry", "retry", "waiting"]
    assert (
        events[0][1].items()
        >= {
            "error.type": "ServiceError",
            "http.response.status_code": 503,
            "pinecone.embed.attempt": 1,
        }.items()
    )
    assert events[3][1]["pinecone.embed.pause"] > 0
    points = watched.points()
    retries = {point.attributes["error.type"]: point.value for point in points["pinecone.embed.retries"]}
    assert retries == {"ServiceError": 2, "RateLimitError": 1}
    waits = {point.attributes["pinecone.embed.wait.reason"]: point.sum for point in points["pinecone.embed.wait.duration"]}
    assert waits == {
        "limit": attributes(request)["pinecone.embed.waited"],
        "backoff": attributes(request)["pinecone.embed.backed_off"],
    }


async def test_duration_and_billed_tokens_are_the_metrics_of_the_conventions(emulator: Emulator, watched: Watched) -> None:
    async with client_of(emulator, watched, max_batch_size=2) as client:
        result = await client.embed(["a", "b", "c"])
        emulator.reject = lambda text: text == "bad"
        with pytest.raises(EmbedError):
            await client.embed(["bad", "c"])
    points = watched.points()
    well, failed = sorted(points["gen_ai.client.embeddings.duration"], key=lambda point: len(point.attributes))
    answered = {**common(emulator), "gen_ai.response.model": E5}
    assert dict(well.attributes) == answered
    assert dict(failed.attributes) == {**answered, "error.type": "InvalidRequestError"}
    assert well.count == failed.count == 1
    assert well.sum > 0
    assert well.explicit_bounds == DURATION_BUCKETS
    (tokens,) = points["gen_ai.client.embeddings.operation.input_tokens"]
    assert dict(tokens.attributes) == answered
    assert tokens.sum == emulator.statistics().tokens_billed > result.usage.total_tokens
    assert tokens.explicit_bounds == TOKEN_BUCKETS


async def test_the_model_that_answered_is_told_of_every_call_and_request(emulator: Emulator, watched: Watched) -> None:
    async with client_of(emulator, watched, max_batch_size=2) as client:
        await client.embed(["a", "b", "c"])
        await asyncio.gather(*(client.embed_one(f"text {number}") for number in range(3)))
        async with client.stream(["a", "b"]) as batches:
            assert [len(batch) async for batch in batches] == [2]
    assert len(watched.calls()) == 5
    assert {attributes(span).get("gen_ai.response.model") for span in watched.spans} == {E5}


async def test_what_was_not_answered_names_no_model(emulator: Emulator, watched: Watched, tmp_path: Path) -> None:
    async with client_of(emulator, watched, cache=SqliteCache(tmp_path / "vectors.cache")) as client:
        await client.embed("a")
        emulator.faults = "status=503"
        await client.embed("a")
        await client.embed_one("a")
        with pytest.raises(EmbedError):
            await client.embed("b")
    cached = [attributes(call) for call in watched.calls() if attributes(call)["pinecone.embed.cached"]]
    failed = [attributes(span) for span in watched.spans if "error.type" in attributes(span)]
    assert len(cached) == len(failed) == 2
    assert all("gen_ai.response.model" not in found for found in cached + failed)


async def test_a_service_that_answers_with_another_model_is_told_of_but_its_name_shows_no_secret(watched: Watched) -> None:
    text, key = "a text that is nobody's business", "pcsk_a-key-of-the-hook"
    data = [{"values": [1.0], "vector_type": "dense"}]

    def answer(model: str) -> Callable[[], web.Response]:
        return lambda: web.json_response(
            {"model": model, "vector_type": "dense", "data": data, "usage": {"total_tokens": 1}}
        )

    async with Service(answer("one-number-2"), answer(f"{text} {key}"), answer(key)) as service:
        client: EmbedClient[DenseEmbeddings] = EmbedClient(
            "one-number", api_key=key, base_url=service.url, vector_type="dense", look_up_model=False, hooks=[watched.hook]
        )
        async with client:
            for _ in range(3):
                await client.embed(text)
    told = [attributes(span)["gen_ai.response.model"] for span in watched.spans if span.name == "embeddings one-number"]
    assert told == ["one-number-2", "<input 0> <api key>", "<api key>"]
    assert {span.attributes["gen_ai.request.model"] for span in watched.spans if span.attributes} == {"one-number"}


async def test_errors_are_told_by_kind(emulator: Emulator, watched: Watched) -> None:
    emulator.faults = "status=503"
    async with client_of(emulator, watched) as client:
        with pytest.raises(EmbedError):
            await client.embed("a")
    for span in watched.spans:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "ServiceError"
        assert attributes(span)["error.type"] == "ServiceError"
    (request,) = watched.requests()
    assert attributes(request)["http.response.status_code"] == 503
    assert attributes(watched.calls()[0])["pinecone.embed.failed"] == 1


async def test_everything_that_begins_ends_whatever_happens(watched: Watched) -> None:
    async with (
        Emulator(faults=FaultMix(seed=5, rate=0.5)) as emulator,
        client_of(emulator, watched, max_batch_size=2) as client,
    ):
        calls = [client.embed([f"text {number}" for number in range(9)]) for _ in range(5)]
        singles = [client.embed_one(f"one {number}") for number in range(20)]
        tasks = [asyncio.ensure_future(call) for call in itertools.chain(calls, singles)]
        await emulator.wait_for_answers(3)
        for task in tasks[::4]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(watched.calls()) == 25
    assert repr(watched.hook) == "<OpenTelemetryHook 0 spans open>"


async def test_nothing_that_is_exported_holds_a_text_or_the_key(watched: Watched) -> None:
    text = "something nobody should read"
    async with (
        Emulator(api_key="pcsk_secret", reject=lambda one: one == text) as emulator,
        client_of(emulator, watched) as client,
    ):
        with pytest.raises(EmbedError):
            await client.embed([text, "harmless"])
        with pytest.raises(EmbedError):
            await client.embed_one(text)
        emulator.api_key = "another"
        with pytest.raises(EmbedError):
            await client.embed([text])
    exported = "".join(span.to_json() for span in watched.spans) + repr(watched.points())
    assert watched.spans
    for word in ("nobody", "harmless", "pcsk", "secret"):
        assert word not in exported


EXPORTED = re.compile(r"(?:gen_ai|server|error|http|pinecone\.embed)\.[\w.]+")


async def test_the_page_has_every_span_attribute_and_metric_and_no_other(watched: Watched) -> None:
    async with (
        Emulator(reject=lambda text: text == "bad") as emulator,
        client_of(emulator, watched, max_concurrency=1) as client,
    ):
        emulator.inject("status=503")
        emulator.inject("rate_limited=0.3")
        await client.embed("a")
        await client.embed_one("b")
        with pytest.raises(EmbedError):
            await client.embed(["bad", "c"])
    points = watched.points()
    found = {key for span in watched.spans for key in attributes(span)}
    found |= {key for span in watched.spans for event in span.events for key in event.attributes or {}}
    found |= {key for metric in points.values() for point in metric for key in point.attributes}
    page = (DOCS / "observability.md").read_text().partition("### Spans")[2]
    rows = [row for row in page.splitlines() if row.startswith("|")]
    assert set(EXPORTED.findall("\n".join(rows))) == found | set(points)
    assert {event.name for span in watched.spans for event in span.events} == {"retry", "waiting"}
    # What is not this package's own is a name of the conventions.
    theirs = {name for name in found if not name.startswith("pinecone.embed.")}
    modules = (gen_ai_attributes, error_attributes, http_attributes, server_attributes)
    assert theirs <= {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    assert attributes(watched.calls()[0])["gen_ai.operation.name"] == GenAiOperationNameValues.EMBEDDINGS.value


async def test_without_a_provider_of_the_program_it_does_nothing(emulator: Emulator) -> None:
    client = EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url, hooks=[OpenTelemetryHook()])
    async with client:
        assert len(await client.embed(["a"], input_type="query")) == 1


def test_what_is_no_provider_is_refused() -> None:
    for name in ("tracer_provider", "meter_provider"):
        for value in (5, "text", TracerProvider):
            with pytest.raises(ConfigurationError, match=f"{name} must have get_"):
                OpenTelemetryHook(**{name: value})  # type: ignore[arg-type]
