"""Pumps, an untrusted cloud and an operations centre as processes: encrypted readings out, alarms in, nothing lost.

Run: python examples/iot_gateway/run.py [FOLDER]    (about half a minute; FOLDER keeps the page and all that was made)
"""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import securead as sa
from securead.data.generators.sensors import Fleet, generate_sensors
from securead.data.streaming import windows_of
from securead.data.windows import Window, WindowedSchema

LENGTH = 5  # readings a window
STREAMING = ("gateway-1", "gateway-2", "gateway-5")  # of six that trained
MIDNIGHT = 1_767_225_600  # of 2026-01-01, in seconds
SECONDS = 12.0  # in which a day of readings is replayed


def train(fleet: Fleet, folder: Path) -> None:
    """The model owner's part. Exact sums, because it takes a second: see README.md for a private run."""
    schema = WindowedSchema.of(Window(fleet.schema.columns, LENGTH, period=60.0))
    sites = []
    for name in fleet.sites:
        (folder / name).mkdir(parents=True)
        windows = windows_of(schema, fleet.of_site(name).X[: fleet.quiet], np.arange(fleet.quiet) * 60.0)
        sites.append(sa.Site(name, windows.X, scale=folder / name / "scale.json"))
    detector = sa.SubspaceDetector(scaling="local", threshold=sa.FalseAlarms(0.001))
    sa.train(detector, sites, schema, privacy=None)
    sa.make_bundle(detector, "pumps").save(folder / "cloud" / "bundle")


