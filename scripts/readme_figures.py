"""Copy the figures that README shows from docs/benchmarks.md, where `make bench-docs` has written them.

python scripts/readme_figures.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- figures of docs/benchmarks.md: begin -->\n", "<!-- figures of docs/benchmarks.md: end -->\n"
LOAD = "dense-1024-half"
NAMES = {
    "EmbedClient (msgspec)": "this one, default install",
    "EmbedClient [fast] (simdjson)": "this one, `[fast]`",
    "official SDK, to float32": "official `pinecone` SDK, to float32",
    "baseten, batch_post": "`baseten-performance-client`, `batch_post`",
    "by hand: aiohttp + json": "by hand: aiohttp and `json`",
}
COLUMNS = ("inputs/s (min–max)", "× SDK", "CPU µs/input", "lag p99, ms", "memory, MB")
UNRELIABLE = "not figures to rely on"


def main() -> None:
    """Write README anew."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{figures((ROOT / 'docs' / 'benchmarks.md').read_text())}\n{END}{after}")


def figures(page: str) -> str:
    """What README shows of the page of benchmarks.

    Raises:
        KeyError: the page has no such column or competitor.
    """
    block, machine = block_of(page, LOAD), block_of(page, "machine")
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line[:1] == "|"
    ]
    places = {column: place for place, column in enumerate(header)}
    measured = {row[0]: row for row in rows}
    settings = re.sub(r"^.*?: |:$", "", next(line for line in block.splitlines() if line and line[0] != "|"))
    lines = [
        f"{settings}{'; the machine had other work to do, these are ' + UNRELIABLE if UNRELIABLE in machine else ''}:",
        "",
        f"| client | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for name, title in NAMES.items():
        lines.append(f"| {title} | {' | '.join(measured[name][places[column]] for column in COLUMNS)} |")
    return "\n".join(lines) + "\n"


def block_of(page: str, name: str) -> str:
    """The part of the page that the benchmarks write under this name."""
    return page.partition(f"<!-- benchmarks: {name} -->")[2].partition("<!-- benchmarks: end -->")[0]


if __name__ == "__main__":
    main()
