"""The version, in one place for the build and for the `User-Agent` header."""

__version__ = "0.2.0"
