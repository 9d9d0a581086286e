"""The seed of everything random in the tests: a failure is replayed with SECUREAD_TEST_SEED set to what it printed."""

from __future__ import annotations

import os

SEED = int(os.environ.get("SECUREAD_TEST_SEED", "0"))
