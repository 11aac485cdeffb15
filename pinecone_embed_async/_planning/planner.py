"""Plans the next request, and decides what to do after an answer or an error."""

from __future__ import annotations

import math
import re
from collections import deque
from typing import TYPE_CHECKING, Protocol

import msgspec

from pinecone_embed_async._errors import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    EmbedError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    TransportError,
)
from pinecone_embed_async._planning.load import Load
from pinecone_embed_async._planning.request import PlannedRequest
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._planning.learned import Learned

JOB_ERRORS = (AuthenticationError, NotFoundError, RateLimitError, QuotaExceededError, ClosedError, ConfigurationError)
"""Errors that end the job, because every other request of the call would fail with them too. A request ends with a
`RateLimitError` only after a long time in which the service accepted nothing under the same limit."""

CONTENT_STATUSES = frozenset({400, 413, 422})
"""Statuses that may be caused by a single input of the request."""

PROBE_TEXT = "probe"
"""The text of a probe: short and plain, so that the service has no reason to refuse it."""

_INPUTS_LIMIT = re.compile(r"\binputs limit of ([1-9][0-9]{0,5})\b")
"""Matches the limit in "Input length '101' exceeded inputs limit of 96 for model 'llama-text-embed-v2'"."""


class PendingInputs(Protocol):
    """The inputs that have not been sent yet, as requests."""

    def take(self) -> PlannedRequest | None:
        """Take the next request; `None` if there is none now."""

    def give_back(self, rest: PlannedRequest) -> None:
        """Give back what was cut off from the request taken last."""


