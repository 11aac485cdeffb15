"""Outcomes of inputs, as a planner records them."""

from pinecone_embed_async import EmbedError
from pinecone_embed_async._calls import Outcomes
from pinecone_embed_async._planning import PlannedRequest


class SeenOutcomes:
    """Records the outcomes of a call's inputs.

    Attributes:
        account: outcome of each input.
    """

    def __init__(self, count: int) -> None:
        self.account = Outcomes(count)

    def embedded(self, request: PlannedRequest) -> None:
        for start, stop in request.runs:
            self.account.embedded(start, stop)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        for start, stop in request.runs:
            self.account.failed(start, stop, error)

    @property
    def failed_indices(self) -> list[int]:
        return [index for failure in self.account.failures() for index in failure.indices]

    def __str__(self) -> str:
        """A letter for each input: `e` embedded, `f` failed, `.` not tried."""
        failed = set(self.failed_indices)
        mask = self.account.embedded_mask()
        return "".join("e" if done else "f" if index in failed else "." for index, done in enumerate(mask))
