"""Layouts of the files that an index imports: which there are, and what may be chosen. Plain decisions.

The service's page on importing data (https://docs.pinecone.io/guides/index-data/import-data) says: a directory for each
namespace, `__default__` for the default one; in it JSON lines for a document index, and for a legacy vector index
(https://docs.pinecone.io/guides/legacy/vectors-api/import-vectors) Parquet files with the columns
that `_exports.vectors_of` gives.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from pinecone_embed_async._errors import ConfigurationError

DEFAULT_NAMESPACE = "__default__"

ID = "_id"
"""A document's field of its id."""


class LayoutName(StrEnum):
    """What a job's folder holds."""

    TABLE = "table"
    DOCUMENTS = "documents"
    VECTORS = "vectors"


class Layout(Struct, frozen=True):
    """The files beside a job's table.

    Attributes:
        name: Which ones.
        namespace: The namespace of the index, and the name of their folder.
        vector_field: The field of the vector in documents.
    """

    name: LayoutName
    namespace: str = DEFAULT_NAMESPACE
    vector_field: str = "vector"

    @property
    def suffix(self) -> str:
        """The suffix of its files."""
        return ".jsonl" if self.name is LayoutName.DOCUMENTS else ".parquet"


def check_layout(layout: Layout, keep: Iterable[str]) -> None:
    """Check that a layout can be written.

    Raises:
        ConfigurationError: The namespace cannot be a folder, or two fields of a document have one name.
    """
    name = layout.namespace
    is_default = name == DEFAULT_NAMESPACE
    if not re.fullmatch(r"[!-.0-~]{1,100}", name) or (name[0] in "._" and not is_default) or name.startswith("part-"):
        raise ConfigurationError(
            f"--namespace must be 1 to 100 ASCII characters without blanks and /, not beginning with . or _, got {name!r}"
        )
    if layout.name is LayoutName.DOCUMENTS:
        taken = {ID, layout.vector_field}
        if len(taken) == 1 or not layout.vector_field or layout.vector_field.startswith(("_", "$")):
            raise ConfigurationError(
                f"--vector-field must be a field's name not beginning with _ or $, got {layout.vector_field!r}"
            )
        for field in keep:
            if field in taken or field.startswith(("_", "$")):
                raise ConfigurationError(
                    f"--keep {field}: a document has _id and {layout.vector_field} of its own, and its fields do not begin "
                    "with _ or $"
                )
