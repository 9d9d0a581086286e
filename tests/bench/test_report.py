"""The report on made-up runs: well formed, complete in itself, escaped, small, and honest about the baseline."""

from __future__ import annotations

import dataclasses
import re
import timeit
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from securead.bench import wording
from securead.bench.drawing import COLOURS, thinned
from securead.bench.intervals import auroc, average_precision, certainty, paired_interval
from securead.bench.report import write_report
from securead.bench.results import Control, DetectorResult, DetectorRun, Phase, Run, TrainingStep
from securead.errors import FixInputError

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
HOSTILE = "<script>alert('x')</script>\"&amp;<img src=http://evil.example/x onerror=y>\x00\ud800"
PRIVACY = (
    "Differential privacy for every single training record: epsilon = 1, delta = 1e-06 (add or remove one record).",
    "It holds against the coordinator, the other sites and everyone who sees the model (per site: bank-a: 1, "
    "bank-b: 1, bank-c: 1).",
    "Noised releases: moments of records (noise multiplier 4.32). Accounted with dp_accounting PLD.",
    "Not covered: how many records each site has.",
)


def control(name: str, y: np.ndarray, scores: np.ndarray, *, labels: bool = True) -> Control:
    return Control(name, scores, auroc(y, scores) if labels else None, average_precision(y, scores) if labels else None)


def made_network(
    rows: int = 3000,
    anomalies: int = 60,
    *,
    sites: int = 3,
    epsilon: float | None = 3.0,
    same: bool = False,
    seed: int = 0,
) -> DetectorRun:
    """An autoencoder's run of five rounds with all three controls; `same` makes all sites spend alike."""
    run = made_run(rows, anomalies, name="creditcard-autoencoder", trained=2.2, epsilon=epsilon, seed=seed)
    rng = np.random.default_rng(seed + 1)
    assert run.y is not None
    y, log = run.y.astype(int), np.log(run.float_scores)
    untrained = np.exp(0.8 * (log - 0.6 * y) + 0.4 * rng.normal(size=rows))
    nothing = np.exp(log + 0.03 * y + 0.1 * rng.normal(size=rows))
    names = ["bank-a", "bank-b", "bank-c", *(f"bank-{i}" for i in range(4, sites + 1))][:sites]
    stages = ["scaling", "records", *(f"{what}-{i}" for i in range(1, 6) for what in ("round", "check")), "threshold"]
    steps = []
    for at, stage in enumerate(stages, start=1):
        for place, site in enumerate(names):
            spent = None if epsilon is None else epsilon * (at / len(stages)) ** 0.6 * (1 if same else 1 - 0.05 * place)
            check = stage.startswith("check")
            loss = 9 + 14 * np.exp(-at / 3) + place + rng.normal() * (0.05, 0.15, 0.7)[place % 3] if check else None
            steps.append(TrainingStep(stage, site, (9.1 if stage[:5] == "round" else 0.4) / (place + 1), spent, loss))
    return dataclasses.replace(
        run,
        privacy=tuple(words.replace("epsilon = 1,", f"epsilon = {epsilon:g},") for words in PRIVACY)
        if epsilon
        else PRIVACY,
        controls=(*run.controls, control("untrained", y, untrained), control("no data", y, nothing)),
        training=tuple(steps),
        result=dataclasses.replace(run.result, auroc_untrained=auroc(y, untrained)),
    )


