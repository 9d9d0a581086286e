"""Exact modular arithmetic on arrays of ciphertext residues: what an evaluator without keys computes with.

**Arrays.** A residue is an `int64` in [0, p) for an odd prime p of 20 to 50 bits (SEAL's words: `view(np.int64)`). What
is computed prime by prime and slot by slot takes one prime's array `(elements, polynomials, slots)`: an element is one
ciphertext, its polynomials are the coefficients of c0 + c1 Y + c2 Y^2 + ..., Y standing for the secret key, in NTT
form. The slots may be any part of the ring dimension N: an evaluator cuts N into blocks of a thousand slots or so, lays
its batch out as `(primes, blocks, elements, polynomials, slots)`, and carries one block through all its layers before
it takes the next, so that everything stays in the processor's cache. Only transforms, and rescaling with them, need
all N slots: `(primes, elements, polynomials, N)`.

**Guarantee.** Results are the canonical residues of the exact integers, the same bits in every form and on every
machine. Whatever could round is proved not to when a layer is compiled, or refused there with `FixProgramError`.

**Public data only.** Timing may depend on residues: nothing here may touch a key or a plaintext of a data owner.

| module | holds |
|---|---|
| `layers` | `LinearMap` and `ProductSum`: weights, compiled for a prime with the proof of exactness |
| `form` | the operations that both forms offer |
| `numba_form`, `torch_form` | the operations on NumPy arrays with compiled loops, and on tensors of any device |
| `transforms` | the number-theoretic transform in SEAL's order, and rescaling as SEAL rounds |
| `expansion` | uniform residues from a public seed; imports neither numba nor torch |
| `loops` | every compiled loop |

Proofs and measurements: docs/adr/0005-residue-kernels.md.
"""
