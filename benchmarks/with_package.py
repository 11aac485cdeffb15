"""Run a module of these benchmarks with the package of another checkout.

    python -m benchmarks.with_package CHECKOUT MODULE ARGUMENT...

Started by `harness.run_module`. Only the package comes from the checkout, and is imported first; the benchmarks are these.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

PACKAGE = "pinecone_embed_async"


def is_checkout(folder: Path) -> bool:
    """Return whether a folder has the package."""
    return (folder / PACKAGE / "__init__.py").is_file()


def import_package(checkout: str) -> None:
    """Import the package from a checkout. Nothing else there can be imported, not even its benchmarks.

    Raises:
        ImportError: The package came from elsewhere.
    """
    sys.path.insert(0, checkout)
    try:
        package = importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(checkout)
    if package.__file__ is None or not Path(package.__file__).samefile(Path(checkout, PACKAGE, "__init__.py")):
        raise ImportError(f"{PACKAGE} came from {package.__file__}, not from {checkout}")


if __name__ == "__main__":
    _, checkout_, module, *arguments = sys.argv
    import_package(checkout_)
    sys.argv = [module, *arguments]
    runpy.run_module(f"benchmarks.{module}", run_name="__main__", alter_sys=True)