def made_run(
    rows: int = 3000,
    anomalies: int = 60,
    *,
    trained: float = 2.0,
    baseline: float = 1.0,
    labels: bool = True,
    role: str = "same",
    name: str = "creditcard-mahalanobis",
    epsilon: float | None = 1.0,
    seed: int = 0,
) -> DetectorRun:
    """A run whose detector and baseline raise anomalies' log scores by `trained` and `baseline`."""
    rng = np.random.default_rng(seed)
    y = np.zeros(rows, dtype=np.int8)
    y[rng.choice(rows, anomalies, replace=False)] = 1
    common = rng.normal(size=rows)
    exact = np.exp(3 + 0.6 * common + trained * y * rng.uniform(0.2, 1.4, rows))
    norm = np.exp(3 + 0.5 * common + 0.3 * rng.normal(size=rows) + baseline * y * rng.uniform(0.2, 1.4, rows))
    integer = exact * (1 + 1e-5 * rng.normal(size=rows))
    encrypted = integer * (1 + 1e-6 * rng.normal(size=rows))
    split = role == "split"
    result = DetectorResult(
        name=name,
        engine="ckks",
        role=role,
        epsilon=epsilon,
        delta=None if epsilon is None else 1e-6,
        auroc_float=auroc(y, exact) if labels else None,
        auroc_encrypted=auroc(y, encrypted) if labels else None,
        ap_float=average_precision(y, exact) if labels else None,
        ap_encrypted=average_precision(y, encrypted) if labels else None,
        auroc_norm_baseline=auroc(y, norm) if labels else None,
        auroc_untrained=None,
        rows_scored=rows,
        server_seconds=rows * 84e-6,
        client_encrypt_seconds=rows * 40e-6,
        client_decrypt_seconds=0.12,
        upload_bytes_per_row=2780.0 if split else 1433.0,
        download_bytes_per_row=112.0,
        key_bytes=262_144 if split else 0,
        max_rel_error=3.1e-6,
        rank_correlation=1 - 7e-10,
    )
    holder = "key holder" if split else "submitter"
    phases = (
        Phase("train", "three banks", 1.94),
        Phase("make keys", holder, 0.31, result.key_bytes),
        Phase("encrypt", "submitter", rows * 40e-6, int(rows * result.upload_bytes_per_row)),
        Phase("score unseen", "service (CPU)", rows * 84e-6),
        Phase("send and receive", "submitter", 0.4, rows * 112),
        Phase("decrypt", holder, 0.12),
    )
    return DetectorRun(
        result=result,
        y=y if labels else None,
        float_scores=exact,
        integer_scores=integer,
        encrypted_scores=encrypted,
        controls=(control("|z|^2", y, norm, labels=labels),),
        training=(),
        threshold=float(np.quantile(exact, 0.99)),
        threshold_origin="private histogram of training scores at rate 0.01",
        privacy=PRIVACY,
        phases=phases,
        parameters=(
            ("ring dimension", "8,192"),
            ("modulus", "50 + 40 + 40 + 60 bits"),
            ("encryption", "with the public key" if split else "symmetric, seeded"),
        ),
    )


def made(*detectors: DetectorRun, dataset: str = "creditcard", sites: tuple[tuple[str, int], ...] | None = None) -> Run:
    first = detectors[0]
    return Run(
        dataset=dataset,
        source="European card payments, September 2013 (ULB)",
        sites=sites or (("bank-a", 119_617), ("bank-b", 59_808), ("bank-c", 19_936)),
        rows_held_out=len(first.float_scores),
        anomalies_held_out=None if first.y is None else int(first.y.sum()),
        detectors=detectors,
        version="0.1.0",
        created="2025-01-01T12:00:00+00:00",
    )