class Processes:
    """Every role is a process of the command line, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.running = folder, 0, {}

    def command(self, name: str) -> list[object]:
        place, server = self.folder / name, f"http://127.0.0.1:{self.port}"
        if name == "cloud":
            return ["serve", place / "bundle", "--no-tls", "--port", self.port, "--outbox", place / "outbox.sqlite"]
        if name == "centre":
            kept = ["--record", place / "record.sqlite", "--page", place / "page.html"]
            return ["centre", "--server", server, "--keys", place / "keys", "--interval", 0.2, *kept]
        held = ["--keys", place / "public", "--token", place / "deposit.token", "--scale", place / "scale.json"]
        work = ["--spool", place / "spool.sqlite", "--name", name, "--follow", "--batch", 240, "--age", 3]
        return ["gateway", place / "readings.csv", "--server", server, *held, *work]

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log, (self.folder / f"{name}.out").open("ab") as out:
            at = out.tell()
            command = [sys.executable, "-m", "securead", *map(str, self.command(name))]
            self.running[name] = subprocess.Popen(command, stdout=out, stderr=log)
        while name == "cloud":  # it says where it listens
            if found := re.search(r"serves at http://[\d.]+:(\d+)\n", (self.folder / "cloud.out").read_text()[at:]):
                self.port = int(found[1])
                return
            self.check()
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running.pop(name).wait()

    def check(self) -> None:
        for name, process in self.running.items():
            if process.poll() is not None:
                raise SystemExit(f"{name} ended:\n" + (self.folder / f"{name}.log").read_text()[-2000:])

    def peak_megabytes(self, name: str) -> float:
        status = Path(f"/proc/{self.running[name].pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def securead(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "securead", *map(str, arguments)], check=True, stderr=subprocess.PIPE)


def prepare(processes: Processes) -> None:
    """The centre makes keys and opens its mailbox; every gateway gets the public half and the deposit token."""
    folder, server = processes.folder, f"http://127.0.0.1:{processes.port}"
    keys = folder / "centre" / "keys"
    securead("keygen", "--server", server, "--model", "pumps", "--role", "split", "--out", keys)
    securead("mailbox", "--server", server, "--keys", keys, "--out", folder / "centre" / "deposit.token")
    for name in STREAMING:
        shutil.copytree(keys / "public", folder / name / "public")
        shutil.copy2(folder / "centre" / "deposit.token", folder / name)


def stream(fleet: Fleet, processes: Processes) -> None:
    """Sensors write lines; meanwhile the cloud, a gateway and the centre are killed with `kill -9`."""
    files = [(processes.folder / name / "readings.csv").open("a") for name in STREAMING]
    deaths = [(0.3, "cloud"), (0.5, STREAMING[0]), (0.7, "centre")]
    back: list[tuple[float, str]] = []
    steps = len(fleet.of_site(STREAMING[0]).X) - fleet.quiet
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        for file, name in zip(files, STREAMING, strict=True):
            stack.enter_context(file)
            file.write("time," + ",".join(fleet.schema.names) + "\n")
            processes.start(name)
        for at in range(0, steps, 20):
            for file, name in zip(files, STREAMING, strict=True):
                X = fleet.of_site(name).X[fleet.quiet :]
                file.writelines(
                    f"{MIDNIGHT + row * 60}," + ",".join(map(str, X[row])) + "\n" for row in range(at, at + 20)
                )
                file.flush()
            while deaths and at >= deaths[0][0] * steps:
                _, name = deaths.pop(0)
                processes.kill(name)
                print(f"  killed {name}")
                back.append((at + 0.15 * steps, name))
            while back and at >= back[0][0]:
                processes.start(back.pop(0)[1])
            processes.check()
            time.sleep(max(0.0, start + SECONDS * at / steps - time.monotonic()))
    for _, name in back:
        processes.start(name)


def report(fleet: Fleet, processes: Processes) -> None:
    """Wait until every window has arrived, then compare alarms with the faults that were put in."""
    from securead.client.keys import load_holder
    from securead.client.record import Record

    folder, steps = processes.folder, len(fleet.of_site(STREAMING[0]).X) - fleet.quiet
    wanted = steps - LENGTH + 1
    for name in STREAMING:
        while f"{wanted:,} windows," not in _page_of(name, folder):
            processes.check()
            time.sleep(0.2)
    peaks = {name: processes.peak_megabytes(name) for name in STREAMING}
    for name in list(processes.running):
        processes.running[name].terminate()
        processes.running.pop(name).wait()
    holder = load_holder(folder / "centre" / "keys")
    with Record(folder / "centre" / "record.sqlite", holder.model, holder.record.key) as record:
        streams, alarms = record.streams(), record.alarms()
    faults = [fault for fault in fleet.faults if fault.gateway in STREAMING]
    # A window that ends up to LENGTH - 1 readings after a fault still holds some of it.
    spans = [(f.gateway, f.start - fleet.quiet, f.stop - fleet.quiet + LENGTH - 2) for f in faults]
    found = [any(a.gateway == g and a.first <= last and a.last >= first for a in alarms) for g, first, last in spans]
    meant = [a for a in alarms if any(a.gateway == g and a.first <= last and a.last >= f for g, f, last in spans)]
    for kind in fleet.kinds[1:]:
        hits = [hit for hit, fault in zip(found, faults, strict=True) if fault.kind == kind]
        print(f"  {kind:18} {sum(hits):3} of {len(hits):3} faults raised an alarm")
    windows = wanted * len(STREAMING)
    print(f"  {len(alarms)} alarms, {len(alarms) - len(meant)} of them without a fault, in {windows:,} windows")
    for each in streams:
        came = f"{each.windows:,} windows in {each.taken} messages, {each.missing} missing, {each.again} fetched twice"
        print(f"  {each.gateway}: {came}; peak memory {peaks[each.gateway]:.0f} MB")


def _page_of(name: str, folder: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        for part in (folder / "centre" / "page.html").read_text().split("<section>"):
            if f"<h3>{name} " in part:
                return part
    return ""


def main() -> None:
    with contextlib.ExitStack() as stack:
        kept = Path(sys.argv[1]) if len(sys.argv) > 1 else None
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="securead-iot-")))
        if kept is not None:
            kept.mkdir(parents=True)
        fleet = generate_sensors(gateways=6, readings=2_880, fault_rate=0.05, seed=0)
        train(fleet, folder)
        processes = Processes(folder)
        stack.callback(lambda: [processes.kill(name) for name in list(processes.running)])
        processes.start("cloud")
        prepare(processes)
        processes.start("centre")
        print(f"three gateways stream a day of readings; live page: {folder / 'centre' / 'page.html'}")
        stream(fleet, processes)
        report(fleet, processes)


if __name__ == "__main__":
    main()
