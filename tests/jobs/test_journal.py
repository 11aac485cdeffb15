import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pinecone_embed_async._jobs._journal import Journal, Span, scan

CONTENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=5)
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, contents: list[bytes]) -> list[int]:
    """Write a journal and give where each record ends."""
    path.unlink(missing_ok=True)
    ends = [0]
    with Journal(path) as journal:
        for content in contents:
            journal.append(content)
            ends.append(journal.size)
        journal.sync()
    return ends


def read(path: Path, spans: list[Span]) -> list[bytes]:
    data = path.read_bytes()
    return [data[start : start + length] for start, length in spans]


@FILES
@given(contents=CONTENTS)
def test_what_was_appended_is_found_again(tmp_path: Path, contents: list[bytes]) -> None:
    path = tmp_path / "journal"
    ends = write(path, contents)
    found = scan(path)
    assert read(path, found.spans) == contents
    assert (found.end, found.damaged) == (ends[-1], [])
    assert all(span.start % 8 == 0 for span in found.spans)


@FILES
@given(contents=CONTENTS, more=st.binary(max_size=20))
@example(contents=[b"a", b"PEJ1PEJ1"], more=b"")
def test_a_record_torn_anywhere_is_cut_off_and_the_others_stay(tmp_path: Path, contents: list[bytes], more: bytes) -> None:
    path = tmp_path / "journal"
    ends = write(path, contents)
    whole = path.read_bytes()
    for cut in range(ends[-2], ends[-1]):
        path.write_bytes(whole[:cut])
        with Journal(path) as journal:
            assert read(path, journal.found.spans) == contents[:-1]
            assert path.stat().st_size == ends[-2]
            journal.append(more)
        assert read(path, scan(path).spans) == [*contents[:-1], more]


@FILES
@given(contents=CONTENTS, tail=st.integers(1, 100))
def test_zeros_that_a_power_cut_has_left_are_cut_off(tmp_path: Path, contents: list[bytes], tail: int) -> None:
    path = tmp_path / "journal"
    ends = write(path, contents)
    with path.open("ab") as file:
        file.write(bytes(tail))
    with Journal(path) as journal:
        assert journal.size == ends[-1] == path.stat().st_size


@FILES
@given(contents=st.lists(st.binary(min_size=1, max_size=40), min_size=2, max_size=5), data=st.data())
def test_a_changed_byte_costs_its_record_alone(tmp_path: Path, contents: list[bytes], data: st.DataObject) -> None:
    path = tmp_path / "journal"
    ends = write(path, contents)
    damaged = data.draw(st.integers(0, len(contents) - 2))
    at = data.draw(st.integers(ends[damaged], ends[damaged] + 16 + len(contents[damaged]) - 1))
    whole = bytearray(path.read_bytes())
    whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    found = scan(path)
    assert read(path, found.spans) == contents[:damaged] + contents[damaged + 1 :]
    assert found.damaged == [(ends[damaged], ends[damaged + 1])]


def test_a_disk_that_is_full_is_told_and_leaves_the_records_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ends = write(path, [b"kept"])
    with Journal(path) as journal:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._file.fileno())
        os.close(full)
        with pytest.raises(OSError, match="No space left on device"):
            journal.append(b"lost")
    assert scan(path).end == ends[-1]
