"""The docstrings of a library's source files, whatever lies among them."""

from pathlib import Path

import pytest

from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async.cli._docstrings import Docstring, read_docstrings


def test_every_docstring_is_named_after_what_it_documents(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text('"""A package."""\n')
    (tmp_path / "json" / "tool.py").write_text(
        'class Tool:\n    """A class."""\n    if True:\n        def use(self):\n            """A method."""\n'
    )
    assert read_docstrings(tmp_path) == [
        Docstring("json", "A package."),
        Docstring("json.tool:Tool", "A class."),
        Docstring("json.tool:Tool.use", "A method."),
    ]


def test_files_that_are_no_python_or_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "abc.py").write_text("def {{ name }}:\n")
    (tmp_path / "ast.py").write_bytes(b'"""\xff"""\n')
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "gone.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "cmd.py").write_text('"""Whole."""\n')
    assert read_docstrings(tmp_path) == [Docstring("cmd", "Whole.")]


def test_a_python_without_sources_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no sources of the standard library here"):
        read_docstrings(tmp_path)
