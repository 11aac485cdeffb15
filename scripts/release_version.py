"""Check that a tag, `_version.py` and the newest dated section of CHANGELOG.md name the same version.

python scripts/release_version.py v0.2.0
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def version_of_the_package() -> str:
    """The version in `_version.py`, read without importing the package, whose dependencies may be missing."""
    (found,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "pinecone_embed_async/_version.py").read_text(), re.MULTILINE)
    return str(found)


def version_of_the_changelog() -> str:
    """The version of the first section that has a date."""
    found = re.search(
        r"^## \[(\d\S*)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else "none"


def main() -> None:
    """Exit with an error if the versions differ."""
    tag = sys.argv[1]
    package, changelog = version_of_the_package(), version_of_the_changelog()
    if not tag.removeprefix("v") == package == changelog:
        raise SystemExit(f"the versions must be equal: tag {tag}, _version.py {package}, CHANGELOG.md {changelog}")
    print(package)


if __name__ == "__main__":
    main()