class Page(HTMLParser):
    """What a page holds; fails at once where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def written(run: Run, folder: Path) -> tuple[str, Page]:
    path = folder / "report.html"
    write_report(run, path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def full() -> Run:
    return made(made_run(), made_run(role="split"), made_run(name="creditcard-pca_residual", seed=1, trained=0.5))


def test_well_formed_and_accessible(full: Run, tmp_path: Path) -> None:
    text, page = written(full, tmp_path)
    assert text.startswith("<!DOCTYPE html>")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pointed = re.findall(r'(?:href="|url\()#([\w.-]+)', text)
    pointed += [name for _, a in page.tags for name in (a.get("aria-labelledby") or "").split()]
    assert set(pointed) <= set(ids)
    assert all({"role", "aria-labelledby"} <= a.keys() for tag, a in page.tags if tag == "svg")
    assert all("scope" in a for tag, a in page.tags if tag == "th")
    assert page.count("main") == page.count("h1") == page.count("title") - page.count("svg") == 1
    assert not any(colour in text for colour in COLOURS.values())  # every colour follows the theme


def test_no_external_address(full: Run, tmp_path: Path) -> None:
    text, page = written(full, tmp_path)
    for tag, attributes in page.tags:
        assert tag not in {"script", "img", "iframe", "object", "embed", "image"}
        for name in ("href", "src", "xlink:href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#")[0] == "#" or attributes[name] == "data:,"
    assert "@import" not in text
    assert "://" not in text
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)


def test_names_from_data_are_escaped(tmp_path: Path) -> None:
    run = made_run(name=HOSTILE)
    run = dataclasses.replace(
        run,
        privacy=(HOSTILE,),
        threshold_origin=HOSTILE,
        phases=(Phase(HOSTILE, HOSTILE, 1.0, 5),),
        parameters=((HOSTILE, HOSTILE),),
        controls=(dataclasses.replace(run.controls[0], name=HOSTILE),),
        training=tuple(
            TrainingStep(stage, HOSTILE, 1.0, 0.5 * at, 2.0)
            for at, stage in enumerate((HOSTILE, "$\\frac{x}$", "a$b", "\N{PILE OF POO}"), start=1)
        ),
        result=dataclasses.replace(run.result, engine=HOSTILE, role=HOSTILE),
    )
    whole = dataclasses.replace(
        made(run, dataset=HOSTILE, sites=((HOSTILE, 3), (HOSTILE, 4))), source=HOSTILE, version=HOSTILE, created=HOSTILE
    )
    _, page = written(whole, tmp_path)
    assert page.count("script") == page.count("img") == 0
    assert page.text.count("<script>alert") >= 8
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_every_figure_is_shown(full: Run, tmp_path: Path) -> None:
    _, page = written(full, tmp_path)
    assert page.count("figure") == 2 * 3 + 1  # the split run shares its pictures with the same run
    assert page.count("section") == 2 + 2
    for words in ("creditcard", "119,617 records", "ε = 1", "84 µs", "1.43 KB", "2.78 KB", "role split", *PRIVACY):
        assert words in page.text
    assert "masked and flooded" in page.text
    assert "Bounds are public" in page.text


def test_without_labels(tmp_path: Path) -> None:
    _, page = written(made(made_run(labels=False)), tmp_path)
    assert page.count("figure") == 2
    assert "ROC" not in page.text.replace("no AUROC", "")
    assert "anomalies" not in page.text
    assert "baseline" not in page.text
    assert "nan" not in page.text.lower().split()


def test_labels_of_one_class(tmp_path: Path) -> None:
    run = made_run()
    run = dataclasses.replace(run, y=np.zeros(len(run.float_scores), dtype=np.int8))
    assert written(made(run), tmp_path)[1].count("figure") == 2


@pytest.mark.parametrize(
    ("trained", "baseline", "said"),
    [
        (3.0, 0.5, "The trained detector beats the baseline |z|²."),
        (0.2, 3.0, "The trained detector does not win: the baseline |z|² is better."),
    ],
)
def test_says_who_wins(tmp_path: Path, trained: float, baseline: float, said: str) -> None:
    assert said in written(made(made_run(trained=trained, baseline=baseline)), tmp_path)[1].text


def test_a_tie_is_no_win() -> None:
    run = made_run(trained=1.0, baseline=1.0)
    assert run.y is not None
    same = wording.verdict(run.y, run.controls[0].scores, run.controls[0])
    assert same.kind == "even"
    few = np.zeros(len(run.float_scores))
    few[0] = 1
    assert wording.verdict(few, run.float_scores, run.controls[0]).kind == "even"


@pytest.mark.parametrize(
    ("name", "shift", "said"),
    [
        ("untrained", 0.0, "On these records, training shows no clear benefit"),
        ("untrained", 3.0, "On these records, training made the ranking worse"),
        ("no data", 0.0, "may be owed to the detector's shape and not to the training records"),
        ("no data", 3.0, "is not owed to the training records"),
        ("|z|^2", 0.0, "It may do as well here"),
        ("|z|^2", 3.0, "prefer it here"),
    ],
)
def test_says_what_it_means_not_to_win(tmp_path: Path, name: str, shift: float, said: str) -> None:
    run = made_run(trained=0.4)
    assert run.y is not None
    scores = np.exp(np.log(run.float_scores) + shift * run.y)
    run = dataclasses.replace(run, controls=(control(name, run.y, scores),))
    text = written(made(run), tmp_path)[1].text
    assert said in text
    assert ("does not win:" in text) == (shift > 0)
    assert "The trained detector beats" not in text


def test_every_control_is_compared(tmp_path: Path) -> None:
    run = made_network()
    text, page = written(made(run), tmp_path)
    assert [one.kind for one in wording.verdicts(run)] == ["wins", "wins", "even"]
    for words in ("beats the baseline |z|²", "beats the untrained network", "does not clearly win over the no-data"):
        assert f"The trained detector {words}" in page.text
    for one in run.controls:
        assert page.text.count(f"{one.auroc:.4f}") >= 3  # verdict, key, table
        assert page.text.count(f"{one.ap:.4f}") >= 3
    assert text.index("verdict even") < text.index("verdict wins")  # what speaks against the detector comes first
    assert "AUROC untrained" not in page.text  # one run has no table of runs


def test_training_is_drawn_where_it_was_recorded(tmp_path: Path) -> None:
    private = written(made(made_network(), made_run()), tmp_path)[1]
    assert private.count("figure") == 5 + 3 + 1
    assert "Training took 13 steps at 3 sites. Busy with it: bank-a 48.7 s" in private.text
    for words in (
        "Noised validation loss",
        "Validation losses are noised",
        "guarantee: 3",
        "round 1",
        "AUROC untrained",
    ):
        assert words in private.text
    assert sum("How it was trained" in words for words in private.words) == 2  # the heading and the link to it

    public = written(made(made_network(epsilon=None)), tmp_path)[1]
    assert public.count("figure") == 4 + 1
    assert "nothing protects these figures either" in public.text
    assert "Noised" not in public.text.replace("Noised releases", "")
    assert "Privacy spent" not in public.text

    run = made_network()
    lossless = dataclasses.replace(run, training=tuple(dataclasses.replace(s, loss=None) for s in run.training))
    assert written(made(lossless), tmp_path)[1].count("figure") == 4 + 1


@pytest.mark.parametrize("sites", [1, 2, 6, 7, 300])
@pytest.mark.parametrize("same", [True, False])
def test_any_number_of_sites(tmp_path: Path, sites: int, same: bool) -> None:
    run = made_network(sites=sites, same=same)
    text, page = written(made(run), tmp_path)
    assert page.count("figure") == 5 + 1
    assert len(text.encode()) < 800_000
    assert ("(all the same)" in page.text) == (same and sites > 1)
    assert ("7 sites" in page.text) == (sites == 7)
    assert ("the first 100 of 300 sites" in page.text) == (sites == 300)


def test_odd_training(tmp_path: Path) -> None:
    steps = [TrainingStep("only", "a", 0.0, 0.0, None), TrainingStep("check-1", "a", 1.0, float("inf"), float("nan"))]
    for training in (steps[:1], steps, [TrainingStep(f"stage {i}", "a", 1.0, 0.1 * i, -1.0 * i) for i in range(60)]):
        run = dataclasses.replace(made_run(), training=tuple(training))
        assert "nan" not in written(made(run), tmp_path)[1].text.lower().split()


def test_intervals_are_those_of_resampled_rows() -> None:
    """The multinomial shortcut against resampling rows one by one, from 60 anomalies among 5,000 rows.

    Two bootstraps of 1,000 differ by what their own quantiles do: under a tenth of an interval's width.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    rng = np.random.default_rng(3)
    y = (np.arange(5000) < 60).astype(int)
    scores = np.exp(rng.normal(size=5000) + 2 * y)
    known = certainty(y, scores, resamples=1000)
    assert known is not None
    areas, averages, found, right = [], [], [], []
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(scores[:60], 60), rng.choice(scores[60:], 4940)])
        areas.append(auroc(y, drawn))
        averages.append(average_precision(y, drawn))
        false_rate, true_rate, _ = roc_curve(y, drawn)
        precision, recall, _ = precision_recall_curve(y, drawn)
        found.append(np.interp(0.1, false_rate, true_rate))
        right.append(precision[np.flatnonzero(recall >= 0.5 - 1e-12)[-1]])
    at = int(np.argmin(np.abs(known.roc.at - 0.1))), int(np.argmin(np.abs(known.precision.at - 0.5)))
    ours = (
        known.auroc,
        known.average_precision,
        (known.roc.low[at[0]], known.roc.high[at[0]]),
        (known.precision.low[at[1]], known.precision.high[at[1]]),
    )
    for (low, high), drawn in zip(ours, (areas, averages, found, right), strict=True):
        expected = np.quantile(drawn, (0.025, 0.975))
        assert np.abs(np.array([low, high]) - expected).max() < 0.15 * (expected[1] - expected[0])