class RequestPlanner(SilentStruct):
    """Plans the requests of one call or stream, and decides what to do after their outcomes.

    A request that is refused for its content is halved until each refused input is alone in its request. If no request with
    the same parameters has been accepted before, a probe with a short text first finds out whether the content is the reason
    (not after a 413, nor in a call with a single input). Meanwhile no new request is planned.

    The planner also plans no new request while it searches for the first refused input, because other requests may contain
    an equal text. A text that was refused alone is not sent again for a while: an equal input fails when its turn comes.

    Args:
        pending: the inputs that have not been sent yet.
        learned: the knowledge learned from answers and refusals, which is updated here.
        parameters: model and parameters, as JSON.
        clock: tells the time, because a refused input may be sent again after a while.
        blames_inputs: whether refusals are blamed on inputs from the start, because the call has a single input; a probe
            would then decide nothing.

    Attributes:
        failed_unsent: number of inputs that failed without being sent alone, because an equal text is known to be refused.
        job_error: the error that ended the job early; `None` if there is none.
    """

    _pending: PendingInputs
    _learned: Learned
    _parameters: bytes
    _clock: Clock
    # True from the start, once the parameters are accepted, or once the probe has said nothing about them.
    _blames_inputs: bool
    failed_unsent: int = 0
    job_error: EmbedError | None = None
    _parts: deque[PlannedRequest] = msgspec.field(default_factory=deque)
    # The next request of `pending`; it comes after the parts.
    _ahead: PlannedRequest | None = None
    # Refused requests that wait for the outcome of the probe, or of the search in another request.
    _suspended: list[tuple[PlannedRequest, InvalidRequestError]] = msgspec.field(default_factory=list)
    # The probe to send next.
    _probe: PlannedRequest | None = None
    # The request searched for the first refused input, and how many of its inputs have no outcome yet; 0 once the search has
    # ended.
    _searched: PlannedRequest | None = None
    _unsettled: int = 0

    def __post_init__(self) -> None:
        self._blames_inputs |= self._parameters in self._learned.parameters

    def __repr__(self) -> str:
        ended = f", ended by {type(self.job_error).__name__}" if self.job_error is not None else ""
        return f"<RequestPlanner {len(self._parts)} parts, {len(self._suspended)} suspended{ended}>"

    def peek(self) -> PlannedRequest | None:
        """The next request to send, which stays in place; `None` if there is none now, or the job has ended.

        Its inputs that are known to be refused fail on the way, and `failed_unsent` grows. If nothing is left of it, this
        returns `None` too, but the next call may not.
        """
        if self.job_error is not None:
            return None
        if self._suspended and not self._blames_inputs:
            # Nothing else until the probe has ended.
            return self._probe
        request: PlannedRequest | None = None
        if self._parts:
            request = self._parts[0]
        elif not self._unsettled:
            request = self._ahead = self._ahead or self._pending.take()
        if request is None or request.checked == self._learned.refusals.changes or not self._has_refused(request):
            return request
        self.take(request)
        # Only one request per call of `peek`, so that the scheduler can yield to the event loop in between: all inputs of a
        # long call may be known to be refused.
        rest = self._without_refused(request)
        if rest is not None:
            self._parts.appendleft(rest)
        return rest

    def _has_refused(self, request: PlannedRequest) -> bool:
        """Whether an input of the request is known to be refused; if not, note that on the request."""
        if any(self._refusal_of(text) is not None for text in request.texts):
            return True
        request.checked = self._learned.refusals.changes
        return False

    def _refusal_of(self, text: str) -> InvalidRequestError | None:
        return self._learned.refusals.find(text, self._parameters, self._clock.time())

    def _without_refused(self, request: PlannedRequest) -> PlannedRequest | None:
        """Fail the inputs that are known to be refused, and return the rest of the request; `None` if nothing is left."""
        kept: list[int] = []
        refused: dict[str, tuple[InvalidRequestError, list[int]]] = {}
        for place, text in enumerate(request.texts):
            if text in refused:
                refused[text][1].append(place)
            elif (error := self._refusal_of(text)) is not None:
                refused[text] = error, [place]
            else:
                kept.append(place)
        for error, places in refused.values():
            part = request.only(places)
            self.failed_unsent += len(places)
            self._close(part)
            request.results.failed(part, error)
        return request.only(kept) if kept else None

    def take(self, request: PlannedRequest, tokens: float = math.inf) -> None:
        """Take the request that `peek` has just returned, cut to `tokens` but not below its first input.

        The rest of the request becomes the next one.
        """
        rest = request.cut(tokens)
        if request.is_probe:
            self._probe = None
        elif self._parts:
            self._parts.popleft()
            if rest is not None:
                self._parts.appendleft(rest)
        else:
            self._ahead = None
            if rest is not None:
                self._pending.give_back(rest)

    def cut(self, request: PlannedRequest, tokens: int) -> None:
        """Cut an unanswered request to `tokens`, but keep at least its first input; the rest becomes the next request."""
        rest = request.cut(tokens)
        if rest is not None:
            self._parts.appendleft(rest)

    def embedded(self, request: PlannedRequest) -> None:
        """Record that a request was answered, and store its rows."""
        self._learned.accepted(request.load, self._parameters)
        if not request.is_probe:
            request.results.embedded(request)
            self._close(request)
        if not self._blames_inputs:
            self._resume()

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Record that a request ended with an error, and decide what to do with its inputs.

        Once the job has ended, by a cancellation or otherwise, the inputs of the request fail.
        """
        if request.is_probe:
            self._probe_failed(error)
        elif self.job_error is None and isinstance(error, InvalidRequestError) and error.status in CONTENT_STATUSES:
            self._refused(request, error)
        else:
            request.results.failed(request, error)
            if ends_job(error):
                self.end(error)
            self._close(request)

    def end(self, error: EmbedError) -> None:
        """End the job: plan no more requests. Suspended requests fail as refused; all other inputs left stay untried."""
        if self.job_error is not None:
            return
        self.job_error = error
        self._parts.clear()
        for request, refusal in self._suspended:
            request.results.failed(request, refusal)
        self._suspended.clear()
        self._unsettled = 0

    def _refused(self, request: PlannedRequest, error: InvalidRequestError) -> None:
        """Decide what follows from a refusal: a tighter limit, a probe of the parameters, or a search for the input."""
        count = len(request.texts)
        most = _INPUTS_LIMIT.search(error.message)
        if error.status == 413:
            # A 413 says nothing about the parameters: the inputs together are too large, or a single one of them is.
            self._learned.too_large(request.load)
            self._halve(request, error)
        elif most is not None and int(most[1]) < count:
            self._learned.too_many(int(most[1]))
            self._parts.extend(request.parts(int(most[1])))
        elif self._blames_inputs:
            self._isolate(request, error)
        else:
            if not self._suspended:
                texts, limits = [PROBE_TEXT], request.limits
                load = Load.of(texts, limits.current)
                self._probe = PlannedRequest(texts, range(1), load, limits, request.results, is_probe=True)
            self._suspended.append((request, error))

    def _isolate(self, request: PlannedRequest, error: InvalidRequestError) -> None:
        """Search a refused request for the inputs to blame, unless another request is being searched."""
        if self._unsettled and self._searched is not request.origin:
            self._suspended.append((request, error))
            return
        if self._has_refused(request):
            # `peek` removes the inputs known to be refused; they may be the only reason for this refusal.
            self._parts.append(request)
            return
        if self._searched is None and len(request.texts) > 1:
            self._searched, self._unsettled = request.origin, len(request.texts)
        self._halve(request, error)

    def _halve(self, request: PlannedRequest, error: InvalidRequestError) -> None:
        """Send a refused request again as two halves; a single input fails."""
        count = len(request.texts)
        if count > 1:
            request.origin.was_halved = True
            self._parts.extend(request.parts((count + 1) // 2))
            return
        request.results.failed(request, error)
        # Remember the refusal only if a search found the input (one sent alone from the start costs no search), and only if
        # the parameters were accepted before (otherwise they or the model may be the reason).
        if request.origin.was_halved and self._parameters in self._learned.parameters:
            self._learned.refusals.add(request.texts[0], self._parameters, error, self._clock.time())
            self._resume()
        self._close(request)

    def _close(self, request: PlannedRequest) -> None:
        """Record that the inputs of a request have an outcome; a search ends once all inputs being searched have one."""
        if self._unsettled and self._searched is request.origin:
            self._unsettled -= len(request.texts)
            if self._unsettled <= 0:
                self._resume()

    def _resume(self) -> None:
        """Blame refusals on inputs, now that the probe or a search has ended, and search the suspended requests."""
        self._unsettled, self._blames_inputs = 0, True
        suspended, self._suspended = self._suspended, []
        for request, error in suspended:
            self._isolate(request, error)

    def _probe_failed(self, error: EmbedError) -> None:
        if self._blames_inputs or self.job_error is not None:
            # An input was accepted while the probe was in flight, or the job has ended.
            return
        if ends_job(error):
            self.end(error)
        elif isinstance(error, InvalidRequestError) and error.status in CONTENT_STATUSES:
            refusal = self._suspended[0][1]
            refusal.add_note("A short plain text was refused too: the cause is the parameters or the model, not an input.")
            self.end(refusal)
        else:
            # The probe decided nothing. Halving still finds the refused inputs; if the parameters are at fault, it only
            # takes more requests to fail.
            self._resume()


def ends_job(error: EmbedError) -> bool:
    """Whether every other request of the call would fail with this error too."""
    return isinstance(error, JOB_ERRORS) or (isinstance(error, (TransportError, ResponseError)) and error.ends_job)
