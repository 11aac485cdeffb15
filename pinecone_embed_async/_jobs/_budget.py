"""The token budget of a run, which decides how many more rows it starts. Pure: no files."""

from pinecone_embed_async._planning import estimate_tokens, utf8_length


class TokenBudget:
    """Tokens of a run: those billed, and estimates for the rows in flight.

    One thread asks and another settles; rows not settled yet count by estimate.

    Args:
        most: The most tokens the run may cost, by estimate.
        sequence_length: The most tokens one row can have.
    """

    def __init__(self, most: int, sequence_length: int) -> None:
        self._most = most
        self._sequence_length = sequence_length
        # Written by one thread each: the estimates of the rows begun, and what the bills were above the estimates.
        self._begun = self._above = 0
        self.is_spent = False

    def begins(self, text: str) -> bool:
        """Whether the run may start this row; after the first refusal it starts no more."""
        tokens = self._estimate(text)
        self.is_spent = self.is_spent or self._begun + self._above + tokens > self._most
        if not self.is_spent:
            self._begun += tokens
        return not self.is_spent

    def settle(self, texts: list[str], billed: int) -> None:
        """Record the billed tokens of rows that were started."""
        self._above += billed - sum(map(self._estimate, texts))

    def _estimate(self, text: str) -> int:
        return estimate_tokens(utf8_length(text), self._sequence_length)
