"""OpenTelemetry spans and metrics from a client's hooks. Needs the extra `otel`.

Names come from the semantic conventions for generative AI where these have one; this package's own names begin with
`pinecone.embed.`. No span, event or metric contains an input, a message from the service, or the key.

Source: "Semantic conventions for generative AI client embeddings" in OpenTelemetry's repository semantic-conventions-genai,
v0.1.0, at status Development; "Semantic conventions" 1.45 for `server.*`, `error.type` and `http.*`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from pinecone_embed_async import (
    Failed,
    Finished,
    ObservedCall,
    ObservedRequest,
    Retried,
    Started,
    Waiting,
    __version__,
    _checks,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from pinecone_embed_async import Event

SCOPE = "pinecone_embed_async"
"""The instrumentation scope of everything here."""

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds. Source: `gen_ai.client.embeddings.duration` in the conventions."""

TOKEN_BUCKETS = tuple(4**power for power in range(14))
"""Tokens, 1 to 67,108,864. Source: the conventions' histogram of input tokens."""


class OpenTelemetryHook:
    """A hook that records a span for every call and request, and metrics: `EmbedClient(..., hooks=[OpenTelemetryHook()])`.

    One hook may serve any number of clients, threads and event loops.

    Args:
        tracer_provider: provider of the tracer; by default the program's global one.
        meter_provider: provider of the meter; by default the program's global one.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        if tracer_provider is not None:
            _checks.methods("tracer_provider", tracer_provider, ("get_tracer",), "TracerProvider")
        if meter_provider is not None:
            _checks.methods("meter_provider", meter_provider, ("get_meter",), "MeterProvider")
        self._tracer = trace.get_tracer(SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(SCOPE, __version__, meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.embeddings.duration",
            unit="s",
            description="GenAI client embeddings operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.embeddings.operation.input_tokens",
            unit="{token}",
            description="The number of input tokens used per embeddings operation.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._retries = meter.create_counter(
            "pinecone.embed.retries", unit="{retry}", description="Attempts beyond the first of a request."
        )
        self._waiting = meter.create_histogram(
            "pinecone.embed.wait.duration",
            unit="s",
            description="Time a request waited for its permit or after failures.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._spans: dict[ObservedCall | ObservedRequest, Span] = {}
        self._answered: dict[ObservedCall, dict[str, str]] = {}

    def __repr__(self) -> str:
        """Show the number of open spans."""
        return f"<OpenTelemetryHook {len(self._spans)} spans open>"

    def __call__(self, event: Event) -> None:
        """Record an event; see `Hook`."""
        match event:
            case Started(subject=ObservedCall() as call):
                self._start_call(call)
            case Started(subject=ObservedRequest() as request):
                self._start_request(request)
            case Waiting(subject=request, pause=pause):
                self._spans[request].add_event("waiting", {"pinecone.embed.pause": pause})
            case Retried(subject=request):
                self._retry(event, request)
            case Finished(subject=ObservedCall() as call) | Failed(subject=ObservedCall() as call):
                self._end_call(event, call)
            case Finished(subject=ObservedRequest() as request) | Failed(subject=ObservedRequest() as request):
                self._end_request(event, request)

    def _start_call(self, call: ObservedCall) -> None:
        known = {
            "gen_ai.embeddings.dimension.count": call.dimension,
            "pinecone.embed.method": call.operation,
            "pinecone.embed.inputs": call.inputs,
            "pinecone.embed.input_type": call.input_type,
        }
        attributes = {**_common(call), **{name: value for name, value in known.items() if value is not None}}
        self._spans[call] = self._tracer.start_span(f"embeddings {call.model}", kind=SpanKind.CLIENT, attributes=attributes)

    def _start_request(self, request: ObservedRequest) -> None:
        # A caller that shares the request may have left in the meantime.
        parents = [self._spans[call] for call in request.calls if call in self._spans]
        attributes = {
            **(_common(request.calls[0]) if request.calls else {}),
            "pinecone.embed.inputs": request.inputs,
            "pinecone.embed.estimated_tokens": request.estimated_tokens,
            "pinecone.embed.is_probe": request.is_probe,
        }
        self._spans[request] = self._tracer.start_span(
            "embeddings request",
            context=trace.set_span_in_context(parents[0]) if parents else None,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=[Link(parent.get_span_context()) for parent in parents[1:]],
        )

    def _retry(self, event: Retried, request: ObservedRequest) -> None:
        attributes: dict[str, Any] = {"error.type": event.error.name}
        if request.calls:
            self._retries.add(1, {**_common(request.calls[0]), **attributes})
        if event.error.status is not None:
            attributes["http.response.status_code"] = event.error.status
        attributes |= {"pinecone.embed.attempt": event.attempt, "pinecone.embed.backoff": event.backoff}
        self._spans[request].add_event("retry", attributes)

    def _end_call(self, event: Finished | Failed, call: ObservedCall) -> None:
        span, answered = self._spans.pop(call), self._answered.pop(call, {})
        attributes: dict[str, Any] = {
            **answered,
            "pinecone.embed.embedded": event.embedded,
            "pinecone.embed.failed": event.failed,
            "pinecone.embed.cached": event.cached,
        }
        if call.operation != "embed_one":
            # The request of a single text is shared, so its tokens are on the request's own span.
            attributes |= {"gen_ai.usage.input_tokens": event.tokens, "pinecone.embed.requests": event.attempts}
        error = _end(span, event, attributes)
        self._duration.record(event.seconds, {**_common(call), **answered, **error}, trace.set_span_in_context(span))

    def _end_request(self, event: Finished | Failed, request: ObservedRequest) -> None:
        span = self._spans.pop(request)
        answered: dict[str, str] = {}
        if event.response_model is not None:
            answered["gen_ai.response.model"] = event.response_model
            # A request ends before the calls it answers; a caller may have left in the meantime.
            self._answered.update({call: answered for call in request.calls if call in self._spans})
        attributes: dict[str, Any] = {
            **answered,
            "pinecone.embed.tokens": event.tokens,
            "pinecone.embed.waited": event.waited,
            "pinecone.embed.backed_off": event.backed_off,
        }
        if event.attempts > 1:
            attributes["http.request.resend_count"] = event.attempts - 1
        if isinstance(event, Failed) and event.error.status is not None:
            attributes["http.response.status_code"] = event.error.status
        _end(span, event, attributes)
        if not request.calls:
            return
        common, context = _common(request.calls[0]), trace.set_span_in_context(span)
        if event.tokens:
            self._tokens.record(event.tokens, {**common, **answered}, context)
        for reason, seconds in (("limit", event.waited), ("backoff", event.backed_off)):
            if seconds:
                self._waiting.record(seconds, {**common, "pinecone.embed.wait.reason": reason}, context)


def _common(call: ObservedCall) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "pinecone",
        "gen_ai.request.model": call.model,
        "server.address": call.server_address,
        "server.port": call.server_port,
    }


def _end(span: Span, event: Finished | Failed, attributes: dict[str, Any]) -> dict[str, str]:
    """End a span; return the error's attributes for metrics."""
    error = {"error.type": event.error.name} if isinstance(event, Failed) else {}
    span.set_attributes({**attributes, **error})
    if isinstance(event, Failed):
        span.set_status(Status(StatusCode.ERROR, event.error.name))
    span.end()
    return error
