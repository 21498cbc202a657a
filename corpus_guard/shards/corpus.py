"""
The corpus: finding its shards, reading their footers, and the manifest that keeps what was found.

A file whose footer cannot be read is named with its fault; nothing here reads a row group.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import iglob
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus_guard.errors import DataError, TransientError, UsageError
from corpus_guard.places import Entry, Place, Where, one_line, safe_name
from corpus_guard.shards.writer import table_bytes

# -- finding shards ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file to read: ``path`` leads to it from anywhere, ``name`` is safe and unique in the corpus."""

    path: str
    name: str
    size: int
    etag: str | None
    version: str


_GLOB = re.compile(r"[*?\[]")
_SHARD_SUFFIXES = (".parquet", ".pq")


def find_shards(patterns: str | Sequence[str], base: Where | None = None) -> list[ShardFile]:
    """
    The files that *patterns* name (files, folders, globs, URIs), sorted by name.

    A name is the path below the common root of all patterns, without ``.parquet``, made harmless.
    In folders only ``*.parquet`` and ``*.pq`` count, and nothing whose name begins with ``_`` or ``.``.
    Raises ``UsageError`` naming every pattern that finds nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    roots: list[Place] = []
    found: dict[str, tuple[Place, Entry]] = {}
    missing = []
    for pattern in patterns:
        root, files = _expand(pattern, base)
        roots.append(root)
        found.update((place.uri, (place, entry)) for place, entry in files)
        if not files:
            missing.append(pattern)
    if missing or not found:
        names = ", ".join(missing) or "an empty list"
        raise UsageError(f"No Parquet file is found by {names}. Check corpus.shards.")
    common = os.path.commonprefix([_parts(root) for root in roots])
    shards = []
    taken: set[str] = set()
    for place, entry in sorted(found.values(), key=lambda file: file[0].uri):
        parts = _parts(place)[len(common) :]
        name = "/".join(safe_name(part) for part in parts).removesuffix(".parquet")
        if name in taken or not name or name.endswith("/"):
            name = f"{name}_-{hashlib.sha256('/'.join(parts).encode('utf-8', 'replace')).hexdigest()[:12]}"
        taken.add(name)
        shards.append(ShardFile(place.uri, name, entry.size, entry.etag, entry.version))
    return sorted(shards, key=lambda shard: shard.name)


def _parts(place: Place) -> list[str]:
    scheme, mark, _ = place.uri.partition("://")
    return [scheme if mark else "", *(part for part in place.path.split("/") if part)]


def _expand(pattern: str, base: Where | None) -> tuple[Place, list[tuple[Place, Entry]]]:
    globbed = bool(_GLOB.search(pattern.partition("?")[0] if "://" in pattern else pattern))
    if not globbed or ("://" not in pattern and Place.of(pattern, base).exists()):
        place = Place.of(pattern, base)
        if (entry := place.entry()) is not None:
            return place.parent, [(place, entry)]
        return place, _shards_in(place)
    scheme, mark, rest = pattern.rpartition("://")
    fixed = rest[: _GLOB.search(rest).start()].rpartition("/")  # type: ignore[union-attr]  # it is globbed
    head = scheme + mark + fixed[0] + ("/" if fixed[1] and not fixed[0] else "")
    root = Place.of(head or ".", base)
    tail = rest[len(fixed[0] + fixed[1]) :]
    if root.is_local:
        files = _glob_local(root, tail)
    else:
        tail, _, query = tail.partition("?")
        if query:
            root = Place.of(f"{head}?{query}")
        files = _glob_remote(root, tail)
    return root, files


def _shards_in(folder: Place) -> list[tuple[Place, Entry]]:
    return [
        (folder / entry.name, entry)
        for entry in folder.list()
        if entry.name.endswith(_SHARD_SUFFIXES) and not any(part[0] in "_." for part in entry.name.split("/"))
    ]


def _glob_local(root: Place, tail: str) -> list[tuple[Place, Entry]]:
    files: list[tuple[Place, Entry]] = []
    for name in iglob(tail, root_dir=root.path, recursive=True):
        place = root / os.path.normpath(name)
        if place.is_folder():
            if "**" not in tail:
                files.extend(_shards_in(place))
        elif _counts(name, tail):
            files.append((place, place.entry() or Entry(place.name, 0, None, "")))
    return files


def _glob_remote(root: Place, tail: str) -> list[tuple[Place, Entry]]:
    wanted = re.compile(_glob_pattern(tail))
    listed = root.list(recursive="/" in tail or "**" in tail)
    return [(root / e.name, e) for e in listed if wanted.fullmatch(e.name) and _counts(e.name, tail)]


def _counts(name: str, tail: str) -> bool:
    """Whether a file that a glob matches is a shard; hidden ones have to be asked for, other endings too."""
    hidden = any(part[:1] in ("_", ".") for part in name.split("/"))
    asked = any(part[:1] in ("_", ".") for part in tail.split("/"))
    return (asked or not hidden) and (_any_suffix(tail) or name.endswith(_SHARD_SUFFIXES))


def _any_suffix(tail: str) -> bool:
    """Whether a glob itself says how names end, so that it need not be ``.parquet``."""
    return bool(re.search(r"\.[A-Za-z0-9]+$", tail))


def _glob_pattern(glob: str) -> str:
    pattern = ""
    for part in re.findall(r"\*\*/?|\*|\?|\[[^\]/]+\]|[^*?\[]+|\[", glob):
        if part.startswith("**"):
            pattern += "(?:[^/]+/)*" if part.endswith("/") else ".*"
        elif part == "*":
            pattern += "[^/]*"
        elif part == "?":
            pattern += "[^/]"
        elif part.startswith("[") and part.endswith("]"):
            negated = part[1] in "!^"
            inside = re.sub(r"([^A-Za-z0-9-])", r"\\\1", part[2:-1] if negated else part[1:-1])
            pattern += f"[{'^/' if negated else ''}{inside}]"
        else:
            pattern += re.escape(part)
    return pattern


# -- footers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shard:
    """
    A Parquet file whose footer was read. ``digest`` is its identity wherever it lies and whatever it is called.

    ``groups``: rows and decoded bytes of each row group. ``schema``: a fingerprint of names and types.
    """

    path: str
    name: str
    size: int
    version: str
    digest: str
    rows: int
    groups: tuple[tuple[int, int], ...]
    schema: str


@dataclass(frozen=True, slots=True)
class BadShard:
    """A file whose footer cannot be read; how many rows it holds is unknown."""

    path: str
    name: str
    size: int
    error: str


READ_FAULTS = (OSError, pa.ArrowException)
_FOOTER_TRIES = 5


def read_footers(
    files: Sequence[ShardFile],
    cache: Iterable[Shard] = (),
    threads: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Shard], list[BadShard]]:
    """
    Shards and what cannot be one, both in the order of *files*; row groups themselves are not read.

    *cache*: shards of an earlier manifest; files of the same path, size and version are not opened.
    *on_progress* gets (done, all) from time to time. Raises ``TransientError`` if storage stays away.
    """
    known = {(shard.path, shard.size, shard.version): shard for shard in cache if shard.version}
    shards: list[Shard] = []
    bad: list[BadShard] = []

    def read(file: ShardFile) -> Shard | BadShard:
        old = known.get((file.path, file.size, file.version))
        if old is not None:
            return Shard(file.path, file.name, old.size, old.version, old.digest, old.rows, old.groups, old.schema)
        return _read_footer(file)

    with ThreadPoolExecutor(threads) as pool:
        for done, shard in enumerate(pool.map(read, files, chunksize=1), 1):
            if isinstance(shard, Shard):
                shards.append(shard)
            else:
                bad.append(shard)
            if on_progress is not None and (done % 100 == 0 or done == len(files)):
                on_progress(done, len(files))
    return shards, bad


def _read_footer(file: ShardFile) -> Shard | BadShard:
    for attempt in range(_FOOTER_TRIES):
        try:
            place = Place.of(file.path)
            with place.open_input() as data, place.telling("read"):
                size = data.size()
                footer = footer_bytes(data, size)
            metadata, schema = footer_metadata(footer)
            groups = tuple(_group(metadata, i) for i in range(metadata.num_row_groups))
            digest = file_digest(size, footer, file.etag)
            return Shard(
                file.path, file.name, size, file.version, digest, metadata.num_rows, groups, _fingerprint(schema)
            )
        except TransientError:
            if attempt == _FOOTER_TRIES - 1:
                raise
            time.sleep(0.2 * 4**attempt)
        except FileNotFoundError:
            return BadShard(file.path, file.name, file.size, "There is no file where the listing or a link shows one.")
        except (DataError, UsageError) as fault:
            return BadShard(file.path, file.name, file.size, one_line(fault))
        except READ_FAULTS as fault:
            return BadShard(file.path, file.name, file.size, f"The footer is damaged: {one_line(fault)}")
    raise AssertionError("unreachable")


def footer_bytes(data: Any, size: int) -> bytes:
    """The last bytes of a Parquet file: metadata, its length and the magic."""
    if size < 12:
        raise DataError(f"The file has {size} bytes, too few for Parquet.")
    tail = bytes(data.read_at(min(size, 64 << 10), size - min(size, 64 << 10)))
    if tail[-4:] == b"PARE":
        raise DataError("The file's footer is encrypted.")
    if tail[-4:] != b"PAR1":
        raise DataError(f"The file ends without a Parquet footer after {size} bytes; it may be cut short.")
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed + 4 > size:
        raise DataError(f"The footer claims {needed} bytes of a file of {size}.")
    if needed > len(tail):
        tail = bytes(data.read_at(needed, size - needed))
    return tail[-needed:]


def footer_metadata(footer: bytes) -> tuple[Any, pa.Schema]:
    """What the footer says of row groups and of columns; all of it is looked at, for any byte may be damaged."""
    try:
        file = pq.ParquetFile(pa.BufferReader(b"PAR1" + footer))
        metadata, schema = file.metadata, file.schema_arrow
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        _fingerprint(schema)
    except MemoryError:
        raise
    except Exception as fault:  # Arrow, Thrift and names that are not UTF-8 each fail in their own way
        raise DataError(f"The footer is damaged: {one_line(fault)}") from fault
    if any(n < 0 for n in rows) or sum(rows) != metadata.num_rows:
        raise DataError(f"The footer contradicts itself: {metadata.num_rows} rows, but row groups of {sum(rows)}.")
    return metadata, schema


def _group(metadata: Any, index: int) -> tuple[int, int]:
    group = metadata.row_group(index)
    return group.num_rows, max(group.total_byte_size, 0)


def file_digest(size: int, footer: bytes, etag: str | None) -> str:
    digest = hashlib.sha256(size.to_bytes(8, "little") + footer)
    if etag is not None:
        digest.update(etag.encode())
    return digest.hexdigest()


def _fingerprint(schema: pa.Schema) -> str:
    """Names, types and nullability; no metadata, which often differs from shard to shard."""
    return hashlib.sha256(json.dumps([(f.name, str(f.type), f.nullable) for f in schema]).encode()).hexdigest()


# -- the manifest -----------------------------------------------------------------------------


def manifest_hash(shards: Iterable[Shard]) -> str:
    """SHA-256 of the sorted shard digests: neither names nor order matter, each copy counts."""
    return hashlib.sha256("\n".join(sorted(shard.digest for shard in shards)).encode()).hexdigest()


MANIFEST = pa.schema(
    [
        ("name", pa.string()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("digest", pa.string()),
        ("rows", pa.int64()),
        ("groups", pa.list_(pa.struct([("rows", pa.int64()), ("bytes", pa.int64())]))),
        ("schema", pa.string()),
        ("error", pa.string()),
    ]
)
"""One line per file of the corpus, sorted by name. A bad shard has an ``error`` and neither digest nor rows."""


def write_manifest(place: Place, shards: Sequence[Shard], bad: Sequence[BadShard] = ()) -> None:
    lines: list[dict[str, Any]] = [
        {
            **{name: getattr(shard, name) for name in ("name", "path", "size", "version", "digest", "rows", "schema")},
            "groups": [{"rows": rows, "bytes": nbytes} for rows, nbytes in shard.groups],
        }
        for shard in shards
    ]
    lines += [{"name": b.name, "path": b.path, "size": b.size, "error": b.error} for b in bad]
    lines.sort(key=lambda line: str(line["name"]))
    place.put(table_bytes(pa.Table.from_pylist(lines, MANIFEST)))


def read_manifest(place: Place) -> tuple[list[Shard], list[BadShard]]:
    """What ``write_manifest`` wrote, sorted by name; ``FileNotFoundError`` if there is none."""
    try:
        data = pa.BufferReader(place.read_bytes())
        # without threads: those that still hold on to Python's memory when the command ends would abort it
        lines = pq.ParquetFile(data, page_checksum_verification=True).read(use_threads=False).to_pylist()
    except READ_FAULTS as fault:
        if isinstance(fault, FileNotFoundError):
            raise
        raise DataError(f"{place.uri} is damaged ({one_line(fault)}). Delete it and plan again.") from fault
    shards = []
    bad = []
    for line in lines:
        groups, error = line.pop("groups"), line.pop("error")
        if error is not None:
            bad.append(BadShard(line["path"], line["name"], line["size"], error))
        else:
            shards.append(Shard(groups=tuple((g["rows"], g["bytes"]) for g in groups), **line))
    return shards, bad
