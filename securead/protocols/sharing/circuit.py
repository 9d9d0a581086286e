"""A program on shares: what one party computes, by CrypTen's protocols, with its peer.

Guarantees: nothing is opened but differences with uniform masks that are used once; what leaves are shares of scores
or of verdicts, re-randomised, so that who holds both learns these and nothing else of the computation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from securead.data.schema import Array
from securead.errors import FixInputError
from securead.program.polynomial import Affine, Input, Product, Relu, Truncate
from securead.protocols.sharing import runtime, signs
from securead.protocols.sharing.correlations import words_of_bytes
from securead.protocols.sharing.plan import SharingPlan
from securead.protocols.sharing.shares import ModelShare
from securead.protocols.sharing.stock import Stock

runtime.crypten()

import crypten.communicator as communication  # noqa: E402
from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor, beaver  # noqa: E402


class Circuit:
    """One party's half of a program. CrypTen must run (`runtime.start`) with `stock`, loaded for the rows to come.

    `share`: int64 `(n, input_width)`, 1 <= n <= rows_per_chunk; n rows consume `plan.correlations(n, verdict)`.
    """

    def __init__(self, plan: SharingPlan, model: ModelShare, stock: Stock) -> None:
        if plan.program_digest != model.program_digest:
            raise FixInputError("the plan was made for another model", value=plan.program_digest[:16])
        self._plan, self._rank, self._stock = plan, model.index, stock
        self._parts = {name: torch.from_numpy(part.copy()) for name, part in model.parts.items()}

    def score(self, share: Array) -> Array:
        """This party's shares of integer scores, int64 `(n,)`, public terms included."""
        scores = self._scores(share)
        self._stock.finish()
        fresh = scores + ArithmeticSharedTensor.PRZS(scores.shape).share
        result: Array = fresh[: len(share)].numpy()
        return result

    def verdict(self, share: Array) -> Array:
        """This party's XOR-shares of verdicts, int64 `(n,)`: 0 for a score from the lowest to the threshold, else 1."""
        scores, rank = self._scores(share), self._rank
        below, above = scores.clone(), self._parts["threshold"] - scores
        if rank == 0:
            below -= self._plan.lowest_score
        outside = signs.sign_bits(torch.stack([below, above]).numpy(), rank)
        bits = signs.either(outside[0], outside[1], rank).astype(np.int64)
        self._stock.finish()
        fresh = torch.from_numpy(bits) ^ BinarySharedTensor.PRZS(bits.shape).share
        result: Array = fresh[: len(share)].numpy()
        return result

    def _scores(self, share: Array) -> torch.Tensor:
        """Shares of the scores of `bucket(n)` rows, those beyond n of zero records."""
        plan = self._plan
        if share.ndim != 2 or share.shape[1] != plan.input_width:
            raise FixInputError("a share has the wrong shape", value=share.shape)
        padded = np.zeros((plan.bucket(len(share)), plan.input_width), dtype=np.int64)
        padded[: len(share)] = share
        words = torch.from_numpy(padded)
        if plan.sizes:
            return _matmul(words, self._parts["tables"])[:, 0]
        columns = plan.steps[0].width
        values = list[torch.Tensor]()
        for at, step in enumerate(plan.steps):
            match step:
                case Input():
                    values.append(words[:, :columns])
                case Affine():
                    sources = [values[s] for s in step.sources]
                    joined = sources[0].contiguous() if len(sources) == 1 else torch.cat(sources, dim=1)
                    values.append(_matmul(joined, self._parts[f"matrix {at}"]) + self._parts[f"offset {at}"])
                case Product():
                    left = _arithmetic(values[step.left])
                    # Its own `square` would also divide by a scale, which is one here.
                    square = step.left == step.right
                    product = beaver.square(left) if square else left.mul(_arithmetic(values[step.right]))
                    values.append(product.share)
                case Relu():
                    values.append(self._relu(values[step.source]))
                case Truncate():
                    values.append(truncate(values[step.source], step.shift))
        return values[-1][:, 0] + words[:, columns] if plan.public_terms else values[-1][:, 0]

    def _relu(self, share: torch.Tensor) -> torch.Tensor:
        """x (1 - b) for the XOR-shared sign b: one round, in which x is masked by a, and b by r.

        With z = b XOR r opened, b = r + z - 2 r z, so x b = z x + (1 - 2 z) x r; and x r = (x - a) r + a r.
        """
        sign = torch.from_numpy(signs.sign_bits(share.numpy(), self._rank))
        mask, bits, bit, masked_bit = self._stock.bit_product(tuple(share.shape))
        hidden = torch.zeros(words_of_bytes(share.numel()) * 8, dtype=torch.uint8)
        hidden[: share.numel()] = (sign ^ bits.to(torch.uint8)).reshape(-1)
        # Added, bytes of 0 or 1 do not carry; the lowest bit of the sum is the XOR.
        opened, summed = communication.get().all_reduce([share - mask, hidden.view(torch.int64)], batched=True)
        z = (summed.view(torch.uint8)[: share.numel()] & 1).to(torch.int64).reshape(share.shape)
        product = opened * bit + masked_bit
        rectified: torch.Tensor = share - (z * share + (1 - 2 * z) * product)
        return rectified


def truncate(share: torch.Tensor, shift: int) -> torch.Tensor:
    """A share of floor(v / 2**shift), off by at most a unit: two parties truncate their shares each for itself.

    CrypTen's `div_` for two parties, which rounds a share towards zero; by shifting, because a division takes tenfold.
    """
    negative = share >> 63  # all ones or all zeros
    truncated: torch.Tensor = (share + (negative & ((1 << shift) - 1))) >> shift
    return truncated


def _matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = _arithmetic(left).matmul(_arithmetic(right)).share
    return product


def _arithmetic(share: torch.Tensor) -> Any:
    return ArithmeticSharedTensor.from_shares(share, precision=0)
