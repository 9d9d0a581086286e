"""The side that has records: encrypt, submit, decrypt. Needs no torch, numba or scikit-learn."""

from securead.client.keys import Keys, load_keys, make_keys
from securead.client.results import Scores
from securead.client.scoring import Client
from securead.client.service import Service
from securead.client.sharing import Sharing, open_sharing

__all__ = ["Client", "Keys", "Scores", "Service", "Sharing", "load_keys", "make_keys", "open_sharing"]