def test_bootstrap_interval_covers() -> None:
    """Over 300 draws the 95 % interval of AUROC holds the truth in 90 to 99 % (4 standard errors are 5 %)."""
    rng = np.random.default_rng(6)
    y = np.repeat([1, 0], [60, 240])
    inside = 0
    for _ in range(300):
        known = certainty(y, rng.normal(size=300) + y, resamples=200)
        assert known is not None
        inside += known.auroc[0] <= 0.7602499389 <= known.auroc[1]
    assert 0.90 <= inside / 300 <= 0.99


def test_intervals_repeat_and_are_fast() -> None:
    rng = np.random.default_rng(7)
    y = (rng.random(35_000) < 0.3).astype(int)
    scores = rng.normal(size=35_000) + y
    one, again = certainty(y, scores), certainty(y, scores)
    assert one is not None
    assert again is not None
    assert (one.auroc, one.average_precision) == (again.auroc, again.average_precision)
    assert np.array_equal(one.roc.low, again.roc.low)
    # Typically 0.15 s; the best of three, because the machine may be busy.
    assert min(timeit.repeat(lambda: certainty(y, scores), number=1, repeat=3)) < 1
    assert one.auroc[0] < auroc(y, scores) < one.auroc[1]


def test_too_few_for_an_interval(tmp_path: Path) -> None:
    few = made_run(anomalies=9)
    assert few.y is not None
    assert certainty(few.y, few.float_scores) is None
    _, page = written(made(few), tmp_path)
    assert "fewer than 10 records gives no interval" in page.text
    assert "interval, encrypted" not in page.text
    assert "With so few anomalies they are rough" in page.text
    perfect = made_run(trained=60.0)
    assert "this is no certainty" in written(made(perfect), tmp_path)[1].text


