"""The client's shared state for sending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinecone_embed_async._errors import RateLimitError, ServiceError, TransportError
from pinecone_embed_async._log import logger
from pinecone_embed_async._sending.counters import Counters
from pinecone_embed_async._sending.network import Network
from pinecone_embed_async._sending.retry import FirstContact, RetryBudget, backoff_after, is_stale_connection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pinecone_embed_async._errors import DeadlineExceededError, EmbedError
    from pinecone_embed_async._planning import Attempts
    from pinecone_embed_async._rate_limit import Key, Permit
    from pinecone_embed_async._sending.options import SendingOptions
    from pinecone_embed_async._wire import VectorType

OVERLOAD = frozenset({502, 503, 504})
"""Statuses after which fewer requests may be in flight, as after time-outs and lost connections. A 500 shows no overload."""


class Engine:
    """The client's shared state for sending: network, permits, retries, and knowledge about the service.

    Args:
        options: settings of the client.

    Attributes:
        options: settings of the client.
        gate: grants the permits.
        clock: the clock.
        network: exchanges requests for answers.
        counters: counts since the client was created.
        budget: the retry budget.
        contact: whether the client has reached and understood its service.
        vector_type: the model's vector type; `None` until it is known.
    """

    def __init__(self, options: SendingOptions) -> None:
        self.options = options
        self.gate = options.gate
        self.clock = options.clock
        self.counters = Counters()
        self.budget = RetryBudget()
        self.contact = FirstContact(is_policy_given=options.is_policy_given)
        self.network = Network(options, self.budget, self.counters)
        self.vector_type = options.vector_type

    def key(self, parameters: Mapping[str, Any]) -> Key:
        """The rate limiter's key for requests with these parameters."""
        return self.options.model, str(parameters.get("input_type", ""))

    def out_of_time(self, key: Key, message: str) -> DeadlineExceededError:
        """The error of a call whose deadline has passed; `retry_after` says how much longer it would have to wait."""
        return self.gate.known_pause(key).error(self.clock.time(), message)

    def learn_vector_type(self, vector_type: VectorType | None) -> None:
        """Set the vector type from a source other than an answer, unless it is already known."""
        self.vector_type = self.vector_type or vector_type

    def record(self, attempts: Attempts, error: EmbedError | None) -> None:
        """Record the outcome of an attempt in the counters, the retry budget and the contact."""
        self.contact.record(error)
        if error is None or not is_stale_connection(attempts, error):
            self.budget.record(error)

    def end_unaccepted(self, permit: Permit, attempts: Attempts, error: EmbedError | None) -> None:
        """End the permit of an attempt that the service did not accept."""
        if isinstance(error, RateLimitError):
            self.counters.rejections += 1
            pause = permit.rejected(error.message, backoff_after(error, self.options.retry, self.options.draw))
            if pause is not None:
                logger.info("the service's rate limit is reached; all requests under it pause for %.1f s", pause)
        else:
            is_overload = isinstance(error, TransportError) or (isinstance(error, ServiceError) and error.status in OVERLOAD)
            permit.failed(is_overload=is_overload and not is_stale_connection(attempts, error))
