"""The window as a value: public, digested with the schema, refused when it is absurd."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from securead import codec
from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.data.windows import LocalScale, Window, WindowedSchema, windows_per_reading
from securead.errors import FixConfigurationError, FixInputError, SecureadError

CHANNELS = (Column("flow", 0, 60), Column("load", 1, 1000, "log"))
SCHEMA = WindowedSchema.of(Window(CHANNELS, 3, stride=2, period=1.0))


def test_columns_are_the_channels_reading_after_reading() -> None:
    assert SCHEMA.names == ("flow[-2]", "load[-2]", "flow[-1]", "load[-1]", "flow[-0]", "load[-0]")
    assert [c.transform for c in SCHEMA.columns[:2]] == ["identity", "log"]
    assert SCHEMA.readings.names == ("flow", "load")


def test_an_encoder_of_windows_survives_json_and_one_without_them_is_digested_as_before() -> None:
    for schema in (SCHEMA, SCHEMA.localised(), SCHEMA.with_scale(np.ones(6), np.ones(6)), Schema(CHANNELS)):
        encoder = Encoder(schema)
        again = codec.from_plain(Encoder, json.loads(json.dumps(codec.to_plain(encoder))), where="encoder")
        assert again == encoder
        assert type(again.schema) is type(schema)
        assert codec.digest(again, domain="d") == codec.digest(encoder, domain="d")
    assert "type" not in codec.to_plain(Encoder(Schema(CHANNELS)))["schema"]


def test_every_part_of_the_window_is_in_the_digest() -> None:
    others = [
        Window(CHANNELS, 3, stride=2),
        Window(CHANNELS, 3, stride=1, period=1.0),
        Window(CHANNELS, 3, stride=2, period=1.0, gap=2.0),
        Window(CHANNELS, 3, stride=2, period=1.0, fill=1),
        Window(CHANNELS, 3, stride=2, period=1.0, missing="gap"),
        Window(CHANNELS, 3, stride=2, period=1.0, early="drop"),
        Window(CHANNELS, 3, stride=2, period=1.0, local=True),
    ]
    digests = {codec.digest(WindowedSchema.of(window), domain="d") for window in [SCHEMA.window, *others]}
    assert len(digests) == 8


def test_columns_that_are_not_the_windows_are_refused() -> None:
    plain = codec.to_plain(SCHEMA)
    plain["columns"][0]["upper"] = 61.0
    with pytest.raises(FixConfigurationError, match="not the window's"):
        codec.from_plain(WindowedSchema, plain, where="schema")


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0},
        {"stride": 0},
        {"period": 0.0},
        {"period": math.nan},
        {"gap": 1.0},
        {"fill": -1},
        {"fill": 3},
        {"channels": ()},
        {"channels": (CHANNELS[0], CHANNELS[0])},
        {"length": 4097},
    ],
    ids=str,
)
def test_an_absurd_window_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(FixConfigurationError):
        Window(**{"channels": CHANNELS, "length": 3, **wrong})  # type: ignore[arg-type]


def test_how_many_windows_a_reading_touches() -> None:
    assert Window(CHANNELS, 10).windows_per_reading == 10
    assert Window(CHANNELS, 10, stride=10).windows_per_reading == 1
    assert Window(CHANNELS, 10, stride=4).windows_per_reading == 3
    assert Window(CHANNELS, 10, stride=4, fill=3).windows_per_reading == 4, "what fills in is in further windows"
    assert windows_per_reading(Schema(CHANNELS)) == 1
    assert windows_per_reading(SCHEMA) == 2


def test_a_local_scale_is_of_its_channels_and_survives_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scale = LocalScale("a", SCHEMA.window.channels_digest, (30.0, 3.0), (2.0, 0.5), 4.5)
    scale.write(tmp_path / "scale.json")
    assert LocalScale.read(tmp_path / "scale.json") == scale
    assert (tmp_path / "scale.json").stat().st_mode & 0o777 == 0o600
    scale.check(Window(CHANNELS, 7, stride=3)), "however they are cut"
    with pytest.raises(FixInputError, match="other channels"):
        scale.check(Window(CHANNELS[:1], 3))
    Z = scale.standardise(SCHEMA.readings, np.array([[32.0, 1.0], [60.0, 1000.0]]))
    np.testing.assert_allclose(Z, [[1, -6], [8, (math.log(1000) - 3) / 0.5]])
    with pytest.raises(SecureadError):
        LocalScale("a", "", (1.0,), (0.0,))
