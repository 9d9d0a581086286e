"""The records of a run on disk: a line each, whole or not there, whatever happens to the process that writes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from securead.bench import records
from securead.bench.records import Record
from securead.errors import FixConfigurationError, FixInputError, RetryLaterError

RECORDS_FILE = "records.jsonl"


def read_records(folder: Path) -> tuple[Record, ...]:
    """The finished cases below `folder`, each once, in the order in which they ended.

    A last line that a kill cut in half is passed over; any other damage is named with its line.
    """
    return _parse(_content(folder / RECORDS_FILE), folder / RECORDS_FILE)[0]


class Journal:
    """`folder`/records.jsonl, open for one process at a time; `done` holds the record of every finished case by its id.

    Without `resume` the folder has to be new or empty, so that no run is mixed with another's.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.path = folder / RECORDS_FILE
        _refuse_foreign(folder, resume)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RetryLaterError(
                f"cannot open {self.path}: {error.strerror}", remedy="Fix the permission, or choose another --out."
            ) from error
        try:
            self._lock()
            found, end = _parse(_content(self.path), self.path)
            os.ftruncate(self._file, end)  # what follows is half a line, and the next one must not join it
            _sync(folder)
        except BaseException:
            os.close(self._file)
            raise
        self.done: dict[str, Record] = {record.case.id: record for record in found}

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def append(self, record: Record) -> None:
        """Add a finished case; once this returns, neither a kill nor a power cut loses it. A second time: nothing."""
        if record.case.id in self.done:
            return
        line = (records.to_line(record) + "\n").encode()
        end = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "no space left")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)
            raise RetryLaterError(
                f"cannot write {self.path}: {error.strerror}",
                remedy="Finished cases are safe: free space and go on with --resume.",
            ) from error
        self.done[record.case.id] = record

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RetryLaterError(
                f"another run writes into {self.path.parent}", remedy="Let it end, or choose another --out."
            ) from error


def _refuse_foreign(folder: Path, resume: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FixConfigurationError(f"{folder} is no folder", remedy="Choose another --out.")
    if not any(folder.iterdir()):
        return
    if not (folder / RECORDS_FILE).is_file():
        raise FixConfigurationError(
            f"{folder} holds files, but no run of a suite", remedy="Choose another --out, a new or an empty folder."
        )
    if not resume:
        raise FixConfigurationError(
            f"{folder} holds a run already", remedy="Add --resume to go on with it, or choose another --out."
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FixInputError(
            f"cannot read {path}: {error.strerror}", remedy="Give the folder of a run of `securead bench`."
        ) from error


def _parse(content: bytes, path: Path) -> tuple[tuple[Record, ...], int]:
    """The records, and where the last whole line ends."""
    found: dict[str, Record] = {}
    end = 0
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            if not line.endswith(b"\n"):
                raise FixInputError("the line is cut", where=where)
            record = records.from_line(line.decode(errors="replace"), where=where)
        except FixInputError as error:
            if number == len(lines):
                break
            error.remedy = "Remove that line: its case is measured again by --resume."
            raise
        found.setdefault(record.case.id, record)
        end += len(line)
    return tuple(found.values()), end


def _sync(folder: Path) -> None:
    """The file's name itself has to survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