def test_paired_interval_covers() -> None:
    """Over 300 draws the 95 % interval holds the true difference in 92 to 98 % (5 standard errors are 6 %)."""
    rng = np.random.default_rng(5)
    y = np.repeat([1, 0], [60, 240])
    truth = 0.7602499389 - 0.6915  # normal cdf of 1/sqrt 2 and of (.7071)/sqrt 2
    inside = 0
    for _ in range(300):
        common = rng.normal(size=300) * np.sqrt(0.5)
        one, other = (common + rng.normal(size=300) * np.sqrt(0.5) + shift * y for shift in (1.0, 0.70711))
        low, high = paired_interval(y, one, other)
        inside += low <= truth <= high
    assert 0.89 <= inside / 300 <= 0.995


def test_auroc_counts_ties_half() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    y, scores = rng.integers(0, 2, 500), rng.integers(0, 9, 500).astype(float)
    assert auroc(y, scores) == pytest.approx(roc_auc_score(y, scores))


@pytest.mark.parametrize("labels", [True, False])
def test_small_for_many_rows(tmp_path: Path, labels: bool) -> None:
    runs = [made_run(85_000, 148, labels=labels, role=role) for role in ("same", "split")]
    runs.append(made_run(85_000, 40_000, labels=labels, name="other", seed=3))
    text, _ = written(made(*runs), tmp_path)
    assert len(text.encode()) < 500_000


