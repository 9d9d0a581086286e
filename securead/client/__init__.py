"""The side that has records: encrypt, submit, decrypt. Needs no torch, numba or scikit-learn."""

from securead.client.keys import Keys, load_keys, make_keys
from securead.client.results import Scores
from securead.client.scoring import Client
from securead.client.service import Service

__all__ = ["Client", "Keys", "Scores", "Service", "load_keys", "make_keys"]
