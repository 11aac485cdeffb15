import ast
from pathlib import Path

import pinecone_embed_async.emulator

FOLDER = Path(pinecone_embed_async.emulator.__file__).parent


def test_the_emulator_is_an_independent_reading_of_the_api() -> None:
    imported: set[str] = set()
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(node.module or "")
    own = {name for name in imported if name.startswith("pinecone_embed_async")}
    assert all(name.startswith("pinecone_embed_async.emulator") for name in own)


def test_what_is_public_is_sorted_and_there() -> None:
    public = pinecone_embed_async.emulator.__all__
    constants = [name for name in public if name.isupper()]
    others = [name for name in public if not name.isupper()]
    assert constants == sorted(constants)
    assert [name for name in others if name[0].isupper()] == sorted(name for name in others if name[0].isupper())
    assert all(hasattr(pinecone_embed_async.emulator, name) for name in public)
