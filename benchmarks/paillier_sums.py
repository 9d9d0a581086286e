"""Packed sums under Paillier beside unpacked ones: 2,000 values from 5 sites, seconds and bytes a site.

    python benchmarks/paillier_sums.py --out bench-output/paillier_sums.json

Processor time of this process, so one core's, whoever else uses the machine; `wall` is the clock's. A site's time is
the library's whole work for a round: the set and its signatures (certificates verified), packing, pads, encryption
with fresh randomness under a key of 3,072 bits and, at the one that opens, the opening of the sum;
`packed_s_per_site` is that of the slowest, the one that opens. `packed` values are known to fit `bits`, `whole` ones
64. The run's key is made and sealed once (`key_s`). "Unpacked" is phe as its documentation has it: a ciphertext a
value, `encrypt` at each site and `decrypt` of each sum, on whole numbers, by the same key in the same run. Both are
checked against the plain sum.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from phe import paillier

from securead import certificates
from securead.federated.messages import Answer, to_bytes
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Authority, Identity
from securead.protocols.masking.masker import Masker
from securead.protocols.paillier import keys
from securead.protocols.paillier.groupkey import GroupKey
from securead.protocols.paillier.summing import Summing
from securead.protocols.paillier.sums import Adder

Progress = Callable[[str], None]


class Clock:
    """Seconds since it was made or asked: of the processor, and of the clock."""

    def __init__(self) -> None:
        self._at = self._now()

    def __call__(self) -> np.ndarray:
        before, self._at = self._at, self._now()
        return self._at - before

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.process_time(), time.perf_counter()])


class Scene:
    """Sites with certificates and memories of their own, and the coordinator's arithmetic between them."""

    def __init__(self, folder: Path, sites: int) -> None:
        self.names = [f"bank-{number}" for number in range(sites)]
        certificates.issue(folder / "deployment", self.names)
        roster = Authority(folder / "deployment" / "ca.crt", self.names)
        self.maskers, self.summings, self.memories = {}, {}, {}
        for name in self.names:
            self.memories[name] = Kept(folder / name)
            identity = Identity.from_member(folder / "deployment" / name)
            masker = Masker("benchmark", identity, roster, self.memories[name], minimum=2, attempts=3)
            self.maskers[name] = masker
            self.summings[name] = Summing("benchmark", masker, self.memories[name], sites=sites)
        self.adverts = [masker.advert() for masker in self.maskers.values()]
        clock = Clock()
        first, *others = self.names
        sealed = self.summings[first].hand_on(self.adverts[1:])
        modulus = self.summings[first].modulus.tobytes()
        for name, content in zip(others, sealed, strict=True):
            self.summings[name].take(self.adverts[0], modulus, content)
        self.key_s = clock()[0]
        self.n = int.from_bytes(modulus, "little")

    def round(self, number: int, values: dict[str, np.ndarray], bits: int) -> dict[str, np.ndarray]:
        """One round: seconds of its parts, and bytes of a message."""
        signatures, messages, agree, send, clock = {}, {}, [], [], Clock()
        for name, masker in self.maskers.items():
            signatures[name] = masker.agree(number, 1, self.adverts, values[name])
            agree.append(clock())
        for name, summing in self.summings.items():
            messages[name] = summing.message(number, 1, signatures, values[name], bits)
            send.append(clock())
        adder = Adder(self.n)
        for name, message in messages.items():
            adder.add(name, message)
        product = adder.total(self.names)
        added, opener = clock(), self.names[-1]
        opened = self.summings[opener].open(number, 1, signatures, values[opener], bits, product)
        opening = clock()
        assert opened is not None
        assert np.array_equal(opened, sum(values.values()))
        one = np.median(agree, axis=0) + np.median(send, axis=0)
        key, arrays = (
            self.summings[opener].key_name,
            {"ciphertexts": messages[opener], "shape": np.array([len(opened)])},
        )
        sent = to_bytes(Answer("send", opener, number, 1, bits=bits, group_key=key, arrays=arrays))
        sizes = {"bytes": np.array([messages[opener].nbytes]), "message": np.array([len(sent)])}
        return {"site": one, "opener": one + opening, "coordinator": added, **sizes}


