"""Executors that do not do what they are asked to."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class CancellingExecutor(Executor):
    """Cancels all that it is given, as an executor does that is shut down with `cancel_futures=True`."""

    def submit(self, _: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future
