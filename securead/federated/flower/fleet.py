"""What both ends of Flower's Fleet API agree on."""

from __future__ import annotations

from securead.federated.messages import MAX_BYTES

ROLE = "coordinator"  # the name in its certificate, whatever its address
MAX_REQUEST_BYTES = MAX_BYTES + (1 << 20)
HELD = 10.0  # seconds that a request for messages is held; Flower's client waits 30
# Why the coordinator refuses a request, as HTTP's status.
UNSIGNED, STRANGER, ELSEWHERE, TAKEN, REPLACED, TOO_LARGE, CLOSING = 401, 403, 404, 409, 410, 413, 503
