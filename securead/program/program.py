"""Programs: what a detector compiles to, whatever its kind. The narrow waist between detectors and engines.

Two kinds exist: polynomials (`polynomial`) and tables (`table`). Both have a public half, which is all that a data
owner needs, and a secret half; an engine says by kind and operations which ones it carries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from securead.data.schema import Array
from securead.program.polynomial import PublicPolynomial, SecretPolynomial
from securead.program.table import PublicTable, SecretTable

PublicProgram = PublicPolynomial | PublicTable
"""A public half. Both kinds offer `encoder`, `digest`, `operations`, `queries`, `public_term`, `decode`, `score_bits`,
`tolerance`, `honest_extraction_rows` and `commitment`."""
SecretProgram = SecretPolynomial | SecretTable


@dataclass(frozen=True, eq=False)
class Program:
    """Both halves, as the model owner holds them. `Program(public, secret)` checks that they belong together."""

    public: PublicProgram
    secret: SecretProgram = field(repr=False)

    def __post_init__(self) -> None:
        self.public.check(self.secret)

    @property
    def digest(self) -> str:
        """The public half's digest."""
        return self.public.digest

    def evaluate(self, Z: Array) -> Array:
        """The oracle: exact integer scores `(n,)` (Python integers) of encoded records `(n, width)`."""
        return self.public.evaluate(self.secret, Z)

    def score(self, X: Array) -> Array:
        """Float scores of raw records: encode, evaluate exactly, decode."""
        Z, _ = self.public.encoder.encode(X)
        return self.public.decode(self.evaluate(Z))