@pytest.mark.parametrize(
    "scores", [np.zeros(50), np.full(50, 7.0), np.linspace(-5, 5, 50), np.geomspace(1e-9, 1e9, 50)]
)
def test_odd_scores(tmp_path: Path, scores: np.ndarray) -> None:
    y = np.arange(50) % 2
    run = dataclasses.replace(
        made_run(),
        y=y,
        float_scores=scores,
        integer_scores=scores,
        encrypted_scores=scores,
        controls=(control("|z|^2", y, scores),),
        threshold=0.0,
    )
    assert "nan" not in written(made(run), tmp_path)[1].text


def test_same_name_but_another_detector_stands_alone(tmp_path: Path) -> None:
    _, page = written(made(made_run(), made_run(seed=4)), tmp_path)
    assert "creditcard-mahalanobis · 2" in page.text
    assert page.count("figure") == 7


def test_no_privacy_is_said(tmp_path: Path) -> None:
    run = dataclasses.replace(made_run(epsilon=None), privacy=("This model gives NO privacy guarantee.",))
    _, page = written(made(run), tmp_path)
    assert "Training records are not protected." in page.text
    assert "noised updates" not in page.text


def test_a_matplotlibrc_changes_nothing_and_is_left_alone(tmp_path: Path) -> None:
    import matplotlib

    before, _ = written(made(made_run()), tmp_path)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        kept = dict(matplotlib.rcParams)
        again, _ = written(made(made_run()), tmp_path)
        assert dict(matplotlib.rcParams) == kept
    assert again == before


def test_refused_and_nothing_written(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    run = made_run()
    broken = run.encrypted_scores.copy()
    broken[3] = np.nan
    with pytest.raises(FixInputError, match="encrypted_scores"):
        write_report(made(dataclasses.replace(run, encrypted_scores=broken)), path)
    short = dataclasses.replace(run.controls[0], scores=run.float_scores[1:])
    with pytest.raises(FixInputError, match="control"):
        write_report(made(dataclasses.replace(run, controls=(short,))), path)
    with pytest.raises(FixInputError, match="at least one detector"):
        write_report(dataclasses.replace(made(run), detectors=()), path)
    assert not path.exists()


def test_thinned_keeps_the_shape() -> None:
    x = np.linspace(0, 1, 100_000)
    y = np.sqrt(x)
    a, b = thinned(x, y)
    assert len(a) <= 300
    assert (a[0], a[-1]) == (0.0, 1.0)
    assert np.abs(np.interp(x, a, b) - y).max() < 0.01


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (12.345, "12.3"),
        (-0.5, "−0.5"),
        (4.5e-6, "4.5 × 10⁻⁶"),
        (1e-6, "10⁻⁶"),
        (12_345.0, "12,345"),
        (2e9, "2 × 10⁹"),
    ],
)
def test_numbers(value: float, said: str) -> None:
    assert wording.number(value) == said


def test_many_sites_and_no_words_lost(tmp_path: Path) -> None:
    sites = tuple((f"a bank with quite a long name {i}", 10**i) for i in range(6))
    _, page = written(made(made_run(), sites=sites), tmp_path)
    assert "4 more" in page.text
    assert all(name in page.text for name, _ in sites)
