"""An event loop that counts its steps, and does what a test asks before the n-th of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _CountedSteps(deque[Any]):
    """The loop's callbacks that are ready; each one taken out is a step."""

    def __init__(self, loop: SteppingLoop) -> None:
        super().__init__()
        self._loop = loop

    def popleft(self) -> Any:
        self._loop.step()
        return super().popleft()


class SteppingLoop(asyncio.SelectorEventLoop):
    """Counts every callback that it runs, a task's step being one, whatever the time; and its clock can be put forward.

    Attributes:
        steps: callbacks run so far.
        said: what was reported to the loop's exception handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ready = _CountedSteps(self)
        self._due: int | None = None
        self._action: Callable[[], object] | None = None
        self._ahead = 0.0
        self.steps = 0
        self.said: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.said.append(context))

    def time(self) -> float:
        return super().time() + self._ahead

    def put_forward(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self._ahead += seconds

    def before_step(self, number: int, action: Callable[[], object]) -> None:
        """Call `action` before the `number`-th step from now, from 1."""
        self._due, self._action = self.steps + number, action

    def forget(self) -> bool:
        """Call off what is asked for; says whether it has not happened."""
        pending, self._action = self._action is not None, None
        return pending

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._due and self._action is not None:
            action, self._action = self._action, None
            action()

    def timers(self) -> list[str]:
        """The names of what is to be called at some time."""
        handles: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return sorted(_name(handle) for handle in handles if not handle.cancelled())


def _name(handle: asyncio.TimerHandle) -> str:
    callback: Any = handle._callback  # type: ignore[attr-defined]
    while hasattr(callback, "func"):
        callback = callback.func
    return str(getattr(callback, "__qualname__", callback))
