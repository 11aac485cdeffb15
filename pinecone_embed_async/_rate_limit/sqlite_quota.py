"""A quota in a file, shared by several processes of a machine."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any, cast

from pinecone_embed_async import _checks
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._rate_limit.quota import Quota, QuotaDemand, QuotaGrant, QuotaOutcome, limiter_options
from pinecone_embed_async._rate_limit.quota_clerk import QuotaClerk
from pinecone_embed_async._rate_limit.quota_ledger import End
from pinecone_embed_async._rate_limit.rejections import named_limit
from pinecone_embed_async._sqlite import file_path
from pinecone_embed_async._threads import in_thread

if TYPE_CHECKING:
    from typing import Self

    from pinecone_embed_async._rate_limit.quota import PlanName, TokenStatistics


class SqliteQuota:
    """One quota that several processes of a machine share: workers of a service, several jobs, a job beside a service.

    ```python
    quota = SqliteQuota("quota.db", "standard")
    client = EmbedClient("multilingual-e5-large", quota=quota)
    ```

    All work of all processes waits in one queue, as with `SharedQuota`: interactive work goes before bulk work, calls of one
    priority share evenly, and all processes know what one of them learns from a rejection. One object serves any number of
    clients, event loops and threads of its process. After a fork, the child counts as a separate process. A pickled quota
    opens the file again where it is unpickled.

    If a process dies, grants that it had not received come back at once; the others may have been used and count for one
    window. The file becomes void when the machine reboots. It needs a local file system, Linux or macOS, and the same
    `quota` and version of this package in all processes. While no process uses it, a process with another quota or version
    may take it over, which grants nothing until a window after the last use. The file is readable by its owner only, and
    holds no texts.

    The file is opened on first use, in a thread, and again after `aclose`.

    Args:
        path: path of the file, in an existing folder; up to three more files are beside it, with `-lock`, `-wal` and `-shm`
            appended.
        quota: a `Quota`, tokens per minute, the name of a plan, or `None` to learn everything from the service's rejections.

    Raises:
        ConfigurationError: `quota` is none of these, the folder does not exist, or the path cannot be a file.
    """

    def __init__(self, path: str | os.PathLike[str], quota: Quota | int | PlanName | None = None) -> None:
        self._path = file_path(path)
        limiter_options(quota)
        tokens = _checks.as_integer(quota)
        self._quota = cast("Quota | PlanName | None", quota) if tokens is None else Quota(tokens)
        # By process, because forked children inherit the object.
        self._clerks: dict[int, QuotaClerk] = {}

    def __repr__(self) -> str:
        return f"<SqliteQuota {str(self._path)!r} {self._quota!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return SqliteQuota, (self._path, self._quota)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        """Wait for the right to send a request.

        Raises:
            asyncio.CancelledError: the caller was cancelled and has no grant.
            ClosedError: the quota was closed meanwhile.
            DeadlineExceededError: no grant can come `within` the time of the demand, because a pause lasts longer.
            ConfigurationError: `demand` is not a QuotaDemand; the file is another program's, a link, corrupted or removed;
                or other processes use it with another quota or version of this package.
            sqlite3.Error: the file cannot be written: the disk is full, or another process has locked it for five seconds.
            OSError: the same.
        """
        _checks.instance("demand", demand, QuotaDemand)
        clerk = self._own()
        wait = clerk.ask(demand)
        try:
            tokens: int = await wait.future
        except BaseException:
            # Also when the garbage collector closes a coroutine whose event loop was closed, not only on cancellation.
            if not wait.has_failed:
                clerk.end(End(wait.number, "unused"))
            raise
        return QuotaGrant(tokens, (clerk, wait.number))

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Report the outcome of a request, exactly once per grant, in the process that called `acquire`.

        A thread writes the outcomes in order, and by `aclose` at the latest. If the process is killed before that, the
        request counts as billed for one window.

        Raises:
            ConfigurationError: `grant` was not returned by `acquire`, or `outcome` is not a QuotaOutcome or cannot be
                written.
        """
        _checks.instance("grant", grant, QuotaGrant)
        _checks.instance("outcome", outcome, QuotaOutcome)
        match grant.ticket:
            case QuotaClerk() as clerk, int() as number:
                # Only the limit, because the file must not hold any message of the service.
                named = named_limit(outcome.message)
                clerk.end(End(number, outcome.kind, outcome.tokens, named, outcome.retry_after, random.random()))
            case _:
                raise ConfigurationError("grant must be one that this quota's acquire returned, got one with another ticket")

    async def statistics(self) -> tuple[TokenStatistics, ...]:
        """Limits and usage of each model and input type, by all processes.

        Raises:
            ClosedError, ConfigurationError, sqlite3.Error, OSError: as `acquire`.
        """
        statistics: tuple[TokenStatistics, ...] = await self._own().look().future
        return statistics

    async def aclose(self) -> None:
        """Write all outcomes and close the file; waiting calls fail with `ClosedError`."""
        clerk = self._clerks.pop(os.getpid(), None)
        if clerk is not None:
            await in_thread(clerk.close)

    def _own(self) -> QuotaClerk:
        """The clerk of this process."""
        # The parent's clerk is kept, because SQLite forbids using or closing its connection in a forked child.
        process = os.getpid()
        return self._clerks.get(process) or self._clerks.setdefault(process, QuotaClerk(self._path, self._quota))
