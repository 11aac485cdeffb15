"""The base of structs that show none of their fields."""

import msgspec


class SilentStruct(msgspec.Struct, eq=False):
    """A struct whose fields, which may hold texts or the key, are shown neither by `repr` nor by rich."""

    __repr__ = object.__repr__
    # In tracebacks with local variables, rich shows what this method of structs returns.
    __rich_repr__ = None  # type: ignore[assignment]
