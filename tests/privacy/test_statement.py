"""The statement says what holds, and never claims what does not."""

from __future__ import annotations

from securead.privacy.statement import PrivacyStatement, ReadingGuarantee, Release, SiteGuarantee


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


def test_an_import_claims_nothing_and_says_what_it_discloses() -> None:
    statement = PrivacyStatement(False, imported_from="elsewhere 1.0 (Forest)", not_covered=("its splits",))
    assert statement.epsilon is None
    assert statement.in_words() == (
        "No differential-privacy guarantee: imported from elsewhere 1.0 (Forest).",
        "Disclosed to everyone who submits records: its splits.",
    )


def test_windows_have_two_units_and_the_weaker_one_is_not_hidden() -> None:
    for epsilon, little in ((3.0, False), (60.0, True)):
        readings = ReadingGuarantee(10, 1, 10, (SiteGuarantee("a", epsilon, 2 * epsilon), SiteGuarantee("b", 1.0, 1.0)))
        sites = (SiteGuarantee("a", 1.0, 2.0), SiteGuarantee("b", 0.5, 0.5))
        words = " ".join(PrivacyStatement(True, 1e-6, sites, readings=readings).in_words())
        assert "A record here is a window of 10 readings" in words
        assert f"lies in up to 10 windows; for all of them together epsilon = {epsilon:g}" in words
        assert ("next to no protection" in words) == little
        assert f"for all windows of a single reading: a: {2 * epsilon:g}" in words
    assert "window" not in " ".join(PrivacyStatement(True, 1e-6, (SiteGuarantee("a", 0.5),)).in_words())


def test_what_was_made_smaller_says_by_which_records() -> None:
    what = "4 of 9 trees and the threshold, chosen by 50 labelled records"
    private = PrivacyStatement(True, 1e-6, (SiteGuarantee("a", 0.5),), shrunk=what).in_words()
    assert what in private[-1]
    assert "only if none of them was a training record" in private[-1]
    for statement in (PrivacyStatement(False, shrunk=what), PrivacyStatement(False, imported_from="x", shrunk=what)):
        assert "protected by nothing" in statement.in_words()[-1]
        assert "training record;" not in statement.in_words()[-1]
