"""The statement says what holds, and never claims what does not."""

from __future__ import annotations

from securead.privacy.statement import PrivacyStatement, Release, SiteGuarantee


def test_private_statement_names_the_weakest_site() -> None:
    statement = PrivacyStatement(
        True, 1e-6, (SiteGuarantee("a", 0.5), SiteGuarantee("b", 1.25)), (Release("moments", 4.0, 5),)
    )
    words = " ".join(statement.in_words())
    assert statement.epsilon == 1.25
    assert "epsilon = 1.25" in words
    assert "delta = 1e-06" in words
    assert "a: 0.5" in words
    assert "moments (5 times, noise multiplier 4)" in words


def test_non_private_statements_claim_nothing() -> None:
    for statement in (
        PrivacyStatement(False),
        PrivacyStatement(False, 1e-6, (SiteGuarantee("a", 1.0),), noise_source="seeded-study"),
    ):
        words = " ".join(statement.in_words())
        assert statement.epsilon is None
        assert "NO privacy" in words
        assert "epsilon =" not in words
