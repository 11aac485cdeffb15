"""Check a commit message: a subject of at most 72 characters and, if there is a body, an empty line before it.

python scripts/commit_message.py .git/COMMIT_EDITMSG
"""

import sys
from pathlib import Path

LONGEST = 72
"""Characters; `git log --oneline` and GitHub cut longer subjects."""
NOT_OURS = ("fixup! ", "squash! ", "amend! ", "Merge ", "Revert ")
"""Prefixes that git writes itself, followed by another commit's subject."""


def faults_of(message: str) -> list[str]:
    """The faults of a message as git passes it to the hook, with comments and a diff after the scissors line."""
    written, _, _ = message.partition("# ------------------------ >8 ------------------------")
    lines = [line.rstrip() for line in written.splitlines() if not line.startswith("#")]
    while lines and not lines[0]:
        del lines[0]
    if not lines:
        return []  # git itself refuses an empty message
    subject, *rest = lines
    if subject.startswith(NOT_OURS):
        return []
    faults = []
    if len(subject) > LONGEST:
        faults.append(
            f"the subject must have at most {LONGEST} characters, got {len(subject)}; give the reasons in the body"
        )
    if subject.endswith("."):
        faults.append("the subject must not end with a full stop")
    if rest and rest[0]:
        faults.append("the subject must be followed by an empty line")
    return faults


def main() -> None:
    """Print the faults; the exit status is 1 if there are any."""
    faults = faults_of(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for fault in faults:
        print(f"commit message: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
