"""Paillier: sums of training under the sites' key (`summing`), and blind lookup; contracts in protocols/paillier/."""
