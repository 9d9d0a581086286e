"""A run as one HTML page that needs nothing else: `write_report`.

Guarantees: the page names no external address and, by its own content policy, loads nothing; text that comes from data
is escaped (the page is a tree until it is written); it stays small whatever the number of rows.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from securead import files
from securead.bench import exhibits, wording
from securead.bench.drawing import Child, Pictures, element, roles_picture, stylesheet
from securead.bench.exhibits import Group, figure, table
from securead.bench.intervals import Certainty, auroc, average_precision, certainty
from securead.bench.results import DetectorRun, Run
from securead.bench.wording import NORM, UNTRAINED, Verdict, area, counted, number, percent, row_time, seconds, size
from securead.data.schema import Array
from securead.errors import FixInputError

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write_report(run: Run, path: Path) -> None:
    """Write `run` as a self-contained page to `path`, all of it or nothing.

    Raises `FixInputError` for a run without detectors or with scores that are no numbers; `InstallExtraError` without
    matplotlib; `RetryLaterError` when the file cannot be written.
    """
    if not run.detectors:
        raise FixInputError("a report needs at least one detector's run", remedy="Score with a detector first.")
    page = "<!DOCTYPE html>\n" + ET.tostring(_page(run), encoding="unicode", method="html") + "\n"
    files.write_atomic(path, page.encode())


def _groups(run: Run) -> tuple[Group, ...]:
    found: list[list[DetectorRun]] = []
    for one in run.detectors:
        _check(one)
        same = next((runs for runs in found if _same_detector(runs[0], one)), None)
        if same is None:
            found.append([one])
        else:
            same.append(one)
    names = [runs[0].result.name for runs in found]
    titles = (
        name if names.count(name) == 1 else f"{name} · {names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    )
    return tuple(
        Group(title, f"detector-{serial}", tuple(runs))
        for serial, title, runs in zip(count(1), titles, found, strict=False)
    )


def _check(run: DetectorRun) -> None:
    drawn: dict[str, Array] = {
        name: getattr(run, name) for name in ("float_scores", "integer_scores", "encrypted_scores")
    }
    drawn |= {f"the control {control.name!r}": control.scores for control in run.controls}
    for name, scores in drawn.items():
        if len(scores) == 0 or len(scores) != len(run.float_scores) or not np.isfinite(scores).all():
            raise FixInputError(
                f"{run.result.name}: {name} cannot be drawn", value=scores, remedy="Give one finite number a row."
            )


def _same_detector(one: DetectorRun, other: DetectorRun) -> bool:
    """Whether both runs score the same rows, or one of them the first of these, with the same fitted detector."""
    rows = min(len(one.float_scores), len(other.float_scores))
    same_scores = np.array_equal(one.float_scores[:rows], other.float_scores[:rows])
    return one.result.name == other.result.name and one.privacy == other.privacy and same_scores


def _page(run: Run) -> ET.Element:
    groups, pictures = _groups(run), Pictures()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{run.dataset}: encrypted anomaly detection"),
        element("style", stylesheet()),
    )
    parts = [_header(run, groups)]
    parts += [_detector(group, pictures, run.rows_held_out, cards=group is not groups[0]) for group in groups]
    parts += [_roles(run), _not_guaranteed(run)]
    footer = element("footer", element("p", f"securead {run.version}, {run.created}. This page is complete in itself."))
    return element("html", head, element("body", element("main", *parts), footer), lang="en")


def _header(run: Run, groups: Sequence[Group]) -> ET.Element:
    records = sum(rows for _, rows in run.sites)
    held = counted(run.rows_held_out, "held-out record")
    if run.anomalies_held_out is not None:
        held += f" with {counted(run.anomalies_held_out, 'anomaly', 'anomalies')}"
    links = [(group.anchor, group.title) for group in groups]
    links += [("roles", "Who sees what"), ("limits", "What is not guaranteed")]
    lede: list[Child] = [element("strong", counted(len(run.sites), "site")), " trained together without pooling their "]
    lede += [element("strong", counted(records, "record")), ". Then ", element("strong", held)]
    lede += [" were scored by a service that saw ciphertexts only"]
    shared = any(one.result.engine == "sharing" for one in run.detectors)
    lede += [", and by two parties that saw shares only." if shared else "."]
    bars = [element("span", style=f"flex: {max(rows, 1)} 1 0") for _, rows in run.sites]
    names = [
        element(
            "li",
            element("b", name),
            f" {counted(rows, 'record')} ({percent(rows / max(records, 1))})",
        )
        for name, rows in run.sites
    ]
    parts = [
        element("p", "securead · encrypted anomaly detection", class_="eyebrow"),
        element("h1", run.dataset),
        element("p", *lede, class_="lede"),
        element("p", f"Data: {run.source}.", class_="quiet"),
        element("div", *bars, class_="sites", aria_hidden="true"),
        element("ul", *names, class_="site-names", aria_label="Sites and their training records"),
    ]
    if len(groups) > 1:
        parts.append(element("p", "In figures, for ", element("b", groups[0].title), ":", class_="cards-of"))
    parts.append(_cards(groups[0]))
    if len(groups) > 1:
        parts.append(exhibits.overview(groups))
    parts.append(element("nav", *(element("a", text, href=f"#{at}") for at, text in links), aria_label="On this page"))
    return element("header", *parts)


def _cards(group: Group) -> ET.Element:
    main, result = group.main, group.main.result
    others = [(label, run.result) for label, run in group.labelled if run is not main]
    if result.epsilon is None:
        privacy = _card("Privacy in training", "none", "", "Training records are not protected.", alarm=True)
    else:
        delta = "" if result.delta is None else f"δ = {number(result.delta, 2)}. "
        privacy = _card("Privacy in training", f"ε = {number(result.epsilon)}", "", f"{delta}Smaller is stronger.")
    if result.auroc_encrypted is None:
        said = "At most, relative to the score in the clear. No labels, so no AUROC."
        quality = _card("Error of encryption", number(result.max_rel_error, 1), "", said)
    else:
        said = f"{area(result.auroc_float)} in the clear, {area(result.auroc_norm_baseline)} by the baseline {NORM}"
        said += "." if result.auroc_untrained is None else f", {area(result.auroc_untrained)} by {UNTRAINED}."
        quality = _card("AUROC, encrypted", area(result.auroc_encrypted), "", said)
    time = f"{seconds(result.server_seconds)} for {counted(result.rows_scored, 'row')}"
    time += "".join(f"; {label}: {row_time(other)}" for label, other in others)
    keys = f"keys {size(result.key_bytes)} once" if result.key_bytes else "no keys to send"
    traffic = f"{size(result.download_bytes_per_row)} down; {keys}"
    traffic += "".join(f"; {label}: {size(other.upload_bytes_per_row)} up" for label, other in others)
    cards = (
        privacy,
        quality,
        _card("Time on the server", row_time(result), "a row", f"{time}."),
        _card("Upload", size(result.upload_bytes_per_row), "a row", f"{traffic}."),
    )
    return element("dl", *cards, class_="cards")


def _card(name: str, value: str, unit: str, more: str, *, alarm: bool = False) -> ET.Element:
    shown = element("dd", value, *([element("small", unit)] if unit else []), class_="value")
    kind = "card alarm" if alarm else "card"
    return element("div", element("dt", name), shown, element("dd", more, class_="more"), class_=kind)


def _detector(group: Group, pictures: Pictures, held_out: int, *, cards: bool) -> ET.Element:
    run = group.main
    ran = "; ".join(f"{one.result.engine}, role {one.result.role}" for one in group.runs)
    rows = wording.scored_words(run, held_out)
    said = wording.verdicts(run)
    known = certainty(run.y, run.encrypted_scores) if said and run.y is not None else None
    shown, learnt = list(exhibits.found(run, known, pictures)), list(exhibits.trained(run, pictures))
    chapters: list[tuple[str, str, list[ET.Element]]] = [
        (
            "privacy",
            "What training gives away",
            [element("ul", *(element("li", sentence) for sentence in run.privacy), class_="privacy")],
        )
    ]
    if learnt:
        about = element("div", *_training_words(run), class_="aside")
        chapters.append(
            ("training", "How it was trained", [element("div", about, *learnt, class_="pictures training")])
        )
    finds = [element("p", wording.threshold_words(run))]
    if said:
        finds.append(element("p", *_certain(run, known)))
    finds.append(element("div", *shown, class_="pictures" if len(shown) > 1 else "pictures lone"))
    chapters.append(("finds", "What it finds", finds))
    if said and run.y is not None:
        beaten = [
            exhibits.controls(run, run.y, said, known),
            element("p", wording.caution(run.y), class_="quiet under"),
        ]
        chapters.append(("controls", "Is training worth it?", beaten))
    chapters += [
        ("encryption", "Does encryption change the answers?", _errors(group)),
        ("cost", "What it costs", [exhibits.costs(group)]),
        ("parameters", "Parameters", [exhibits.parameters(group)]),
    ]
    links = [element("a", title, href=f"#{group.anchor}-{name}") for name, title, _ in chapters]
    parts = [
        element("h2", group.title, id=f"{group.anchor}-title"),
        element("p", f"{rows} ({ran}).", class_="quiet"),
        element("nav", *links, aria_label=f"On {group.title}", class_="chapters"),
        *([_cards(group)] if cards else []),
        *(_verdict(said) if said else [element("p", wording.NO_LABELS, class_="verdict even")]),
    ]
    for name, title, content in chapters:
        parts += [element("h3", title, id=f"{group.anchor}-{name}"), *content]
    return element("section", *parts, id=group.anchor, aria_labelledby=f"{group.anchor}-title")


def _verdict(said: Sequence[Verdict]) -> list[ET.Element]:
    """A box for each way that comparisons ended, worst first; a control that is not beaten has its own paragraph."""
    boxes = []
    for kind in ("loses", "even", "wins"):
        ended = [one for one in said if one.kind == kind]
        paragraphs: list[ET.Element] = []
        for one in ended:
            paragraphs += [
                element("p", element("strong", one.sentence), f" {one.numbers}"),
                element("p", one.more, class_="more"),
            ]
        if ended:
            boxes.append(element("div", *paragraphs, class_=f"verdict {kind}"))
    return boxes


def _certain(run: DetectorRun, known: Certainty | None) -> list[Child]:
    """The areas under the encrypted run's curves with their intervals, and where these come from."""
    if run.y is None:
        return []
    y, scores = run.y, run.encrypted_scores
    words = wording.interval_words("AUROC", auroc(y, scores), None if known is None else known.auroc)
    if known is None:
        return [words]
    words += " " + wording.interval_words("Average precision", average_precision(y, scores), known.average_precision)
    return [f"{words} ", element("span", wording.BOOTSTRAP, class_="quiet")]


