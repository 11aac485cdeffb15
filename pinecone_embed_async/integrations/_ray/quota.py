"""One quota for all workers of a Ray cluster."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, cast

import ray
import ray.exceptions

from pinecone_embed_async import _checks
from pinecone_embed_async._errors import ConfigurationError, TransportError
from pinecone_embed_async._rate_limit import QuotaDemand, QuotaGrant, QuotaOutcome, limiter_options
from pinecone_embed_async.integrations._ray.quota_server import QuotaServer, Terms

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit import PlanName, Quota, TokenStatistics

CALLS_AT_ONCE = 100_000
"""Most concurrent calls of the actor. Calls that wait for a permit count too, so Ray's default of 1,000 could
block the calls that give back what the others wait for."""

BEATS = 4
"""Heartbeats of a worker per length of a lease."""

STARTS = 5
"""Most restarts of the actor for one request before it fails."""

FIRST_WAIT = 0.2
"""Seconds before the second start, since Ray may not know yet that the actor has ended; doubled each time."""


class _QuotaActor(QuotaServer):
    """The quota server as a Ray actor."""

    def __init__(self, terms: Terms) -> None:
        # A restarted actor does not know what its predecessor granted.
        is_resumed = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(terms, leave=_leave, is_resumed=is_resumed)


def _leave() -> None:
    ray.kill(ray.get_runtime_context().current_actor)


class ClusterQuota:
    """A quota that all workers of a Ray cluster share.

    ```python
    dataset = add_vectors(dataset, "multilingual-e5-large", input_type="passage", quota=ClusterQuota("standard"))
    ```

    It is a handle that can be pickled; pass it as `quota=` to any `EmbedClient` in any worker. Behind it is a named actor
    with a `SharedQuota`: all work of the cluster waits in its queue, and what it learns from one worker's rejection applies
    to all. An unused grant is given back at once. The grants of a dead worker come back after `lease` seconds and count as
    used, because the service may have counted them.

    Creating one starts the actor if there is none yet (and Ray, as Ray's own functions do), and waits for it. The actor
    needs no CPU of the cluster, outlives the job, and ends by itself after a time without requests.

    Args:
        quota: limits, the name of a plan, or `None` for those of the existing actor; a new actor then learns all limits from
            the service's rejections.
        name: the actor's name. Jobs with the same name share the quota.
        namespace: the Ray namespace of the name.
        lease: seconds without a heartbeat after which a worker counts as dead.
        idle: seconds without a request after which the actor ends.

    Raises:
        ConfigurationError: an argument is invalid, or the actor of this name has another quota.
    """

    def __init__(
        self,
        quota: Quota | int | PlanName | None = None,
        *,
        name: str = "quota",
        namespace: str = "pinecone_embed_async",
        lease: float = 20.0,
        idle: float = 600.0,
    ) -> None:
        limiter_options(quota)
        terms = Terms(quota, _checks.seconds("lease", lease), _checks.seconds("idle", idle))
        self._set_up(terms, _checks.text("name", name, least=1), _checks.text("namespace", namespace, least=1))
        found: Terms = self._call("terms")
        if quota is None:
            self._terms = found
        elif found != self._terms:
            raise ConfigurationError(f"the actor {name!r} serves {found}, not {self._terms}; choose another name")

    def _set_up(self, terms: Terms, name: str, namespace: str) -> None:
        self._terms = terms
        self._name = name
        self._namespace = namespace
        self._lock = threading.Lock()
        self._holders: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Holder] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<ClusterQuota {self._name!r} {self._terms.quota!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClusterQuota) and other.__reduce__() == self.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())

    def __reduce__(self) -> tuple[Any, ...]:
        return _joined, (self._terms, self._name, self._namespace)

    def start(self) -> Any:
        """Return the actor, and start it if there is none. Blocks briefly."""
        options = ray.remote(_QuotaActor).options(
            name=self._name,
            namespace=self._namespace,
            # Otherwise it would die with its owner, which may be a worker.
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=CALLS_AT_ONCE,
        )
        return cast("Any", options).remote(self._terms)

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """The known limits and the usage, for each model and input type used so far. Blocks briefly."""
        statistics: tuple[TokenStatistics, ...] = self._call("statistics")
        return statistics

    def _call(self, method: str) -> Any:
        for start in range(STARTS):
            try:
                return ray.get(getattr(self.start(), method).remote())
            except ray.exceptions.RayActorError:
                # It ended at this moment because it was idle.
                time.sleep(FIRST_WAIT * 2**start)
        return ray.get(getattr(self.start(), method).remote())

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        """Wait for permission to send a request.

        Raises:
            TransportError: the actor cannot be reached.
            asyncio.CancelledError: the caller was cancelled; it has no grant then.
            ConfigurationError: `demand` is not a `QuotaDemand`.
        """
        _checks.instance("demand", demand, QuotaDemand)
        loop = asyncio.get_running_loop()
        with self._lock:
            holder = self._holders.get(loop)
            if holder is None:
                holder = self._holders[loop] = _Holder(self, self._terms.lease / BEATS)
        number, tokens = await holder.acquire(demand)
        return QuotaGrant(tokens, (holder, number))

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Report the outcome of a request, exactly once per grant, in the event loop of its `acquire`.

        Raises:
            ConfigurationError: `grant` is not from `acquire`, or `outcome` is not a `QuotaOutcome`.
        """
        _checks.instance("grant", grant, QuotaGrant)
        _checks.instance("outcome", outcome, QuotaOutcome)
        match grant.ticket:
            case _Holder() as holder, int() as number:
                holder.settle(number, outcome)
            case _:
                raise ConfigurationError("grant must come from acquire of this quota, got another ticket")


def _joined(terms: Terms, name: str, namespace: str) -> ClusterQuota:
    """Restore a handle in another process; its actor was started and its terms were checked where it was created."""
    quota = ClusterQuota.__new__(ClusterQuota)
    quota._set_up(terms, name, namespace)  # noqa: SLF001 - same class
    return quota


class _Holder:
    """The grants and waits of one event loop in one process; the actor sees it as one worker.

    Args:
        quota: handle that starts the actor.
        beat: seconds between heartbeats, while something is held or waited for.
    """

    def __init__(self, quota: ClusterQuota, beat: float) -> None:
        self._quota = quota
        self._beat = beat
        self._name = uuid.uuid4().hex
        self._actor: Any = None
        self._next = 0
        self._numbers: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._starting = asyncio.Lock()

    async def acquire(self, demand: QuotaDemand) -> tuple[int, int]:
        """Wait for a grant; return its number and its tokens."""
        number, self._next = self._next, self._next + 1
        self._numbers.add(number)
        if self._timer is None:
            self._set_timer()
        try:
            while (tokens := await self._request(number, demand)) is None:
                # This worker counted as dead: the machine was busy, or the network was down.
                pass
        except BaseException:
            self.settle(number, QuotaOutcome("unused", 0))
            raise
        return number, tokens

    def settle(self, number: int, outcome: QuotaOutcome) -> None:
        """Report to the actor without waiting. If the message is lost, the next heartbeat makes up for it."""
        self._numbers.discard(number)
        self._send("settle", number, outcome)
        if not self._numbers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _request(self, number: int, demand: QuotaDemand) -> int | None:
        problem = ""
        for start in range(STARTS + 1):
            actor = self._actor
            try:
                if actor is None:
                    actor = await self._start(start)
                tokens: int | None = await actor.acquire.remote(self._name, number, demand)
            except ray.exceptions.RayActorError as error:
                # The actor ended because it was idle, or was killed.
                if self._actor is actor:
                    self._actor = None
                problem = _kind(error)
            except ray.exceptions.RayError as error:
                problem = _kind(error)
                break
            else:
                return tokens
        raise TransportError(f"the actor that serves the quota cannot be reached: {problem}")

    async def _start(self, attempt: int) -> Any:
        async with self._starting:
            if self._actor is None:
                if attempt > 1:
                    await asyncio.sleep(FIRST_WAIT * 2 ** (attempt - 2))
                self._actor = await asyncio.to_thread(self._quota.start)
        return self._actor

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._beat, self._renew)

    def _renew(self) -> None:
        self._set_timer()
        self._send("renew", self._next, tuple(self._numbers))

    def _send(self, method: str, *arguments: object) -> None:
        if self._actor is not None:
            # After Ray has shut down, there is no actor left.
            with contextlib.suppress(ray.exceptions.RayError):
                getattr(self._actor, method).remote(self._name, *arguments)


def _kind(error: BaseException) -> str:
    """The first line of Ray's message, which may be pages long."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