def unpacked(key: GroupKey, values: dict[str, np.ndarray], progress: Progress) -> tuple[np.ndarray, np.ndarray, int]:
    """phe's own way, a ciphertext a value: seconds of one site's encryption and of opening the sums, and bytes."""
    public = paillier.PaillierPublicKey(key.n)
    private = paillier.PaillierPrivateKey(public, key.private.p, key.private.q)
    first, *others = values
    mine, sums, clock = values[first].tolist(), [], Clock()
    for at, value in enumerate(mine):
        sums.append(public.encrypt(value))
        if at % 200 == 199:
            progress(f"unpacked: {at + 1} of {len(mine)} values encrypted")
    encrypting = clock()
    size = sum((each.ciphertext(be_secure=False).bit_length() + 7) // 8 for each in sums)
    # The other sites' encryptions take as long; their values are added in the clear, which decrypts to the same sums.
    sums = [each + sum(int(values[name][at]) for name in others) for at, each in enumerate(sums)]
    clock()
    opened = [private.decrypt(each) for each in sums]
    decrypting = clock()
    assert opened == sum(values.values()).tolist()
    return encrypting, decrypting, size


def measure(
    *, sites: int = 5, values: int = 2000, bits: int = 32, rounds: int = 5, progress: Progress = lambda text: None
) -> dict[str, Any]:
    """The figures, in seconds and bytes; `packed_*` at `bits` a value, `whole_*` at 64."""
    keys.phe()
    rng, found = np.random.default_rng(0), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), sites)
        progress(f"key made and handed on: {scene.key_s:.1f} s")
        number = 0
        for kind, width in (("packed", bits), ("whole", 64)):
            taken = []
            for _ in range(rounds):
                number += 1
                high = 2 ** (min(width, 60) - 1)
                updates = {name: rng.integers(-high, high, values) for name in scene.names}
                taken.append(scene.round(number, updates, width))
            middle = {part: np.median([each[part] for each in taken], axis=0) for part in taken[0]}
            found[f"{kind}_s_per_site"], found[f"{kind}_wall_s_per_site"] = middle["opener"].round(4).tolist()
            found[f"{kind}_s_not_opening"], found[f"{kind}_wall_s_not_opening"] = middle["site"].round(4).tolist()
            found[f"{kind}_s_coordinator"] = round(float(middle["coordinator"][0]), 4)
            found[f"{kind}_bytes_per_site"] = int(middle["bytes"][0])
            found[f"{kind}_message_bytes"] = int(middle["message"][0])
            progress(f"{kind}: {middle['opener'][0]:.2f} s and {int(middle['bytes'][0]):,} bytes a site")
        high = 2 ** (bits - 1)
        updates = {name: rng.integers(-high, high, values) for name in scene.names}
        kept = scene.memories[scene.names[0]].get("paillier.key")
        assert kept is not None
        key = GroupKey.from_bytes(kept.tobytes(), where="benchmark")
        encrypting, decrypting, size = unpacked(key, updates, progress)
    seconds, wall = encrypting + decrypting
    return {
        "sites": sites,
        "values": values,
        "bits": bits,
        "key_bits": keys.KEY_BITS,
        "key_s": round(float(scene.key_s), 3),
        **found,
        "unpacked_s_per_site": round(float(seconds), 2),
        "unpacked_wall_s_per_site": round(float(wall), 2),
        "unpacked_s_not_opening": round(float(encrypting[0]), 2),
        "unpacked_bytes_per_site": size,
        "ratio_time_unpacked": round(float(seconds) / found["packed_s_per_site"], 1),
        "ratio_wall_unpacked": round(float(wall) / found["packed_wall_s_per_site"], 1),
        "ratio_bytes_unpacked": round(size / found["packed_bytes_per_site"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--values", type=int, default=2000)
    parser.add_argument("--bits", type=int, default=32, help="signed bits that a value is known to fit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = measure(
        sites=given.sites,
        values=given.values,
        bits=given.bits,
        rounds=given.rounds,
        progress=lambda text: print(text, flush=True),
    )
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