def _training_words(run: DetectorRun) -> list[ET.Element]:
    private = run.result.epsilon is not None
    words = [wording.busy_words(run.training)]
    if any(step.loss is not None for step in run.training):
        words.append(wording.loss_words(private=private))
    if any(step.epsilon is not None for step in run.training):
        words.append(wording.spent_words(run.result.delta))
    return [element("p", text) for text in words]


def _errors(group: Group) -> list[ET.Element]:
    """How far encrypted scores are from others, once for all runs of which the same can be said."""
    said_of: dict[str, list[str]] = {}
    for label, one in group.labelled:
        said_of.setdefault(wording.error_words(one), []).append(label)
    parts = []
    for words, labels in said_of.items():
        who = ", ".join(labels)
        prefix = [element("b", f"{who[:1].upper()}{who[1:]}: ")] if len(said_of) > 1 else []
        parts.append(element("p", *prefix, words))
    return parts


def _roles(run: Run) -> ET.Element:
    private = all(one.result.epsilon is not None for one in run.detectors)
    owner = "noised updates" if private else "updates without noise"
    text = f"Sites send {owner} to the model owner. A submitter sends encrypted records; a key holder decrypts scores."
    picture = figure("Roles", "What goes where.", roles_picture(run.sites, owner, text), ())
    roles = {one.result.role for one in run.detectors}
    rows_: tuple[tuple[str, str, str], ...] = (
        ("Site in training", "its own records", "others' records"),
        (
            "Coordinator, model owner",
            f"each site's {owner}; the weights",
            "a training record; a submitted record; a score",
        ),
        ("Submitter", "the records it submits", "the weights; others' records"),
        ("Key holder", "the scores; the secret key", "the weights, unless it solves for them (below)"),
    )
    body = [
        element("tr", element("th", who, scope="row"), element("td", sees), element("td", never))
        for who, sees, never in rows_
    ]
    if any(one.result.engine == "sharing" for one in run.detectors):
        rows_ += (
            (
                "Two parties (sharing)",
                "one share each of records, scores and weights",
                "any of these, unless they collude",
            ),
            ("Dealer (sharing)", "how many rows are asked for", "records; scores; weights, unless with a party"),
        )
    head = element("tr", *(element("th", text, scope="col") for text in ("Role", "Sees", "Does not see")))
    seen = table("Who sees what", element("thead", head), element("tbody", *body), kind="words")
    meanings = {
        "same": "In role “same” the submitter is the key holder.",
        "split": "In role “split” the submitter has a public key only; someone else decrypts.",
    }
    said = " ".join(text for role, text in meanings.items() if role in roles)
    return element(
        "section",
        element("h2", "Who sees what", id="roles-title"),
        element("p", said, class_="quiet"),
        element("div", picture, seen, class_="roles"),
        id="roles",
        aria_labelledby="roles-title",
    )


def _not_guaranteed(run: Run) -> ET.Element:
    items = [element("li", element("strong", head), f" {text}") for head, text in wording.not_guaranteed(run)]
    title = element("h2", "What is not guaranteed", id="limits-title")
    return element(
        "section", title, element("ul", *items), id="limits", class_="unsafe", aria_labelledby="limits-title"
    )
