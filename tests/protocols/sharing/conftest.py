"""Certificates for tests: one deployment a session, and strangers whose authority has the same names."""

from __future__ import annotations

import pytest
from sharing_setting import MEMBERS, Deployment

from securead import certificates


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """dealer, party0, party1 and the clients bank-a and bank-b."""
    directory = tmp_path_factory.mktemp("deployment")
    certificates.issue(directory, MEMBERS)
    return Deployment(directory)


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The same names under another authority."""
    directory = tmp_path_factory.mktemp("strangers")
    certificates.issue(directory, MEMBERS)
    return Deployment(directory)
