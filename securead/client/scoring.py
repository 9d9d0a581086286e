"""`Client`: have records scored in three lines, without the service seeing them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from securead.client import workflow
from securead.client.keys import Keys, make_keys
from securead.client.results import Scores
from securead.client.service import ModelReplacedError, Offer, Service
from securead.client.setups import with_published
from securead.client.watch import Watch
from securead.data.schema import Array, Schema
from securead.errors import FixInputError, UseOtherKeyError
from securead.models.bundle import PublicModel


class Client:
    """A scoring service, seen by someone with records.

    Records are encrypted here and scores decrypted here; the service sees neither. Arguments: see
    `securead.client.service.Service`.
    """

    def __init__(
        self, url: str, *, ca: Path | str | None = None, patience: float = 60.0, watch: Watch | None = None
    ) -> None:
        self._service = Service(url, ca=Path(ca) if ca is not None else None, patience=patience, watch=watch)
        self._watch = watch
        self._keys: dict[str, Keys] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and forget the keys made here."""
        self._keys.clear()
        self._service.close()

    def models(self) -> tuple[Offer, ...]:
        """What the service offers."""
        return self._service.models()

    def model(self, name: str) -> PublicModel:
        """The public half of a model: schema, threshold, privacy statement."""
        return self._service.model(name)

    def score(self, name: str, X: Any, keys: Keys | None = None) -> Scores:
        """Scores of records `(n, d)`, in the schema's column order or as a data frame with the schema's columns.

        Without `keys`, keys are made in memory at the first call and kept by this client for further calls. Raises
        `FixInputError` for records that do not fit the schema, `UseOtherKeyError` for keys of another model.
        """
        if keys is None:
            keys = self._keys.get(name) or with_published(
                self._service, make_keys(self._service.model(name), "same"), watch=self._watch
            )
            self._keys[name] = keys
        elif keys.model.name != name:
            raise UseOtherKeyError(
                f"these keys are for the model {keys.model.name!r}", value=name, remedy="Make keys for this model."
            )
        try:
            records = as_records(X, keys.model.program.encoder.schema)
            return workflow.score_records(self._service, keys, records, watch=self._watch)
        except ModelReplacedError:
            # The next call fetches the model again. Never after a failed decryption: a service that tampers with an
            # answer would see by that call whether it had decrypted.
            self._keys.pop(name, None)
            raise


def as_records(X: Any, schema: Schema) -> Array:
    """Records as float64 `(n, d)`; a data frame's columns are checked, and matched by name."""
    columns = getattr(X, "columns", None)
    try:
        records = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FixInputError(f"the records are not numbers: {error}", remedy="Encode categories as numbers.") from error
    return records if columns is None else records[:, schema.order(tuple(map(str, columns)), reorder=True)]
