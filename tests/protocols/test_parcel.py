"""Labels: what comes back is what went in, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securead.errors import RejectMessageError
from securead.protocols import parcel

LABEL = parcel.Label("pump-1", "0" * 32, 3, (4, 5, 9), (1.0, 2.5, 1e9))


@pytest.mark.parametrize("label", [LABEL, dataclasses.replace(LABEL, times=None)])
def test_there_and_back(label: parcel.Label) -> None:
    found, message = parcel.from_bytes(parcel.to_bytes(label, b"message"))
    assert (found, bytes(message)) == (label, b"message")


@pytest.mark.parametrize(
    "change",
    [
        {"gateway": ""},
        {"gateway": "-x"},
        {"gateway": "a/b"},
        {"gateway": "a\n"},
        {"gateway": "a" * 65},
        {"stream": "0" * 31},
        {"stream": "G" * 32},
        {"sequence": -1},
        {"sequence": 1 << 62},
        {"readings": ()},
        {"readings": (-1, 2, 3)},
        {"times": (1.0,)},
    ],
    ids=str,
)
def test_absurd_labels_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(RejectMessageError):
        dataclasses.replace(LABEL, **change)  # type: ignore[arg-type]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_parcel_or_refused(content: bytes) -> None:
    for each in (content, parcel.MAGIC + content, parcel.MAGIC + len(content).to_bytes(4, "little") + content):
        with pytest.raises(RejectMessageError):
            parcel.from_bytes(each)


@pytest.mark.parametrize("text", ["NaN", "[[", '{"gateway": "x"}', "9" * 5000, '"\\ud800"'])
def test_any_json_is_a_label_or_refused(text: str) -> None:
    told = json.loads(parcel.to_bytes(LABEL, b"")[8:])
    for each in (text, json.dumps(told).replace("2.5", text)):
        content = each.encode(errors="replace")
        with pytest.raises(RejectMessageError):
            parcel.from_bytes(parcel.MAGIC + len(content).to_bytes(4, "little") + content)
