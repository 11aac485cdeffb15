"""Layouts of the files that an index imports, and checks of the chosen one. Pure: no files.

The service's page on importing data (https://docs.pinecone.io/guides/index-data/import-data) asks for a directory for each
namespace, `__default__` for the default one. Each holds JSON lines for a document index and, for a legacy vector index
(https://docs.pinecone.io/guides/legacy/vectors-api/import-vectors), Parquet files with the columns of
`_exports.vectors_of`.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from pinecone_embed_async._errors import ConfigurationError

DEFAULT_NAMESPACE = "__default__"

ID = "_id"
"""The id field of a document."""


class LayoutName(StrEnum):
    """What a job's folder holds."""

    TABLE = "table"
    DOCUMENTS = "documents"
    VECTORS = "vectors"


class Layout(Struct, frozen=True):
    """The files written beside a job's table for an index to import.

    Attributes:
        name: Which files.
        namespace: The index's namespace, and the name of the files' folder.
        vector_field: The vector field of a document.
    """

    name: LayoutName
    namespace: str = DEFAULT_NAMESPACE
    vector_field: str = "vector"

    @property
    def suffix(self) -> str:
        """The suffix of the files."""
        return ".jsonl" if self.name is LayoutName.DOCUMENTS else ".parquet"


def check_layout(layout: Layout, keep: Iterable[str]) -> None:
    """Check that a layout can be written.

    Raises:
        ConfigurationError: The namespace cannot be the name of the files' folder, or a document would have two fields of one
            name or a field whose name is not allowed.
    """
    name = layout.namespace
    is_default = name == DEFAULT_NAMESPACE
    if not re.fullmatch(r"[!-.0-~]{1,100}", name) or (name[0] in "._" and not is_default) or name.startswith("part-"):
        raise ConfigurationError(
            f"--namespace must be {DEFAULT_NAMESPACE}, or 1 to 100 printable ASCII characters without blanks or /, not "
            f"beginning with ., _ or part-, got {name!r}"
        )
    if layout.name is LayoutName.DOCUMENTS:
        taken = {ID, layout.vector_field}
        if len(taken) == 1 or not layout.vector_field or layout.vector_field.startswith(("_", "$")):
            raise ConfigurationError(
                f"--vector-field must be a non-empty field name that does not begin with _ or $, got {layout.vector_field!r}"
            )
        for field in keep:
            if field in taken or field.startswith(("_", "$")):
                raise ConfigurationError(
                    f"--keep {field}: a document already has the fields _id and {layout.vector_field}, and other fields "
                    "must not begin with _ or $"
                )
