"""Linear programs on features that their owner encrypts under its own Paillier key: the classical use."""
