"""How long SEAL's files are: all that a plan needs to know of them. Imports no cryptography."""

from __future__ import annotations

# A file's header; a ciphertext's metadata with its array's header, then words; a seed in place of the last polynomial.
HEADER_BYTES, METADATA_BYTES, SEED_BYTES = 16, 97, 81
# A plaintext's metadata with its array's header, then words. A secret key is a plaintext.
PLAINTEXT_BYTES = 72


def compressed_limit(length: int) -> int:
    """No honest Zstandard file of `length` bytes is longer than this, SEAL's header included."""
    return HEADER_BYTES + length + length // 128 + 1024
