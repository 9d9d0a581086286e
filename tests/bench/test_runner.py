"""Runs of suites: what has finished is never lost, nothing is measured twice, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from securead import codec
from securead.bench import journal, measure, provenance, records, runner
from securead.bench.records import Case, Record
from securead.errors import FixConfigurationError, FixInputError, RetryLaterError

STUB = (sys.executable, str(Path(__file__).with_name("stub_case.py")))
# A runner that can be killed; it says when a case has ended.
RUNNER = """
import json, sys
from pathlib import Path
from securead import codec
from securead.bench import runner
from securead.bench.records import Case

class Watch:
    def started(self, case, **_): ...
    def finished(self, record, **_): print(record.case.id, flush=True)

cases = [codec.from_plain(Case, plain, where="case") for plain in json.loads(sys.argv[1])]
options = json.loads(sys.argv[3])
runner.run(cases, Path(sys.argv[2]), place=runner.Place(), watch=Watch(), command=sys.argv[4:], **options)
"""


class Heard:
    """What a run said."""

    def __init__(self) -> None:
        self.started_ids: list[str] = []
        self.ended: list[tuple[str, int, int, float | None]] = []

    def started(self, case: Case, *, done: int, total: int, left: float | None) -> None:
        self.started_ids.append(case.id)

    def finished(self, record: Record, *, done: int, total: int, left: float | None) -> None:
        self.ended.append((record.case.id, done, total, left))


def case(seed: int = 0, *, threads: int = 1, **parameters: float | int | str | bool) -> Case:
    return Case("suite", "score", "data", "forest", tuple(parameters.items()), seed=seed, threads=threads)


def record_of(one: Case, **changes: object) -> Record:
    return dataclasses.replace(Record(one, provenance.collect()), **changes)  # type: ignore[arg-type]


def go(cases: list[Case], folder: Path, **options: object) -> tuple[tuple[Record, ...], Heard]:
    heard = Heard()
    options = {"place": runner.Place(), "watch": heard, "command": STUB, **options}
    return runner.run(cases, folder, **options), heard  # type: ignore[arg-type]


def started(cases: list[Case], folder: Path, **options: object) -> subprocess.Popen[str]:
    plain = json.dumps([codec.to_plain(one) for one in cases])
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, plain, str(folder), json.dumps(options), *STUB],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def gone(pid: int, patience: float = 20.0) -> bool:
    end = time.monotonic() + patience
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_alive(pid)


def test_every_case_has_a_record_in_order_and_on_disk(tmp_path: Path) -> None:
    cases = [case(0), case(1, end="absent"), case(2, threads=2)]
    found, heard = go(cases, tmp_path / "run", place=runner.Place(data=tmp_path), suite="mine")
    assert [record.case for record in found] == cases
    assert journal.read_records(tmp_path / "run") == found
    assert found[0].rows == 7
    assert found[0].seconds > 0
    assert "threads 1" in found[0].notes
    assert "threads 2" in found[2].notes
    assert (found[1].missing, found[1].failures) == ("the engine is not here. Install it.", ())
    assert str(tmp_path) not in (tmp_path / "run" / journal.RECORDS_FILE).read_text(), "paths are nobody's business"
    assert f"data {tmp_path.name}" in found[0].notes
    assert [(done, total) for _, done, total, _ in heard.ended] == [(1, 3), (2, 3), (3, 3)]
    assert heard.ended[-1][3] == 0
    environment = json.loads((tmp_path / "run" / runner.ENVIRONMENT_FILE).read_text())
    assert (environment["suite"], environment["cases"], environment["cores"]) == ("mine", 3, provenance.cores())
    assert environment["versions"]["numpy"]


def test_a_case_that_ends_badly_costs_itself_alone(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    cases = [
        case(0, end="crash"),
        case(1, end="killed"),
        case(2, end="silent"),
        case(3, sleep=600.0, child=str(pid)),
        case(4),
    ]
    found, _ = go(cases, tmp_path / "run", limits={cases[3].id: 6.0}, jobs=2)
    said = [record.missing for record in found]
    assert said[0] == "crashed: ZeroDivisionError: no luck with records.npz"
    assert said[1].startswith("crashed: ended by SIGKILL, as the system does when memory runs out")
    assert said[2] == "crashed: it ended without a record"
    assert said[3] == "took over 6 s"
    assert [record.failures for record in found] == [(what,) if what else () for what in said]
    assert gone(int(pid.read_text())), "what a case started ends with it"
    assert found[4].rows == 7
    assert "up to 2 cases ran at once" in found[4].notes


def test_a_killed_run_goes_on_and_has_every_record_once(tmp_path: Path) -> None:
    folder, log, pid = tmp_path / "run", tmp_path / "log", tmp_path / "pid"
    quick = [case(seed, log=str(log)) for seed in range(3)]
    slow = case(9, sleep=600.0, log=str(log), child=str(pid))
    killed = started([*quick[:2], slow, quick[2]], folder)
    assert killed.stdout is not None
    assert [killed.stdout.readline().strip() for _ in range(2)] == [one.id for one in quick[:2]]
    while not pid.exists() or not pid.read_text():
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert gone(int(log.read_text().split()[-1])), "the case under way ends with the runner"
    assert gone(int(pid.read_text())), "and so does what it started"
    path = folder / journal.RECORDS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 3])  # what a kill within a write leaves
    with pytest.raises(FixConfigurationError, match=r"holds a run already.*--resume"):
        go([*quick], folder)
    found, heard = go(quick, folder, resume=True)
    assert heard.started_ids == [quick[2].id], "what has a record is not measured again"
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["case"]["seed"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert [record.case for record in found] == quick
    assert len(log.read_text().splitlines()) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_has_finished(tmp_path: Path, number: signal.Signals) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    running = started([case(0), case(1, sleep=600.0, log=str(log))], folder)
    assert running.stdout is not None
    running.stdout.readline()
    while not log.exists() or not log.read_text():
        time.sleep(0.02)
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert running.returncode != 0
    assert said.strip().endswith("KeyboardInterrupt")
    assert not is_alive(int(log.read_text().split()[-1]))
    assert [record.case.seed for record in journal.read_records(folder)] == [0]


def test_jobs_run_at_once_and_what_uses_several_cores_runs_alone(tmp_path: Path) -> None:
    class Together(Heard):
        def __init__(self) -> None:
            super().__init__()
            self.now: set[str] = set()
            self.seen: list[set[str]] = []

        def started(self, case: Case, *, done: int, total: int, left: float | None) -> None:
            self.now.add(case.id)
            self.seen.append(set(self.now))

        def finished(self, record: Record, *, done: int, total: int, left: float | None) -> None:
            self.now.remove(record.case.id)

    watch = Together()
    cases = [case(0, sleep=0.3), case(1, sleep=0.3), case(2, threads=0), case(3)]
    found, _ = go(cases, tmp_path / "run", jobs=2, watch=watch)
    assert len(found) == 4
    assert watch.seen[:2] == [{cases[0].id}, {cases[0].id, cases[1].id}]
    assert watch.seen[2:] == [{cases[2].id}, {cases[3].id}]


def test_a_folder_that_is_no_run_of_a_suite_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(FixConfigurationError, match="no run of a suite"):
            journal.Journal(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_runs_never_write_into_one_folder(tmp_path: Path) -> None:
    with journal.Journal(tmp_path, resume=False), pytest.raises(RetryLaterError, match="another run writes"):
        journal.Journal(tmp_path, resume=True)
    journal.Journal(tmp_path, resume=True).__exit__(None, None, None)


def test_a_record_is_appended_once_and_damage_is_named(tmp_path: Path) -> None:
    first, second = record_of(case(0)), record_of(case(1, name="ä"), rows=3)
    with journal.Journal(tmp_path, resume=False) as open_journal:
        for record in (first, first, second):
            open_journal.append(record)
    assert journal.read_records(tmp_path) == (first, second)
    path = tmp_path / journal.RECORDS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (b"\0" * 40, lines[1][:-1], lines[1][:30], b"{}\n"):
        path.write_bytes(lines[0] + damaged)
        assert journal.read_records(tmp_path) == (first,)
        with journal.Journal(tmp_path, resume=True) as open_journal:
            open_journal.append(second)
        assert path.read_bytes() == b"".join(lines)
    path.write_bytes(b"{}\n" + lines[1])
    with pytest.raises(FixInputError, match=r"records\.jsonl:1.*Remove that line"):
        journal.Journal(tmp_path, resume=True)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with journal.Journal(tmp_path, resume=False) as open_journal:
        open_journal.append(record_of(case(0)))
        monkeypatch.setattr(os, "write", lambda number, content: write(number, content[:50]))
        with pytest.raises(RetryLaterError, match=r"no space left.*--resume"):
            open_journal.append(record_of(case(1)))
    assert (tmp_path / journal.RECORDS_FILE).read_text().count("\n") == 1


def test_the_time_left_is_told_from_the_likest_cases(tmp_path: Path) -> None:
    slow = Case("s", "score", "d", "forest", engine="bfv", role="same")
    fast, other = (dataclasses.replace(slow, engine=engine) for engine in ("ckks", "sharing"))
    forecast = runner.Forecast([slow, fast], [record_of(slow, seconds=10.0), record_of(other, seconds=1e6)])
    assert forecast.of(dataclasses.replace(slow, seed=1)) == 10.0
    assert forecast.of(fast) == 10.0, "of the same kind, while nothing better is known; other suites' do not count"
    forecast.learn(record_of(fast, seconds=2.0))
    assert forecast.of(dataclasses.replace(fast, dataset="e")) == 2.0
    waiting = [dataclasses.replace(slow, seed=1), dataclasses.replace(fast, seed=1)]
    assert forecast.left(waiting, [], 2) == 6.0
    assert runner.Forecast([slow]).left(waiting, [], 1) is None


def test_a_case_by_hand_needs_no_runner() -> None:
    order = {"case": {"suite": "", "kind": "score", "dataset": "d", "detector": "forest", "threads": 2}}
    ended = subprocess.run(STUB, input=json.dumps(order), capture_output=True, text=True, check=True)
    record = records.from_line(ended.stdout, where="record")
    assert (record.rows, record.notes[0]) == (7, "threads 2")
    assert "no record" in ended.stderr
    refused = subprocess.run(STUB, input='{"case": 1}', capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "order.case: expected a table" in refused.stderr


def test_all_cores_means_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "cores", lambda: 24)
    assert measure.environment(case(threads=0), None)["NUMBA_NUM_THREADS"] == "24"
    assert measure.environment(case(threads=3), Path("d"))["OMP_NUM_THREADS"] == "3"


def test_provenance_says_what_and_not_whose() -> None:
    made = provenance.collect("digest")
    assert made.program == "digest"
    assert dict(made.versions)["python"].startswith("3.")
    assert made.machine
    home = os.path.join(os.sep, "home", "ann")
    for text, cut in (
        (f"no file {home}/data/cardio.npz.", "no file cardio.npz."),
        (f"'{home}/a b'", "'a b'"),
        ("see https://example.org/a/b and and/or, 3 kB/s, ../x/y", "see https://example.org/a/b and and/or, 3 kB/s, y"),
        (f"{home}/", "(a folder)"),
    ):
        assert provenance.without_paths(text) == cut
