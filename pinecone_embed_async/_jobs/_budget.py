"""How many tokens a run may cost: which rows it still begins. Plain decisions, no files."""

from pinecone_embed_async._planning import estimate_tokens, utf8_length


class TokenBudget:
    """A run's tokens: billed, and estimated for the rows under way.

    One thread asks, another settles; what is settled late only ends the run earlier.

    Args:
        most: The most that the run may cost, as far as estimates tell.
        sequence_length: The most tokens of one row.
    """

    def __init__(self, most: int, sequence_length: int) -> None:
        self._most = most
        self._sequence_length = sequence_length
        self._billed = self._begun = self._ended = 0
        self.is_spent = False

    def begins(self, text: str) -> bool:
        """Whether a row may be begun; once one may not, none is."""
        tokens = self._estimate(text)
        self.is_spent = self.is_spent or self._billed + self._begun - self._ended + tokens > self._most
        if not self.is_spent:
            self._begun += tokens
        return not self.is_spent

    def settle(self, texts: list[str], billed: int) -> None:
        """Note the bill for rows that were begun."""
        self._billed += billed
        self._ended += sum(map(self._estimate, texts))

    def _estimate(self, text: str) -> int:
        return estimate_tokens(utf8_length(text), self._sequence_length)
