"""Outcomes of inputs, as a planner records them."""

from collections.abc import Sequence

from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._planning import Learned, LearnedLimits, Load, PlannedRequest, RequestLimits
from pinecone_embed_async._results import Dimension, all_steps


class SeenOutcomes(ResultBuilder):
    """The outcomes of a call's inputs, with whatever rows."""

    def __init__(self, count: int) -> None:
        super().__init__(0, count, Dimension(None))

    @property
    def failed_indices(self) -> list[int]:
        return sorted(index for failure in self.failures() for index in failure.indices)

    def __str__(self) -> str:
        """A letter for each input: `e` embedded, `f` failed, `.` not tried."""
        failed = set(self.failed_indices)
        embedded = all_steps(self.finish("m", "sparse")).embedded
        return "".join("e" if done else "f" if index in failed else "." for index, done in enumerate(embedded))


def planned(
    texts: Sequence[str],
    results: ResultBuilder,
    limits: RequestLimits | None = None,
    *,
    positions: Sequence[int] | None = None,
    is_probe: bool = False,
) -> PlannedRequest:
    """One request of these texts, whether or not they fit the limits."""
    limits = limits or RequestLimits(inputs=96, sequence_length=8)
    learned = Learned()
    learned.estimator.bytes_per_token = limits.bytes_per_token
    places = range(len(texts)) if positions is None else positions
    return PlannedRequest(texts, places, Load.of(texts, limits), LearnedLimits(limits, learned), results, is_probe=is_probe)


def span(request: PlannedRequest) -> tuple[int, int]:
    """Where the inputs of a request begin and end; they are contiguous."""
    assert isinstance(request.positions, range)
    return request.positions.start, request.positions.stop
