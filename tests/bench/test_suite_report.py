"""A suite's report on made-up records: findings follow the numbers, exports give records back, names stay text."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from suite_records import PLACE, peer, scored, suite, trained

from securead.bench import threads
from securead.bench.exports import read_csv
from securead.bench.findings import Finding, findings
from securead.bench.measured import again, row_bytes, row_seconds, settings, sorted_out, told_apart
from securead.bench.pareto import frontier
from securead.bench.records import Accuracy, Case, Fidelity, Record, Spread
from securead.bench.report_page import write_suite_report
from securead.bench.scaling import all_series, fit
from securead.bench.signs import log_ticks
from securead.bench.wording import number
from securead.errors import FixInputError

COMMAND = "securead bench quick --out bench-output"
HOSTILE = "<script>alert('x')</script>\"&amp;`|*<img src=http://evil.example/x onerror=y>\n\x00\ud800"


def about(records: Sequence[Record], topic: str) -> list[Finding]:
    return [one for one in findings(records) if one.topic == topic]


def failed(record: Record) -> Record:
    return replace(record, failures=("bytes were not counted",))


# --- reading records


def test_each_record_is_measured_failed_or_missing() -> None:
    one, absent = scored(), Record(Case("s", "peer", "d", "forest", peer="spu"), PLACE, missing="not installed")
    crashed = replace(absent, missing="crashed: signal 9", failures=("crashed: signal 9",))
    found = sorted_out([one, absent, crashed, failed(one)])
    assert [len(found.measured), len(found.missing), len(found.failed)] == [1, 1, 2]


def test_of_several_links_and_threads_the_plainest_stands() -> None:
    records = [scored(link="wan"), scored(threads=0, factor=0.5), scored(), scored(seed=1, factor=2.0)]
    (one,) = settings(records)
    assert [record.case.link for record in one.records] == ["loopback", "loopback"]
    assert one.seconds == pytest.approx(1.5 * 226e-6)
    assert len(settings(records, every_link=True)) == 3


def test_the_frontier_keeps_what_nothing_betters() -> None:
    assert frontier([(3, 0.9), (1, 0.8), (2, 0.7), (1, 0.8), (4, 0.9)]) == [1, 0]
    assert frontier([]) == []


def test_a_slope_and_its_interval_are_those_of_least_squares() -> None:
    slope = fit([1, 10, 100], [2.0, 2.0 * 10**1.5, 2.0 * 1000])
    assert slope.power == pytest.approx(1.5)
    assert slope.high - slope.low == pytest.approx(0, abs=1e-9)
    scipy = pytest.importorskip("scipy.stats")
    at, costs = [1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 2.3, 3.7, 8.9, 15.0]
    import numpy as np

    line = scipy.linregress(np.log(at), np.log(costs))
    slope, width = fit(at, costs), scipy.t.ppf(0.975, 3) * line.stderr
    assert slope.power == pytest.approx(line.slope)
    assert [slope.low, slope.high] == pytest.approx([line.slope - width, line.slope + width], rel=1e-3)


def test_a_series_needs_three_points_with_all_else_equal() -> None:
    def trees(*counts: int, **case: object) -> list[Record]:
        return [scored(parameters=(("n_estimators", n),), factor=n / 100, **case) for n in counts]  # type: ignore[arg-type]

    assert not all_series(settings(trees(10, 100)))
    assert not all_series(settings([*trees(10, 30), *trees(100, batch=8)]))
    found = {series.cost: series for series in all_series(settings(trees(10, 30, 100)))}
    assert found["time"].axis == "parameter n_estimators"
    assert found["time"].slope.power == pytest.approx(1.0)
    assert found["bytes"].slope.power == pytest.approx(0.5)
    # All rows of a request together: a constant time a row is a slope of 1.
    (rows,) = [s for s in all_series(settings([scored(rows=n) for n in (10, 100, 1000)])) if s.cost == "time"]
    assert rows.slope.power == pytest.approx(1.0)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (1.39e3, 4.02e3), (0.5, 2e6), (1e-9, 1e30), (99.0, 101.0)])
def test_ticks_are_round_and_few(ends: tuple[float, float]) -> None:
    ticks = log_ticks(*ends)
    assert 1 <= len(ticks) <= 12
    assert all(0.9 * ends[0] <= tick <= 1.1 * ends[1] for tick in ticks)


def test_the_command_names_what_its_cases_share() -> None:
    cases = [scored("ckks").case, scored("bfv").case]
    assert again(COMMAND, cases) == f"{COMMAND} --only kind=score --only dataset=cardio --only detector=forest"
    assert "'dataset=a b; rm [*]'" in again(COMMAND, [scored(dataset="a b; rm *").case])


def test_cases_are_told_apart_in_few_words() -> None:
    cases = [scored(engine, role=role).case for engine, role in (("bfv", "same"), ("bfv", "split"), ("ckks", "same"))]
    assert told_apart(cases) == ["BFV, role same", "BFV, role split", "CKKS"]
    assert told_apart(cases, known=("engine",)) == ["role same", "role split", ""]
    assert told_apart([*cases[:1], cases[0]]) == ["", ""]
    other = scored("bfv", detector="histogram").case
    assert told_apart([*cases, other], known=("engine",), always=("detector",)) == [
        "forest, role same",
        "forest, role split",
        "forest",
        "histogram",
    ]


def test_what_was_not_measured_is_no_zero() -> None:
    bare = Record(Case("s", "score", "d", "forest", engine="ckks"), PLACE)
    assert (row_seconds(bare), row_bytes(bare)) == (None, None)
    # The integer program is timed for comparison: it is nobody's work.
    reference = replace(scored("clear").timings[0], role="integer program")
    one = scored("clear")
    assert row_seconds(replace(one, timings=(*one.timings, reference))) == row_seconds(one)


# --- findings follow the numbers


def test_what_encryption_loses_is_the_records_own() -> None:
    (one,) = about([scored("bfv", loss=0.0)], "Encryption")
    assert one.sentence == (
        "On cardio, the forest under BFV loses no AUROC to the model in the clear "
        "and costs 160 µs of processor time and 2.1 KB a row."
    )
    assert one.kind == "wins"
    (one,) = about([scored("bfv", loss=0.0213, factor=2.0)], "Encryption")
    assert "loses 0.0213 AUROC" in one.sentence
    assert "320 µs" in one.sentence
    assert one.kind == "loses"
    assert not about([scored("clear")], "Encryption")
    (one,) = about([scored("bfv"), scored("bfv", "thyroid", loss=0.002)], "Encryption")
    assert one.sentence.startswith("On 2 data sets, the forest under BFV loses at most 0.0020 AUROC (on thyroid)")


def test_beating_the_norm_takes_every_seed() -> None:
    def areas(*sets: tuple[str, float, float]) -> list[Record]:
        return [trained(1.0, seed, name, auroc=area) for name, *both in sets for seed, area in enumerate(both)]

    (one, _) = about(areas(("a", 0.95, 0.96), ("b", 0.91, 0.92)), "Is training worth it?")
    assert (one.sentence, one.kind) == (
        "The forest at ε\N{NO-BREAK SPACE}1 beats the norm |z|² on all 2 data sets.",
        "wins",
    )
    (one, _) = about(areas(("a", 0.95, 0.96), ("b", 0.8, 0.92), ("c", 0.5, 0.6)), "Is training worth it?")
    assert "does not beat the norm |z|² on 2 of 3 data sets (c and b)." in one.sentence
    assert "depends on the seed on b" in one.numbers
    assert "−0.3500 at worst (on c)" in one.numbers
    (one, other) = about(areas(("a", 0.7, 0.7)), "Is training worth it?")
    assert one.sentence.startswith("On a, the forest at ε\N{NO-BREAK SPACE}1 does not beat the norm")
    assert "the untrained network" in other.sentence
    # The sentence is about the epsilon nearest to 1, the numbers about all.
    (one, _) = about([trained(e, 0, auroc=0.95 if e == 8 else 0.7) for e in (0.1, 1.5, 8.0)], "Is training worth it?")
    assert "at ε\N{NO-BREAK SPACE}1.5 does not beat" in one.sentence
    assert "at ε\N{NO-BREAK SPACE}8 on 1 of 1" in one.numbers


def test_what_privacy_costs_is_the_distance_to_no_noise() -> None:
    records = [trained(None, 0, auroc=0.95), trained(1.0, 0, auroc=0.93)]
    (one,) = about(records, "What privacy costs")
    assert one.sentence == "On cardio, privacy costs the forest 0.0200 AUROC at ε\N{NO-BREAK SPACE}1."
    assert not about(records[1:], "What privacy costs")


def test_peers_are_compared_on_the_same_rows_only() -> None:
    ours = scored("ckks")
    slow = peer("tenseal", ours, times=12.7)
    (one, same) = about([ours, slow], "Peers")
    assert one.sentence == "TenSEAL took 12.7 × as long as CKKS on the same 1,831 rows of cardio (forest)."
    assert (one.kind, same.kind) == ("wins", "wins")
    (one, better) = about([ours, peer("tenseal", ours, times=0.5, auroc=0.99)], "Peers")
    assert "took 0.5 × as long" in one.sentence
    assert better.sentence == "TenSEAL ranks better than the forest under CKKS on cardio."
    assert (one.kind, better.kind) == ("loses", "loses")
    (one,) = about([ours, replace(slow, rows=7)], "Peers")
    assert one.sentence == "TenSEAL took 12.7 × as long a row as CKKS on 7 rows of cardio (forest)."
    assert not about([scored("ckks", parameters=(("depth", 4),)), slow], "Peers")
    assert not about([scored("ckks", "thyroid"), scored("bfv"), slow], "Peers")


def test_a_prediction_that_misses_is_said_to() -> None:
    good = scored(link="wan")
    (one,) = about([good], "Links")
    assert one.sentence == "A request over the WAN takes CKKS 210 ms."
    assert "at most 8.7" in one.numbers
    assert one.kind == "even"
    (one,) = about([replace(good, delayed_seconds=0.9)], "Links")
    assert one.kind == "loses"
    (one,) = about([replace(good, delayed_seconds=None)], "Links")
    assert one.numbers == "No run checked this prediction."


def test_times_of_two_machines_are_said_not_to_compare() -> None:
    other = replace(scored("bfv"), provenance=replace(PLACE, machine="another"))
    (one,) = about([scored(), other], "Provenance")
    assert "2 machines" in one.sentence
    assert not about([scored(), scored("bfv")], "Provenance")


def test_nothing_is_said_of_nothing() -> None:
    assert findings([]) == ()
    bare = Record(Case("s", "score", "d", "forest", engine="ckks"), PLACE)
    assert findings([bare]) == ()


# --- files


def written(records: Sequence[Record], folder: Path) -> tuple[str, str]:
    page = write_suite_report(records, folder, command=COMMAND)
    assert page == folder / "report.html"
    return page.read_text(encoding="utf-8"), (folder / "report.md").read_text(encoding="utf-8")


def test_exports_give_records_back(tmp_path: Path) -> None:
    records = [*suite(), failed(scored("bfv", 'a "b",\nc')), Record(Case("s", "score", "", ""), PLACE)]
    written(records, tmp_path)
    assert read_csv(tmp_path / "records.csv") == tuple(records)
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "records.parquet").to_pylist()
    assert [row["derived.id"] for row in table] == [record.case.id for record in records]
    assert [row["accuracy.auroc"] for row in table] == [record.accuracy.auroc for record in records]


def test_threads_are_compared_where_records_hold_several(tmp_path: Path) -> None:
    one = scored("ckks", "cardio", "autoencoder")
    fast = tuple(replace(each, threads=0, wall_seconds_per_row=Spread(1e-6, 1e-6, 1e-6, 3)) for each in one.timings)
    all_cores = replace(one, case=replace(one.case, threads=0), timings=fast)
    other = replace(one, case=replace(one.case, threads=4, detector="forest"))
    (gain,) = threads.gains([all_cores, one, other])
    assert gain.threads == (1, PLACE.cores)
    online = [each.wall_seconds_per_row for each in one.timings if not each.offline]
    assert gain.factors[1] == pytest.approx(sum(each.median for each in online if each) / (len(online) * 1e-6))
    page, _ = written([all_cores, one, other], tmp_path)
    assert "Gain by threads" in page
    assert f"{number(gain.factors[1])} × with 2 threads" in page
    page, _ = written([one, other], tmp_path)
    assert "Gain by threads" not in page


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "'", "''"])
def test_no_cell_of_the_csv_is_a_formula(start: str, tmp_path: Path) -> None:
    hostile = f'{start}HYPERLINK("http://example.org")'
    record = scored("ckks", hostile, hostile, parameters=((hostile, -3),))
    record = replace(record, failures=(hostile,), missing=hostile, notes=(hostile,))
    written([record], tmp_path)
    assert read_csv(tmp_path / "records.csv") == (record,)
    with (tmp_path / "records.csv").open(encoding="utf-8", newline="") as lines:
        head, cells = csv.reader(lines)
    texts = [cell for cell in cells if not _is_number(cell)]
    assert sum(hostile in cell for cell in texts) >= 3
    assert not [cell for cell in texts if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert cells[head.index("case.dataset")] == f"'{hostile}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_without_pyarrow_there_is_no_parquet_and_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "records.parquet").write_bytes(b"an older run's")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    page, _ = written([scored()], tmp_path)
    assert "pyarrow is not installed" in page
    assert not (tmp_path / "records.parquet").exists()


def test_failures_stand_first_and_count_nowhere(tmp_path: Path) -> None:
    good, bad = scored("ckks"), failed(scored("bfv", "cardio", "subspace", auroc=0.1234))
    page, text = written([good, bad], tmp_path)
    assert 0 < page.index("bytes were not counted") < page.index('id="findings"')
    assert text.index("bytes were not counted") < text.index("## Findings")
    assert "1 case failed" in page
    assert "0.1234" not in page + text
    page, text = written([good], tmp_path)
    assert "failed" not in text
    assert 'class="unsafe failures"' not in page


def test_what_is_missing_is_named_with_its_reason(tmp_path: Path) -> None:
    absent = Record(Case("peers", "peer", "cardio", "forest", peer="spu"), PLACE, missing="no --peer-env spu=PATH")
    for output in written([scored(), absent], tmp_path):
        assert "no --peer-env spu=PATH" in output.replace("\\", "")
        assert "SPU forest on cardio" in output
    page, _ = written([absent], tmp_path)
    assert "Findings" not in page


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    record = scored("ckks", HOSTILE, HOSTILE, parameters=((HOSTILE, 3),))
    records = [record, scored("bfv", HOSTILE, HOSTILE), replace(record, failures=(HOSTILE,))]
    records.append(replace(record, case=replace(record.case, kind="peer", peer=HOSTILE), notes=(HOSTILE,)))
    records.append(Record(Case(HOSTILE, "score", HOSTILE, "x"), replace(PLACE, machine=HOSTILE), missing=HOSTILE))
    page, text = written(records, tmp_path)
    tags: list[str] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, _attributes: tags.append(tag)  # type: ignore[method-assign]
    reader.feed(page)
    assert tags.count("script") == 1
    assert "img" not in tags
    assert "\x00" not in page + text
    assert not re.search(r"(?<!\\)<img", text)
    assert read_csv(tmp_path / "records.csv")[0].case.dataset == HOSTILE.replace("\ud800", "?")


@pytest.mark.parametrize(
    "records",
    [
        [scored()],
        [scored("clear")],
        [trained(1.0, 0, auroc=0.9)],
        [replace(one, accuracy=Accuracy(), fidelity=Fidelity()) for one in (scored(), scored("bfv"))],
        [scored(factor=1e30), scored("bfv", factor=1e-30), scored("sharing", factor=1e12)],
        [replace(scored(), extraction_rows=10**30, rounds=10**12), scored("bfv", auroc=0.0, norm=1.0)],
        [Record(Case("s", "mechanism", "none", "masking"), PLACE)],
        [failed(scored())],
    ],
    ids=["one", "clear", "train", "no labels", "huge and tiny", "huge counts", "mechanism", "failed"],
)
def test_any_records_make_a_page(records: list[Record], tmp_path: Path) -> None:
    page, text = written(records, tmp_path)
    assert page.startswith("<!DOCTYPE html>")
    assert text.startswith("# Benchmarks")
    assert not re.search(r"\b(nan|inf)\b", page.split("<script>")[0].split("</style>")[1])


def test_no_records_no_report(tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match="at least one record"):
        write_suite_report([], tmp_path, command=COMMAND)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (written(suite(), tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert len(first[0]) < 1_500_000


def test_matplotlib_is_loaded_for_pictures_only() -> None:
    """Whoever reads records, or gates on them, needs no picture."""
    import subprocess

    code = "import sys, securead.bench.findings, securead.bench.measured; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
