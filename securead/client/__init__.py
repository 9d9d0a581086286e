"""The side that has records: encrypt, submit, decrypt; or share among two parties. Needs no torch, numba, sklearn."""

from securead.client.keys import Keys, load_keys, make_keys
from securead.client.parties import Parties
from securead.client.results import Scores
from securead.client.scoring import Client
from securead.client.service import Service
from securead.client.sharing import Sharing, open_sharing

__all__ = ["Client", "Keys", "Parties", "Scores", "Service", "Sharing", "load_keys", "make_keys", "open_sharing"]
