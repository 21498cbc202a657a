"""Small jobs for the tests of executors. Workers import this module, so it stays free of pytest."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from corpus_guard.errors import DataError, TransientError
from corpus_guard.executors.seam import Item, Status


def once(folder: str, key: str) -> bool:
    """True the first time, in whichever process."""
    try:
        Path(folder, f"{key}.once").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def misbehave(item: Item, folder: str, where: str) -> None:
    """What *item*'s payload asks for: ``{"front": ...}`` or ``{"back": ...}``."""
    deed = (item.payload or {}).get(where)
    if deed is None:
        return
    with open(os.path.join(folder, "deeds.txt"), "a") as lines:
        lines.write(f"{item.key} {where} {os.getpid()}\n")
    if deed == "kill" or (deed == "kill once" and once(folder, item.key)):
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "hang" or (deed == "hang once" and once(folder, item.key)):
        time.sleep(600)
    elif deed == "sleep":
        time.sleep(0.5)
    elif deed == "data":
        raise DataError(f"{item.key} cannot be read.")
    elif deed == "transient" or (deed == "transient once" and once(folder, item.key)):
        raise TransientError(f"{item.key}: the store answered 503.")
    elif deed == "raise" or (deed == "raise once" and once(folder, item.key)):
        raise ValueError(f"{item.key} is unlucky. " + "long " * 5000)
    elif deed == "exit":
        raise SystemExit(3)


def deeds(folder: Path) -> list[str]:
    """Keys in the order in which ``misbehave`` saw them."""
    path = folder / "deeds.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class PlainJob:
    """One pool: squares ``rows``."""

    folder: str
    name: str = "plain"
    two_pools: bool = False

    def open_front(self) -> "PlainFront":
        return PlainFront(self.folder)

    def open_back(self) -> "SumBack":
        raise AssertionError("A job with one pool has no back.")


@dataclass
class PlainFront:
    folder: str

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        misbehave(item, self.folder, "front")
        if (item.payload or {}).get("front") == "tell":
            yield {"told": os.environ.get(item.payload["name"])}
        else:
            yield {"square": item.rows**2}


@dataclass
class TwoPoolJob:
    """Two pools: the front makes ``rows`` numbers in parcels of *parcel*; the back keeps their order."""

    folder: str
    parcel: int = 3
    padding: int = 0
    name: str = "two pools"
    two_pools: bool = True

    def open_front(self) -> "CountFront":
        return CountFront(self.folder, self.parcel, self.padding)

    def open_back(self) -> "SumBack":
        return SumBack(self.folder)


@dataclass
class CountFront:
    folder: str
    parcel: int
    padding: int

    def work(self, item: Item) -> Iterator[pa.RecordBatch | Status]:
        for low in range(0, item.rows, self.parcel):
            if low:
                misbehave(item, self.folder, "front later")
            numbers = list(range(low, min(item.rows, low + self.parcel)))
            yield pa.record_batch({"n": pa.array(numbers, pa.int64()), "text": ["x" * self.padding] * len(numbers)})
        misbehave(item, self.folder, "front")
        yield {"rows": item.rows, "front": True}


@dataclass
class SumBack:
    folder: str
    taken: dict[str, list[int]] = field(default_factory=dict)

    def take(self, item: Item, parcel: pa.RecordBatch) -> None:
        self.taken.setdefault(item.key, []).extend(parcel.column("n").to_pylist())
        misbehave(item, self.folder, "back")

    def finish(self, item: Item, front: Status) -> Status:
        misbehave(item, self.folder, "back at the end")
        return {**front, "numbers": self.taken.pop(item.key, [])}

    def drop(self, item: Item) -> None:
        self.taken.pop(item.key, None)


@dataclass
class CannotOpenJob:
    """Its front cannot be opened."""

    folder: str = ""
    name: str = "cannot open"
    two_pools: bool = False

    def open_front(self) -> PlainFront:
        raise DataError("weights.safetensors is cut short.")

    def open_back(self) -> SumBack:
        raise AssertionError


@dataclass
class DiesAtStartJob(CannotOpenJob):
    """Opening its front kills the process."""

    def open_front(self) -> PlainFront:
        os._exit(7)
