"""
Which rows may train, tune or test a screen: by licence, by split, and by the text itself.

Equal texts always fall into the same part, whatever file they come from. A row whose licence does not
allow weights to be made from it is only measured on. Holds no opinion on how to train.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus_guard.errors import UsageError
from corpus_guard.taxonomy import BIT

PERMISSIVE = frozenset(
    {
        "MIT", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "Apache-2.0 / CC-BY-4.0",
        "public domain text, CC-BY-4.0 markup",
    }
)  # fmt: skip
"""Licences that allow weights trained on a text to be shipped under any terms."""

STATUTES = "PRC statute text"
"""Statutes have no copyright, but come from a repository without licence: they set thresholds, no weights."""

SYNTHETIC = frozenset({"prompt", "template", "llm-answer"})

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, repr=False)
class Rows:
    """
    Labelled and unlabelled texts, one entry per column and row.

    ``risk``: the code, or empty where the row is benign (``labelled``) or assumed to be. ``part``: ``train`` makes
    weights, ``tune`` calibrations and thresholds, ``test`` and ``outside`` (licence) are measured on alone, ``none``
    is not used.
    """

    text: pa.LargeStringArray
    source: npt.NDArray[np.object_]
    risk: npt.NDArray[np.object_]
    language: npt.NDArray[np.object_]
    labelled: Bools
    synthetic: Bools
    part: npt.NDArray[np.object_]
    licence: npt.NDArray[np.object_]
    digest: npt.NDArray[np.uint64]

    def __repr__(self) -> str:
        return f"Rows({len(self)})"  # texts must not reach tracebacks

    def __len__(self) -> int:
        return len(self.text)

    @property
    def positive(self) -> Bools:
        return np.asarray(self.risk != "", np.bool_)

    def where(self, mask: Bools) -> npt.NDArray[np.int64]:
        return np.flatnonzero(mask)

    def texts(self, at: npt.NDArray[np.int64]) -> pa.LargeStringArray:
        return self.text.take(pa.array(at))


def read_rows(paths: Sequence[str | Path], seed: int) -> Rows:
    """
    Rows of Parquet files with ``text, source, licence`` and, where labelled, ``risk, is_risk, split, kind``.

    A file without ``is_risk`` is taken as benign. Rows whose ``is_risk`` is null are left out.
    """
    if not paths:
        raise UsageError("there is nothing to train on; name at least one Parquet file with labelled rows.")
    columns: dict[str, list[Any]] = {
        name: [] for name in ("text", "source", "risk", "labelled", "kind", "licence", "language", "split")
    }
    for path in paths:
        _read(Path(path), columns)
    text = columns["text"]
    key = seed.to_bytes(8, "little", signed=True)
    digest = np.array(
        [int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8, key=key).digest(), "little") for t in text],
        np.uint64,
    )
    risk = np.array(columns["risk"], object)
    licence = np.array(columns["licence"], object)
    labelled = np.array(columns["labelled"], np.bool_)
    part = _parts(digest, np.array(columns["split"], object), labelled, risk, licence)
    return Rows(
        text=pa.array(text, pa.large_string()),
        source=np.array(columns["source"], object),
        risk=risk,
        language=np.array(columns["language"], object),
        labelled=labelled,
        synthetic=np.array([kind in SYNTHETIC for kind in columns["kind"]], np.bool_),
        part=part,
        licence=licence,
        digest=digest,
    )


def _read(path: Path, into: dict[str, list[Any]]) -> None:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path}: cannot be read as Parquet; name files of labelled rows.") from error
    missing = {"text", "source", "licence"} - set(table.column_names)
    if missing:
        raise UsageError(
            f"{path}: has no column {', '.join(sorted(missing))}; training needs text, source and licence."
        )
    labelled = "is_risk" in table.column_names
    if labelled:
        table = table.filter(pc.is_valid(table["is_risk"]))
    table = table.filter(pc.is_valid(table["text"])).filter(pc.not_equal(pc.utf8_length(table["text"]), 0))
    n = len(table)
    risks = table["risk"].to_pylist() if labelled and "risk" in table.column_names else [None] * n
    is_risk = table["is_risk"].to_pylist() if labelled else [False] * n
    found = [risk or "" if yes else "" for risk, yes in zip(risks, is_risk, strict=True)]
    unknown = sorted({risk for risk in found if risk and risk not in BIT})
    if unknown:
        raise UsageError(f"{path}: unknown risk '{unknown[0]}' in column 'risk'; risks are written A.1.a to A.5.b.")
    keep = [bool(risk) or not yes for risk, yes in zip(found, is_risk, strict=True)]
    for name in ("text", "source", "licence", "language", "kind", "split"):
        values = table[name].to_pylist() if name in table.column_names else [None] * n
        into[name] += [value or "" for value, kept in zip(values, keep, strict=True) if kept]
    into["risk"] += [risk for risk, kept in zip(found, keep, strict=True) if kept]
    into["labelled"] += [labelled] * sum(keep)


def _parts(
    digest: npt.NDArray[np.uint64],
    split: npt.NDArray[np.object_],
    labelled: Bools,
    risk: npt.NDArray[np.object_],
    licence: npt.NDArray[np.object_],
) -> npt.NDArray[np.object_]:
    chance = digest / 2.0**64
    part = np.where(chance < 0.4, "train", np.where(chance < 0.7, "tune", "test")).astype(object)
    part[labelled] = np.where(chance < 0.8, "train", np.where(chance < 0.9, "tune", "test"))[labelled]
    halves = np.where(chance < 0.5, "tune", "test")
    named_train, named_dev = split == "train", np.isin(split.astype(str), ["dev", "test", "validation"])
    part[labelled & named_train] = "train"
    part[labelled & named_dev] = halves[labelled & named_dev]
    permitted = np.array([name in PERMISSIVE for name in licence], np.bool_)
    statute = np.array([name.startswith(STATUTES) for name in licence], np.bool_) & (risk == "")
    part[~permitted] = "outside"
    part[statute] = halves[statute]
    # A text that trains under one label or in one file must not be measured on in another.
    trained = np.isin(digest, digest[part == "train"])
    part[trained & np.isin(part.astype(str), ["tune", "test"])] = "none"
    return part


def manifest(paths: Sequence[str | Path], rows: Rows, seed: int) -> dict[str, Any]:
    """What a model was made from, without a word of it: hashes of files and rows, counts by source and licence."""
    groups = Counter(zip(rows.source, rows.licence, rows.part, rows.risk, rows.labelled, strict=True))
    counts = [
        {
            "source": source,
            "licence": licence,
            "part": part,
            "risk": risk or ("benign" if labelled else "assumed benign"),
            "rows": n,
        }
        for (source, licence, part, risk, labelled), n in sorted(groups.items())
    ]
    trained = np.sort(rows.digest[rows.part == "train"])
    return {
        "seed": seed,
        "files": [{"name": Path(path).name, "sha256": _sha256(Path(path))} for path in sorted(map(str, paths))],
        "training_rows": len(trained),
        "training_rows_sha256": hashlib.sha256(trained.astype("<u8").tobytes()).hexdigest(),
        "rows": counts,
    }


def write_manifest(path: Path, content: dict[str, Any]) -> None:
    head = {key: value for key, value in content.items() if key != "rows"}
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in content["rows"])
    path.write_text(json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
