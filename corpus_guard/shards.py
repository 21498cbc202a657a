"""
Parquet in and out: finding shards, their footers and digests, units of work, documents in slices.

A damaged part of a file costs the rows of that part, never the shard; memory is bounded by the
slice, not by the row group. Decides nothing about text and knows no stage, no policy and no run.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from glob import iglob
from itertools import accumulate
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus_guard import findings
from corpus_guard.errors import DataError, TransientError, UsageError
from corpus_guard.places import Entry, Place, Where, one_line, safe_name

SLICE_BYTES = 64 << 20
"""Decoded bytes a slice holds at most; a longer document is a slice by itself."""

SLICE_ROWS = 65_536

_CRUMB_BYTES = 32 << 10

READING_VERSION = 1
"""Part of every reading's digest: raise it when the same columns would give other documents."""

OnDamage = Callable[[int, int, str], None]
"""Told of each damaged part: its first row group, how many rows are lost, and why."""

_Integers = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


# -- which columns are what -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """
    Which columns hold what. ``text`` names columns or paths; several are joined with a newline.

    A path goes into structs with ``.name`` and through lists and map values with ``[*]``:
    ``messages[*].content``. Null parts are left out of the joined text. A column whose whole name
    equals the path wins. Without ``source`` but with ``url``, the source is the registered domain.
    """

    text: tuple[str, ...] = ("text",)
    id: str | None = None
    source: str | None = None
    url: str | None = None
    dataset: str | None = None
    language: str | None = None
    kind: str | None = None
    origin: str | None = None
    licence: str | None = None
    collected_at: str | None = None

    def __post_init__(self) -> None:
        texts = (self.text,) if isinstance(self.text, str) else tuple(self.text)
        object.__setattr__(self, "text", texts)
        if not texts:
            raise UsageError("No text column is named; name at least one under corpus.columns.text.")

    @property
    def digest(self) -> str:
        """64 hex; changes exactly when documents could."""
        return hashlib.sha256(json.dumps([READING_VERSION, asdict(self)], sort_keys=True).encode()).hexdigest()

    @property
    def fields(self) -> dict[str, str]:
        """Column of each named field but the text."""
        return {name: path for name in _FIELDS if (path := getattr(self, name)) is not None}


_FIELDS = ("id", "source", "url", "dataset", "language", "kind", "origin", "licence", "collected_at")
_EACH = "[*]"
_STEP = re.compile(r"\[\*\]|\.?[^.\[\]]+")


class _Column(NamedTuple):
    """A path found in a schema: the top-level column, the steps below it, and the Parquet leaves to read for it."""

    top: int
    steps: tuple[str, ...]
    leaves: tuple[int, ...]


def _find_column(schema: pa.Schema, path: str) -> _Column | None:
    if path in schema.names:
        index = schema.names.index(path)
        first = sum(_leaf_count(schema.field(i).type) for i in range(index))
        return _Column(index, (), tuple(range(first, first + _leaf_count(schema.field(index).type))))
    steps = _STEP.findall(path)
    if "".join(steps) != path or len(steps) < 2 or steps[0] not in schema.names:
        return None
    index = schema.names.index(steps[0])
    first = sum(_leaf_count(schema.field(i).type) for i in range(index))
    below = tuple(step.removeprefix(".") for step in steps[1:])
    found = schema.field(index).type
    keys: list[int] = []
    for step in below:
        entered = _enter(found, step)
        if entered is None:
            return None
        if pa.types.is_map(found):  # Arrow makes no map without its keys
            keys += range(first, first + entered[0])
        first += entered[0]
        found = entered[1]
    return _Column(index, below, (*keys, *range(first, first + _leaf_count(found))))


def _enter(of: pa.DataType, step: str) -> tuple[int, pa.DataType] | None:
    """One step into a type: how many leaves lie before, and what is there."""
    if isinstance(of, pa.BaseExtensionType):
        of = of.storage_type
    if step == _EACH:
        if pa.types.is_map(of):
            return _leaf_count(of.key_type), of.item_type
        return (0, of.value_type) if _is_list(of) else None
    if not pa.types.is_struct(of) or (index := of.get_field_index(step)) < 0:
        return None
    return sum(_leaf_count(of.field(i).type) for i in range(index)), of.field(index).type


def _leaf_count(of: pa.DataType) -> int:
    if isinstance(of, pa.BaseExtensionType):
        return _leaf_count(of.storage_type)
    if pa.types.is_struct(of):
        return sum(_leaf_count(of.field(i).type) for i in range(of.num_fields))
    if pa.types.is_map(of):
        return _leaf_count(of.key_type) + _leaf_count(of.item_type)
    return _leaf_count(of.value_type) if _is_list(of) else 1


def _is_list(of: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(of)
        or pa.types.is_large_list(of)
        or pa.types.is_fixed_size_list(of)
        or pa.types.is_list_view(of)
        or pa.types.is_large_list_view(of)
    )


def _is_text(of: pa.DataType) -> bool:
    if isinstance(of, pa.BaseExtensionType):
        return _is_text(of.storage_type)
    if pa.types.is_dictionary(of):
        return _is_text(of.value_type)
    return bool(
        pa.types.is_string(of)
        or pa.types.is_large_string(of)
        or pa.types.is_string_view(of)
        or pa.types.is_binary(of)
        or pa.types.is_large_binary(of)
        or pa.types.is_binary_view(of)
        or pa.types.is_fixed_size_binary(of)
        or pa.types.is_null(of)
    )


def _type_at(schema: pa.Schema, column: _Column) -> pa.DataType:
    found = schema.field(column.top).type
    for step in column.steps:
        found = _enter(found, step)[1]  # type: ignore[index]  # the path was found in this schema
    return found


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


# -- footers and the manifest -----------------------------------------------------------------


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


_READ_FAULTS = (OSError, pa.ArrowException)
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
                footer = _footer(data, size)
            metadata, schema = _metadata(footer)
            groups = tuple(_group(metadata, i) for i in range(metadata.num_row_groups))
            digest = _digest(size, footer, file.etag)
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
        except _READ_FAULTS as fault:
            return BadShard(file.path, file.name, file.size, f"The footer is damaged: {one_line(fault)}")
    raise AssertionError("unreachable")


def _footer(data: Any, size: int) -> bytes:
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


def _metadata(footer: bytes) -> tuple[Any, pa.Schema]:
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


def _digest(size: int, footer: bytes, etag: str | None) -> str:
    digest = hashlib.sha256(size.to_bytes(8, "little") + footer)
    if etag is not None:
        digest.update(etag.encode())
    return digest.hexdigest()


def _fingerprint(schema: pa.Schema) -> str:
    """Names, types and nullability; no metadata, which often differs from shard to shard."""
    return hashlib.sha256(json.dumps([(f.name, str(f.type), f.nullable) for f in schema]).encode()).hexdigest()


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
    except _READ_FAULTS as fault:
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


def table_bytes(table: pa.Table, metadata: dict[str, str] | None = None) -> pa.Buffer:
    """*table* as a Parquet file: equal tables give equal bytes, however they are chunked."""
    if metadata is not None:
        table = table.replace_schema_metadata(dict(sorted(metadata.items())))
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


# -- units ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """
    A run of row groups of one shard, done or not done as a whole. ``last_group`` is not part of it.

    ``copy`` counts shards of equal digest in the order of their names.
    """

    shard_path: str
    shard_name: str
    shard_digest: str
    copy: int
    first_group: int
    last_group: int
    row_lo: int
    rows: int
    nbytes: int

    @property
    def name(self) -> str:
        return f"{self.row_lo:012d}-{self.row_lo + self.rows:012d}"


def plan_units(shards: Iterable[Shard], unit_bytes: int = SLICE_BYTES) -> list[Unit]:
    """
    All rows of *shards* in units of whole row groups, at most *unit_bytes* decoded where groups allow it.

    How a shard is cut depends on the shard and *unit_bytes* alone. A shard without rows has no unit.
    """
    units: list[Unit] = []
    copies: dict[str, int] = {}
    for shard in sorted(shards, key=lambda shard: shard.name):
        copy = copies[shard.digest] = copies.get(shard.digest, -1) + 1
        first = row_lo = rows = nbytes = 0
        for index, (group_rows, group_bytes) in enumerate(shard.groups):
            if rows and group_rows and nbytes + group_bytes > unit_bytes:
                units.append(Unit(shard.path, shard.name, shard.digest, copy, first, index, row_lo, rows, nbytes))
                first, row_lo, rows, nbytes = index, row_lo + rows, 0, 0
            rows += group_rows
            nbytes += group_bytes
        if rows:
            last = len(shard.groups)
            units.append(Unit(shard.path, shard.name, shard.digest, copy, first, last, row_lo, rows, nbytes))
    return units


# -- reading row groups -----------------------------------------------------------------------


class _Piece(NamedTuple):
    """A slice of a shard as it was read, or, without ``batch``, how many rows could not be read and why."""

    row_lo: int
    rows: int
    batch: pa.RecordBatch | None
    group: int = -1
    error: str = ""


class _Opened:
    """A shard open for reading, checked to be the one that was planned."""

    def __init__(self, part: Unit | Shard) -> None:
        self.place = Place.of(part.shard_path if isinstance(part, Unit) else part.path)
        self.digest = part.shard_digest if isinstance(part, Unit) else part.digest
        try:
            data = self.place.open_input()
        except FileNotFoundError as fault:
            raise DataError(f"{self.place.uri} is gone since the corpus was planned; plan again.") from fault
        try:
            with self.place.telling("read"):
                size = data.size()
                footer = _footer(data, size)
            entry = None if self.place.is_local else self.place.entry()
            if _digest(size, footer, entry.etag if entry else None) != self.digest:
                raise DataError(f"{self.place.uri} is not the file that was planned any more; plan again.")
            self.metadata, self.schema = _metadata(footer)
        finally:
            data.close()
        sizes = (self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups))
        self.starts: list[int] = [0, *accumulate(sizes)]

    def groups_of(self, part: Unit | Shard) -> tuple[int, int]:
        return (part.first_group, part.last_group) if isinstance(part, Unit) else (0, self.metadata.num_row_groups)

    def select(self, columns: Iterable[_Column] | None) -> "_Selection":
        """What has to be read for *columns* (none: all), given that Parquet selects by path and not by number."""
        paths = [self.metadata.schema.column(leaf).path for leaf in range(self.metadata.num_columns)]
        tops = [top for top, column in enumerate(self.schema) for _ in range(_leaf_count(column.type))]
        if len(tops) != len(paths):
            raise DataError(f"{self.place.uri}: the stored Arrow schema does not fit the Parquet columns.")
        if columns is None:
            return _Selection(None, list(range(len(paths))), list(range(len(self.schema))))
        wanted = dict.fromkeys(paths[leaf] for leaf in sorted({leaf for column in columns for leaf in column.leaves}))
        # a path stands for everything below it and for every column of that name; columns come as they are asked for
        leaves = [
            leaf for asked in wanted for leaf, path in enumerate(paths) if path == asked or path.startswith(f"{asked}.")
        ]
        leaves = list(dict.fromkeys(leaves))
        return _Selection(list(wanted), leaves, list(dict.fromkeys(tops[leaf] for leaf in leaves)))

    def read(
        self, first: int, last: int, what: "_Selection", slice_bytes: int, from_row: int = 0, expected: bool = False
    ) -> Iterator[_Piece]:
        """Rows of the groups *first* to *last* in pieces of at most *slice_bytes*, in order, none missing."""
        return _merged(self._read(first, last, what, slice_bytes, from_row, expected), slice_bytes // 8)

    def _read(
        self, first: int, last: int, what: "_Selection", slice_bytes: int, from_row: int, expected: bool
    ) -> Iterator[_Piece]:
        """
        What fails is tried a second time from a fresh handle; what fails then is damage, and the
        rest of its row group is lost. *expected* damage is not tried again.
        """
        row, end = max(self.starts[first], from_row), self.starts[last]
        if not expected and row == self.starts[first]:
            try:
                for batch in self._batches(first, last, what, slice_bytes):
                    yield from self._pieces(row, batch, what, slice_bytes)
                    row += batch.num_rows
            except _READ_FAULTS as fault:
                self._pass_on(fault, first, last)
        while row < end:
            group = next(g for g in range(first, last) if self.starts[g] <= row < self.starts[g + 1])
            error = "The row group ends before its last row."
            at = self.starts[group]
            faults: list[Exception] = []
            try:
                for batch in self._batches(
                    group, group + 1, what, slice_bytes, None if self.place.is_local else faults
                ):
                    fresh = batch.slice(min(max(row - at, 0), batch.num_rows))
                    at += batch.num_rows
                    if fresh.num_rows:
                        yield from self._pieces(row, fresh, what, slice_bytes)
                        row += fresh.num_rows
            except _READ_FAULTS as fault:
                self._pass_on(fault, group, group + 1)
                for storage_fault in faults:
                    with self.place.telling("read"):
                        raise storage_fault from fault
                error = one_line(fault)
            if (lost := self.starts[group + 1] - row) > 0:
                yield _Piece(row, lost, None, group, error)
                row += lost

    def _batches(
        self, first: int, last: int, what: "_Selection", slice_bytes: int, watched: "list[Exception] | None" = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches as Arrow decodes them. Faults of the storage itself are noted in *watched*."""
        groups = [g for g in range(first, last) if self.starts[g] < self.starts[g + 1]]
        if not groups or not what.leaves:
            return
        rows, guarded = self._batch_rows(groups, slice_bytes)
        # a store answers slowly whatever is asked: a small unit at once, a large one in large steps
        whole = not self.place.is_local and sum(self._bytes_of(g) for g in groups) <= 2 * slice_bytes
        with self.place.open_input() as data:
            file = pq.ParquetFile(
                data if watched is None else pa.PythonFile(_Watched(data, watched), mode="r"),
                metadata=self.metadata,
                read_dictionary=self._flat_texts(what) if guarded else [],
                pre_buffer=whole,
                buffer_size=0 if whole else (1 << 20 if self.place.is_local else 8 << 20),
                page_checksum_verification=True,
            )
            batches = file.iter_batches(batch_size=rows, row_groups=groups, columns=what.paths, use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except _READ_FAULTS:
                    raise
                except Exception:
                    with self.place.telling("read"):
                        raise
                if batch is None:
                    return
                for column in batch.columns:
                    if _has_dictionary(column.type):
                        _check_indices(column)
                if batch.num_rows:
                    yield batch

    def _rows_of(self, group: int) -> int:
        return self.starts[group + 1] - self.starts[group]

    def _bytes_of(self, group: int) -> int:
        # never ask for a column's own sizes: in damaged footers that ends the process (seen in pyarrow 26.0.1)
        return max(int(self.metadata.row_group(group).total_byte_size), 1)

    def _batch_rows(self, groups: list[int], slice_bytes: int) -> tuple[int, bool]:
        """
        How many rows to decode at a time, and whether texts have to be read as dictionaries for it.

        Ten thousand copies of one long text take a few kilobytes in a file. No value is larger than
        its row group, so some rows of a small group are safe; where these would be mere crumbs, the
        copies stay packed until they are cut.
        """
        # far below the limit: rows differ in length, long ones lie together, and small batches cost Arrow nothing
        usual = min(slice_bytes // 32 * self._rows_of(g) // self._bytes_of(g) for g in groups)
        small = [g for g in groups if self._bytes_of(g) <= (4 << 20) + 64 * self._rows_of(g)]
        if not small:
            return max(min(usual, SLICE_ROWS), 1), False
        safe = max(2 * slice_bytes // max(self._bytes_of(g) for g in small), 1)
        crumbs = any(
            safe < self._rows_of(g) and safe * self._bytes_of(g) < _CRUMB_BYTES * self._rows_of(g) for g in small
        )
        return (SLICE_ROWS if crumbs else max(min(usual, SLICE_ROWS, safe), 1)), crumbs

    def _flat_texts(self, what: "_Selection") -> list[str]:
        paths = [self.metadata.schema.column(leaf).path for leaf in what.leaves]
        indices = [self.schema.get_field_index(path) for path in paths]
        return [path for path, i in zip(paths, indices, strict=True) if i >= 0 and _is_text(self.schema.field(i).type)]

    def _pieces(self, row: int, batch: pa.RecordBatch, what: "_Selection", slice_bytes: int) -> Iterator[_Piece]:
        """*batch* cut to slices, its columns in their declared types."""
        for part in _cut(batch, slice_bytes):
            yield _Piece(row, part.num_rows, self._as_declared(part, what))
            row += part.num_rows

    def _as_declared(self, batch: pa.RecordBatch, what: "_Selection") -> pa.RecordBatch:
        for i, column in enumerate(batch.columns):
            declared = self.schema.field(what.tops[i])
            if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(declared.type):
                batch = batch.set_column(i, declared, _decoded(column, declared.type))
        return batch

    def _pass_on(self, fault: Exception, first: int, last: int) -> None:
        """Raise *fault* again if it is no fault of the bytes read."""
        if isinstance(fault, FileNotFoundError):
            raise DataError(f"{self.place.uri} is gone since the corpus was planned; plan again.") from fault
        if isinstance(fault, MemoryError):
            asked = re.search(r"size (\d+)", str(fault))
            honest = max(sum(self.metadata.row_group(g).total_byte_size for g in range(first, last)), 1 << 30)
            # damaged lengths ask for memory that no machine has
            if asked is None or int(asked[1]) < 16 * honest:
                raise fault


class _Watched:
    """A file of which it is known afterwards whether the storage or the bytes were at fault."""

    def __init__(self, data: Any, faults: list[Exception]) -> None:
        self._data = data
        self._faults = faults
        self.closed = False

    def read(self, nbytes: int | None = None) -> bytes:
        try:
            return bytes(self._data.read(nbytes))
        except Exception as fault:
            self._faults.append(fault)
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._data.seek(offset, whence))

    def tell(self) -> int:
        return int(self._data.tell())

    def size(self) -> int:
        return int(self._data.size())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class _Selection(NamedTuple):
    """Columns to read: their paths (none: all), Parquet leaves, and top-level columns in the order they come."""

    paths: list[str] | None
    leaves: list[int]
    tops: list[int]


def _merged(pieces: Iterator[_Piece], enough: int) -> Iterator[_Piece]:
    """Neighbouring small pieces as one: small row groups and guarded columns come in crumbs."""
    waiting: list[_Piece] = []
    rows = nbytes = 0
    for piece in pieces:
        size = 0 if piece.batch is None else _decoded_bytes(piece.batch)
        if waiting and (piece.batch is None or nbytes + size > enough or rows + piece.rows > SLICE_ROWS):
            yield _as_one(waiting)
            waiting, rows, nbytes = [], 0, 0
        if piece.batch is None:
            yield piece
            continue
        waiting.append(piece)
        rows += piece.rows
        nbytes += size
    if waiting:
        yield _as_one(waiting)


def _as_one(pieces: list[_Piece]) -> _Piece:
    if len(pieces) == 1:
        return pieces[0]
    batches = [piece.batch for piece in pieces if piece.batch is not None]
    columns = [pa.concat_arrays([batch.column(i) for batch in batches]) for i in range(batches[0].num_columns)]
    rows = sum(piece.rows for piece in pieces)
    return _Piece(pieces[0].row_lo, rows, pa.RecordBatch.from_arrays(columns, schema=batches[0].schema))


def _decoded_bytes(batch: pa.RecordBatch) -> int:
    sizes = (row_bytes(column).sum() for column in batch.columns if pa.types.is_dictionary(column.type))
    return int(batch.nbytes) + int(sum(sizes))


def _cut(batch: pa.RecordBatch, slice_bytes: int) -> list[pa.RecordBatch]:
    """*batch* in slices of at most *slice_bytes* decoded bytes or one row."""
    if batch.num_rows == 1 or _at_most(batch) <= slice_bytes:
        return [batch]
    ends = np.cumsum(sum(row_bytes(column) for column in batch.columns))
    return [batch.slice(lo, hi - lo) for lo, hi in _runs(ends, slice_bytes)]


def _at_most(batch: pa.RecordBatch) -> int:
    """Decoded bytes of *batch*, or more: cheap to tell, and nearly always enough to know that it need not be cut."""
    nbytes = int(batch.nbytes)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and len(column.dictionary):
            nbytes += len(column) * int(row_bytes(column.dictionary).max())
    return nbytes


def _runs(ends: _Integers, limit: int) -> Iterator[tuple[int, int]]:
    """Greedy cuts of rows whose sizes add up to *ends*: each run within *limit*, or a single row."""
    lo = 0
    while lo < len(ends):
        before = int(ends[lo - 1]) if lo else 0
        hi = max(int(np.searchsorted(ends, before + limit, side="right")), lo + 1)
        yield lo, hi
        lo = hi


def _check_indices(array: pa.Array) -> None:
    """Arrow reads indices of damaged dictionaries without a look at them; what takes by them must not fail later."""
    of = array.type
    if pa.types.is_dictionary(of):
        bounds = pc.min_max(array.indices).as_py()
        if bounds["max"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(array.dictionary):
            raise pa.ArrowInvalid(f"Dictionary index {bounds['max']} of {len(array.dictionary)} values")
    elif pa.types.is_struct(of):
        for child in array.flatten():
            _check_indices(child)
    elif pa.types.is_nested(of) and _has_dictionary(of):
        _check_indices(array.cast(_pairs(of)).flatten() if pa.types.is_map(of) else array.flatten())


def _has_dictionary(of: pa.DataType) -> bool:
    if pa.types.is_dictionary(of):
        return True
    return any(_has_dictionary(of.field(i).type) for i in range(of.num_fields)) if pa.types.is_nested(of) else False


def row_bytes(array: pa.Array) -> _Integers:
    """
    Decoded bytes of each row of *array*: a function of the row's value alone, however it is stored.
    """
    of = array.type
    n = len(array)
    if isinstance(of, pa.BaseExtensionType):
        return row_bytes(array.storage)
    if pa.types.is_dictionary(of):
        sizes = np.append(row_bytes(array.dictionary), row_bytes(pa.nulls(1, of.value_type)))
        return sizes[_numbers(array.indices, len(sizes) - 1)]
    if pa.types.is_struct(of):
        return sum((row_bytes(child) for child in array.flatten()), np.zeros(n, np.int64))
    if pa.types.is_map(of):
        array = array.cast(_pairs(of))
        of = array.type
    if _is_list(of):
        lengths = _lengths(array)
        ends = np.concatenate([[0], np.cumsum(row_bytes(array.flatten()))])
        stops = np.cumsum(lengths)
        return np.asarray(ends[stops] - ends[stops - lengths] + 8, np.int64)
    if pa.types.is_fixed_size_binary(of):
        return np.full(n, of.byte_width, np.int64)
    if _is_text(of) and not pa.types.is_null(of):
        return _numbers(pc.binary_length(_binary(array)), 0) + 8
    return np.full(n, 0 if pa.types.is_null(of) else of.bit_width // 8, np.int64)


def _numbers(array: pa.Array, null: int) -> _Integers:
    return np.asarray(pc.fill_null(array.cast(pa.int64()), null), np.int64)


def _lengths(lists: pa.Array) -> _Integers:
    return _numbers(pc.list_value_length(lists), 0)


def _pairs(of: pa.DataType) -> pa.DataType:
    return pa.list_(pa.struct([pa.field("key", of.key_type, False), pa.field("value", of.item_type)]))


def _decoded(array: pa.Array, declared: pa.DataType) -> pa.Array:
    """A dictionary column as its declared type; text bytes are taken over without a look at them."""
    values = _binary(array.dictionary) if _is_text(declared) else array.dictionary
    taken = values.take(array.indices)
    if pa.types.is_large_string(declared) or pa.types.is_string(declared):
        taken = taken if pa.types.is_large_string(declared) else taken.cast(pa.binary())
        return pa.Array.from_buffers(declared, len(taken), taken.buffers(), taken.null_count, taken.offset)
    return taken.cast(declared)


# -- documents --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a reading in one shard."""

    text: tuple[_Column, ...]
    fields: dict[str, _Column] = field(default_factory=dict)

    @classmethod
    def of(cls, opened: _Opened, reading: Reading) -> "_Columns":
        """Optional columns may be missing in a shard, texts in part; raises ``UsageError`` for the rest."""
        schema, where = opened.schema, opened.place.uri
        faults = _column_faults(schema, reading)
        if faults:
            raise UsageError(f"{where}: {' '.join(faults)}")
        texts = (_find_column(schema, path) for path in reading.text)
        fields = {name: _find_column(schema, path) for name, path in reading.fields.items()}
        return cls(
            tuple(column for column in texts if column is not None),
            {name: column for name, column in fields.items() if column is not None},
        )


def check_reading(shards: Sequence[Shard], reading: Reading) -> None:
    """
    Look whether *reading* fits the corpus, opening one shard of each schema.

    Raises ``UsageError`` with all faults: shards without any text column or with one that holds no
    text, and named columns that no shard has.
    """
    first_of: dict[str, Shard] = {}
    for shard in shards:
        first_of.setdefault(shard.schema, shard)
    faults = []
    seen: set[str] = set()
    names: set[str] = set()
    for shard in first_of.values():
        schema = _Opened(shard).schema
        names.update(schema.names)
        seen.update(path for path in (*reading.text, *reading.fields.values()) if _find_column(schema, path))
        faults += [f"{shard.path}: {fault}" for fault in _column_faults(schema, reading)]
    for path in (*reading.text, *reading.fields.values()):
        if shards and path not in seen:
            faults.append(f"No shard has a column '{path}'; the columns are {_listed(names)}.")
    if faults:
        raise UsageError("\n".join(dict.fromkeys(faults)))


def _column_faults(schema: pa.Schema, reading: Reading) -> list[str]:
    faults = []
    found = [(path, column) for path in reading.text if (column := _find_column(schema, path)) is not None]
    if not found:
        wanted = " or ".join(f"'{path}'" for path in reading.text)
        faults.append(f"No text column {wanted}; the columns are {_listed(schema.names)}.")
    for path, column in found:
        if not _is_text(of := _type_at(schema, column)):
            faults.append(f"Column '{path}' is {of}, not text; name a column or path of strings.")
    for name, path in reading.fields.items():
        field_column = _find_column(schema, path)
        if field_column is None:
            continue
        of = _type_at(schema, field_column)
        if _EACH in field_column.steps or pa.types.is_nested(of):
            faults.append(f"Column '{path}' is {of} and cannot be the {name}; name a column of single values.")
    return faults


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in sorted(set(names))]
    return ", ".join(shown[:40]) + (f" and {len(shown) - 40} more" if len(shown) > 40 else "")


def read_documents(
    unit: Unit | Shard,
    reading: Reading,
    slice_bytes: int = SLICE_BYTES,
    want_text: bool = True,
    on_damage: OnDamage | None = None,
) -> Iterator[pa.RecordBatch]:
    """
    Every row of *unit*, in order, as batches of ``findings.BATCH`` of at most *slice_bytes* of text.

    How rows are cut into row groups, units and slices changes no document. Columns have offset 0
    and nothing but their rows behind them. Without *want_text* the text is read and judged as
    empty or undecodable, and then left out. ``characters`` and ``bytes`` are 0 where ``state`` is
    not ``ok``. Raises ``UsageError`` if the shard has no text column, ``DataError`` if it changed
    since it was planned, ``TransientError`` if storage fails.
    """
    opened = _Opened(unit)
    columns = _Columns.of(opened, reading)
    first, last = opened.groups_of(unit)
    everything = opened.select([*columns.text, *columns.fields.values()])
    for piece in opened.read(first, last, everything, slice_bytes):
        if piece.batch is not None:
            rows = np.arange(piece.row_lo, piece.row_lo + piece.rows, dtype=np.int64)
            yield from _documents(rows, piece.batch, opened, columns, everything, slice_bytes, want_text, reading)
            continue
        if on_damage is not None:
            on_damage(piece.group, piece.rows, piece.error)
        yield from _failed_documents(piece, opened, columns, slice_bytes, reading)


def _failed_documents(
    lost: _Piece, opened: _Opened, columns: _Columns, slice_bytes: int, reading: Reading
) -> Iterator[pa.RecordBatch]:
    """Rows whose text is lost, with their id and source where these columns are sound."""
    who = opened.select(columns.fields.values())
    row, end = lost.row_lo, lost.row_lo + lost.rows
    for piece in opened.read(lost.group, lost.group + 1, who, slice_bytes, from_row=row, expected=True):
        for lo in range(0, piece.rows, SLICE_ROWS):
            n = min(SLICE_ROWS, piece.rows - lo)
            batch = None if piece.batch is None else piece.batch.slice(lo, n)
            yield _batch(
                np.arange(piece.row_lo + lo, piece.row_lo + lo + n, dtype=np.int64),
                np.full(n, _CODES[findings.FAILED], np.int8),
                pa.nulls(n, pa.large_string()),
                _fields(batch, n, opened, columns, who, reading),
                opened.digest,
            )
        row += piece.rows
    assert row == end


_CODES = {state: code for code, state in enumerate(findings.STATES)}
_STATES = pa.array(findings.STATES, pa.string())


def _documents(
    rows: _Integers,
    batch: pa.RecordBatch,
    opened: _Opened,
    columns: _Columns,
    selection: _Selection,
    slice_bytes: int,
    want_text: bool,
    reading: Reading,
) -> Iterator[pa.RecordBatch]:
    text, codes = _texts([_part(batch.column(selection.tops.index(c.top)), c.steps) for c in columns.text])
    fields = _fields(batch, len(codes), opened, columns, selection, reading)
    whole = _batch(rows, codes, text, fields, opened.digest)
    parts = _cut(whole, slice_bytes) if text.nbytes > slice_bytes else [whole]
    for part in parts:
        sound = len(parts) == 1 and all(column.offset == 0 for column in part.columns) and _starts_at_0(text)
        part = part if sound else _own(part)
        yield part if want_text else _without_text(part)


def _starts_at_0(text: pa.Array) -> bool:
    return not len(text) or int(_extents(text)[0][0]) == 0


def _own(batch: pa.RecordBatch) -> pa.RecordBatch:
    """*batch* with buffers of its own, so that a slice does not hold on to its neighbours."""
    return pa.RecordBatch.from_arrays([pa.concat_arrays([column]) for column in batch.columns], schema=batch.schema)


def _without_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    index = findings.BATCH.get_field_index("text")
    return batch.set_column(index, findings.BATCH.field(index), pa.nulls(batch.num_rows, pa.large_string()))


def _batch(
    numbers: _Integers, codes: npt.NDArray[np.int8], text: pa.Array, fields: dict[str, pa.Array], digest: str
) -> pa.RecordBatch:
    rows = pa.array(numbers)
    made = {
        **fields,
        "row": rows,
        "state": _STATES.take(pa.array(codes)),
        "text": text,
        "id": _ids(fields.get("id"), rows, digest),
        "characters": pc.fill_null(pc.utf8_length(text), 0),
        "bytes": pc.fill_null(pc.binary_length(text), 0),
    }
    nothing = pa.nulls(len(rows), pa.string())
    return pa.RecordBatch.from_arrays([made.get(name, nothing) for name in findings.BATCH.names], schema=findings.BATCH)


def _ids(given: pa.Array | None, rows: pa.Array, digest: str) -> pa.Array:
    if given is not None and given.null_count == 0:
        return given
    made = pc.binary_join_element_wise(f"{digest[:12]}#", rows.cast(pa.string()), "")
    return made if given is None else pc.coalesce(given, made)


def _fields(
    batch: pa.RecordBatch | None,
    n: int,
    opened: _Opened,
    columns: _Columns,
    selection: _Selection,
    reading: Reading,
) -> dict[str, pa.Array]:
    if batch is None:
        return {}
    fields = {}
    for name, column in columns.fields.items():
        values = batch.column(selection.tops.index(column.top))
        for step in column.steps:
            values = _struct_field(values, step)
        fields[name] = _string(values)
    if reading.source is None and "url" in fields:
        fields["source"] = registered_domains(fields["url"])
    return fields


# -- texts ------------------------------------------------------------------------------------

# What shows nothing: white space, controls, and characters of no width (joiners, direction marks,
# fillers, variation selectors, tags). A text of these alone is blank.
_BLANK_RANGES = (
    (0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x1680, 0x1680),
    (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x2800, 0x2800),
    (0x3000, 0x3000), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB),
    (0xE0001, 0xE0001), (0xE0020, 0xE007F), (0xE0100, 0xE01EF),
)  # fmt: skip
_BLANK = "".join(chr(c) for lo, hi in _BLANK_RANGES for c in range(lo, hi + 1))
_BLANK_FIRST_BYTES = np.isin(np.arange(256), sorted({c.encode()[0] for c in _BLANK}))


def _texts(parts: Sequence[pa.Array]) -> tuple[pa.Array, npt.NDArray[np.int8]]:
    """Joined texts as ``large_string``, null unless they are to be looked at, and the code of each row's state."""
    joined = parts[0] if len(parts) == 1 else _side_by_side(parts)
    codes = np.full(len(joined), _CODES[findings.OK], np.int8)
    try:
        text = joined.cast(pa.large_string())
    except pa.ArrowInvalid:
        broken = _broken(joined)
        codes[broken] = _CODES[findings.UNDECODABLE]
        text = pc.if_else(pa.array(~broken), joined, pa.scalar(None, pa.large_binary())).cast(pa.large_string())
    blank = _blank(text)
    codes[blank & (codes == _CODES[findings.OK])] = _CODES[findings.EMPTY]
    if np.any(blank & _flags(text.is_valid())):
        text = pc.if_else(pa.array(~blank), text, pa.scalar(None, pa.large_string()))
    return text, codes


def _broken(texts: pa.Array) -> _Flags:
    """Which rows are not UTF-8: halves that cast are sound, so the search goes only where the faults are."""
    broken = np.zeros(len(texts), bool)
    open_parts = [(0, len(texts))]
    while open_parts:
        lo, hi = open_parts.pop()
        try:
            texts.slice(lo, hi - lo).cast(pa.large_string())
        except pa.ArrowInvalid:
            if hi - lo == 1:
                broken[lo] = True
            else:
                middle = (lo + hi) // 2
                open_parts += [(lo, middle), (middle, hi)]
    return broken


def _blank(text: pa.Array) -> _Flags:
    """Null, empty, or nothing that shows. Only texts that begin with such a character are looked at."""
    data = text.buffers()[2]
    starts, ends = _extents(text)
    blank: _Flags = (starts == ends) | ~_flags(text.is_valid())
    if data is None:
        return blank
    first = np.zeros(len(text), np.uint8)
    first[~blank] = np.frombuffer(data, np.uint8)[starts[~blank]]
    [suspects] = np.nonzero(~blank & _BLANK_FIRST_BYTES[first])
    for characters in (4, 64, None):
        if not len(suspects):
            break
        candidates = text.take(pa.array(suspects))
        heads = candidates if characters is None else pc.utf8_slice_codeunits(candidates, 0, characters)
        left = _numbers(pc.binary_length(pc.utf8_ltrim(heads, _BLANK)), 0)
        suspects = suspects[left == 0]
    blank[suspects] = True
    return blank


def _extents(text: pa.Array) -> tuple[_Integers, _Integers]:
    if not len(text):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    return offsets[:-1], offsets[1:]


def _flags(array: pa.Array) -> _Flags:
    flags: _Flags = np.asarray(array.to_numpy(zero_copy_only=False), bool)
    return flags


def _part(values: pa.Array, steps: tuple[str, ...]) -> pa.Array:
    """The text of a path as ``large_binary``, one per row: what lists hold is joined with newlines, nulls left out."""
    n = len(values)
    rows: _Integers | None = None
    for step in steps:
        if step != _EACH:
            values = _struct_field(values, step)
            continue
        values = _storage(values)
        if pa.types.is_map(values.type):
            values = values.cast(_pairs(values.type))
            lengths = _lengths(values)
            values = _struct_field(values.flatten(), "value")
        else:
            lengths = _lengths(values)
            values = values.flatten()
        rows = np.repeat(np.arange(n, dtype=np.int64) if rows is None else rows, lengths)
    if rows is None:
        return _binary(values)
    values = _binary(values)
    return _join(values.drop_null(), rows[_flags(values.is_valid())], n)


def _side_by_side(parts: Sequence[pa.Array]) -> pa.Array:
    """Columns joined row by row with newlines, nulls left out."""
    # Arrow's own join with null_handling="skip" loses rows that are null throughout (seen in 26.0.1)
    n = len(parts[0])
    order = np.arange(len(parts) * n).reshape(len(parts), n).T.ravel()
    values = pa.concat_arrays(parts).take(pa.array(order))
    rows = np.repeat(np.arange(n, dtype=np.int64), len(parts))
    return _join(values.drop_null(), rows[_flags(values.is_valid())], n)


def _join(values: pa.Array, rows: _Integers, n: int) -> pa.Array:
    """*values* of equal *rows* (ascending) joined with newlines; rows without a value are null."""
    if not len(values):
        return pa.nulls(n, pa.large_binary())
    inner = np.append(rows[1:] == rows[:-1], False)
    ends = np.concatenate([[0], np.cumsum(inner)]).astype(np.int64)
    newlines = pa.Array.from_buffers(
        pa.large_binary(), len(inner), [None, pa.py_buffer(ends), pa.py_buffer(b"\n" * int(ends[-1]))]
    )
    joined = pc.binary_join_element_wise(values, newlines, pa.scalar(b"", pa.large_binary()))
    counts = np.bincount(rows, minlength=n)
    stops = np.concatenate([[0], np.cumsum(counts)])
    offsets = np.frombuffer(joined.buffers()[1], np.int64)[joined.offset :][stops]
    valid = np.packbits(counts > 0, bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), joined.buffers()[2]]
    return pa.Array.from_buffers(pa.large_binary(), n, buffers, int((counts == 0).sum()))


def _struct_field(values: pa.Array, name: str) -> pa.Array:
    values = _storage(values)
    return pc.struct_field(values, [values.type.get_field_index(name)])


def _storage(values: pa.Array) -> pa.Array:
    return values.storage if isinstance(values.type, pa.BaseExtensionType) else values


def _binary(values: pa.Array) -> pa.Array:
    """Any column of text as ``large_binary``, its bytes not looked at."""
    values = _storage(values)
    if pa.types.is_dictionary(values.type):
        return _binary(values.dictionary).take(values.indices)
    return values.cast(pa.large_binary())


# -- ids and sources --------------------------------------------------------------------------


def _string(values: pa.Array) -> pa.Array:
    """Any column of single values as ``string``; bytes that are not UTF-8 as ``0x`` and hex digits."""
    if isinstance(values.type, pa.BaseExtensionType) and pa.types.is_fixed_size_binary(values.type.storage_type):
        return _hex(values.storage.cast(pa.large_binary())).cast(pa.string())
    values = _storage(values)
    if pa.types.is_dictionary(values.type):
        return _string(values.dictionary).take(values.indices)
    if not _is_text(values.type):
        return values.cast(pa.string())
    if pa.types.is_string(values.type):
        try:
            values.validate(full=True)
            return values
        except pa.ArrowInvalid:
            pass
    raw = values.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string()).cast(pa.string())
    except pa.ArrowInvalid:
        broken = pa.array(_broken(raw))
        sound = pc.if_else(broken, pa.scalar(None, pa.large_binary()), raw).cast(pa.string())
        shown = _hex(pc.if_else(broken, raw, pa.scalar(None, pa.large_binary())))
        return pc.if_else(broken, pc.binary_join_element_wise("0x", shown.cast(pa.string()), ""), sound)


_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)


def _hex(values: pa.Array) -> pa.Array:
    values = pa.concat_arrays([values])
    validity, offsets, data = values.buffers()
    if data is None:
        return values.cast(pa.large_string())
    digits = _HEX[np.frombuffer(data, np.uint8)].tobytes()
    ends = np.frombuffer(offsets, np.int64)[: len(values) + 1] * 2
    buffers = [validity, pa.py_buffer(ends), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(values), buffers, values.null_count)


_HOST = r"^\s*(?:(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//)?(?:[^/?#@]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:@\s]+)"


def registered_domains(urls: pa.Array) -> pa.Array:
    """
    The registered domain of each URL (``bbc.co.uk`` of ``https://news.bbc.co.uk/x``), from tldextract's bundled list.

    An address without one (an IP address, ``localhost``) is its own source; without a host it is null.
    """
    hosts = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    packed = pc.utf8_lower(hosts).dictionary_encode()
    domains = [_registered_domain(host) for host in packed.dictionary.to_pylist()]
    return pa.array(domains, pa.string()).take(packed.indices)


@lru_cache(maxsize=1 << 17)
def _registered_domain(host: str) -> str | None:
    host = host.strip("[].")
    return _suffixes()(host).top_domain_under_public_suffix or host or None


@lru_cache(maxsize=1)  # the list is read once per process
def _suffixes() -> Any:
    import tldextract

    return tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())


# -- where a hit lies -------------------------------------------------------------------------


def locate(row: pa.Table, reading: Reading, offset: int) -> tuple[str, int]:
    """
    Which field code point *offset* of the joined text falls in, and where in it.

    *row* is one row of the shard; fields are named ``title`` or ``messages[3].content``. The
    newline that joins two fields belongs to the first. Raises ``IndexError`` past the end.
    """
    start = 0
    for name, text in _named_parts(row, reading):
        if offset <= start + len(text):
            return name, offset - start
        start += len(text) + 1
    raise IndexError(f"offset {offset} lies past the end of the text")


def _named_parts(row: pa.Table, reading: Reading) -> Iterator[tuple[str, str]]:
    for path in reading.text:
        column = _find_column(row.schema, path)
        if column is None:
            continue
        name = row.schema.names[column.top]
        for label, value in _walk(name, row.column(column.top)[0].as_py(), column.steps):
            if value is not None:
                yield label, value.decode() if isinstance(value, bytes) else value


def _walk(label: str, value: Any, steps: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not steps or value is None:
        yield label, value
    elif steps[0] != _EACH:
        yield from _walk(f"{label}.{steps[0]}", value[steps[0]], steps[1:])
    else:
        for i, item in enumerate(value):
            yield from _walk(f"{label}[{i}]", item[1] if isinstance(item, tuple) else item, steps[1:])


# -- tables -----------------------------------------------------------------------------------


def read_schema(part: Unit | Shard) -> pa.Schema:
    """The input's own schema, with its metadata."""
    return _Opened(part).schema


def read_table(
    part: Unit | Shard, slice_bytes: int = SLICE_BYTES, on_damage: OnDamage | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """
    All columns of *part* in slices of at most *slice_bytes*: (first row, table of the input's own schema).

    Damaged rows are left out: the next slice begins behind them, and *on_damage* is told.
    """
    opened = _Opened(part)
    first, last = opened.groups_of(part)
    for piece in opened.read(first, last, opened.select(None), slice_bytes):
        if piece.batch is not None:
            yield piece.row_lo, pa.Table.from_arrays(piece.batch.columns, schema=opened.schema)
        elif on_damage is not None:
            on_damage(piece.group, piece.rows, piece.error)


def fetch_rows(part: Unit | Shard, rows: _Integers, columns: Sequence[str] | None = None) -> pa.Table:
    """
    The rows numbered *rows* (ascending, from 0 within the shard), only these row groups read, slice by slice.

    *columns*: names of top-level columns (default: all). Raises ``DataError`` if one of the rows is damaged.
    """
    opened = _Opened(part)
    wanted = None if columns is None else [_named_column(opened, name) for name in columns]
    what = opened.select(wanted)
    found = [batch.take(pa.array(at)) for _, batch, at in _fetch(opened, rows, what)]
    schema = pa.schema([opened.schema.field(i) for i in what.tops], opened.schema.metadata)
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in found], schema)
    return table if wanted is None else table.select([what.tops.index(column.top) for column in wanted])


def fetch_documents(part: Unit | Shard, reading: Reading, rows: _Integers) -> pa.Table:
    """The documents numbered *rows* (ascending), of ``findings.BATCH``, as ``read_documents`` gives them."""
    opened = _Opened(part)
    columns = _Columns.of(opened, reading)
    what = opened.select([*columns.text, *columns.fields.values()])
    found = [
        documents
        for piece, batch, at in _fetch(opened, rows, what)
        for documents in _documents(
            at + piece.row_lo, batch.take(pa.array(at)), opened, columns, what, SLICE_BYTES, True, reading
        )
    ]
    return pa.Table.from_batches(found, findings.BATCH)


def _named_column(opened: _Opened, name: str) -> _Column:
    if name not in opened.schema.names:
        raise UsageError(f"{opened.place.uri}: no column '{name}'; the columns are {_listed(opened.schema.names)}.")
    column = _find_column(opened.schema, name)
    assert column is not None
    return column


def _fetch(opened: _Opened, rows: _Integers, what: _Selection) -> Iterator[tuple[_Piece, pa.RecordBatch, _Integers]]:
    """Pieces that hold some of *rows*, and where in them."""
    rows = np.asarray(rows, np.int64)
    if np.any(rows[1:] <= rows[:-1]) or (len(rows) and not 0 <= rows[0] <= rows[-1] < opened.starts[-1]):
        raise ValueError("rows must ascend and lie in the shard")
    for group, (lo, hi) in enumerate(zip(opened.starts, opened.starts[1:], strict=False)):
        here = rows[np.searchsorted(rows, lo) : np.searchsorted(rows, hi)]
        if not len(here):
            continue
        for piece in opened.read(group, group + 1, what, SLICE_BYTES):
            end = piece.row_lo + piece.rows
            at = here[(here >= piece.row_lo) & (here < end)] - piece.row_lo
            if len(at) and piece.batch is None:
                raise DataError(
                    f"{opened.place.uri}: row {piece.row_lo + int(at[0])} lies in a damaged part: {piece.error}"
                )
            if len(at) and piece.batch is not None:
                yield piece, piece.batch, at
            if end > here[-1]:
                break


# -- writing ----------------------------------------------------------------------------------


def _items_are_elements(of: pa.DataType) -> bool:
    if pa.types.is_map(of):
        return _items_are_elements(of.key_type) and _items_are_elements(of.item_type)
    if _is_list(of):
        return of.value_field.name == "element" and _items_are_elements(of.value_type)
    return not pa.types.is_struct(of) or all(_items_are_elements(of.field(i).type) for i in range(of.num_fields))


class ShardWriter:
    """
    Writes one shard in the input's own schema; it appears whole when the ``with`` block ends well, else never.

    Row groups depend on the rows alone, not on how they were handed over: equal rows give equal bytes.
    """

    def __init__(
        self, place: Place, schema: pa.Schema, group_bytes: int = 2 * SLICE_BYTES, group_rows: int = 1 << 20
    ) -> None:
        self.place = place
        self.schema = schema
        self.rows = 0
        self._limits = group_bytes, group_rows
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._scratch = place.scratch()
        self._writer: Any = pq.ParquetWriter(
            self._scratch,
            schema,
            compression="zstd",
            write_page_checksum=True,
            # older writers call the items of a list otherwise; theirs keep their names
            use_compliant_nested_type=all(_items_are_elements(of) for of in schema.types),
        )

    def write(self, table: pa.Table) -> None:
        """Append *table*, which has the columns and types of the schema."""
        if table.schema.names != self.schema.names or table.schema.types != self.schema.types:
            raise ValueError(f"the table's columns {table.schema.names} are not those of {self.place.uri}")
        table = pa.Table.from_arrays(table.columns, schema=self.schema)
        self.rows += table.num_rows
        for batch in table.to_batches():
            self._take(batch)

    def _take(self, batch: pa.RecordBatch) -> None:
        group_bytes, group_rows = self._limits
        ends = np.cumsum(sum((row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64)))
        lo = 0
        while lo < batch.num_rows:
            before = int(ends[lo - 1]) if lo else 0
            room = group_bytes - self._waiting_bytes
            hi = int(np.searchsorted(ends, before + room, side="right"))
            hi = max(hi, lo + (0 if self._waiting_rows else 1))
            hi = min(hi, lo + group_rows - self._waiting_rows)
            if hi > lo:
                self._waiting.append(pa.Table.from_batches([batch.slice(lo, hi - lo)]))
                self._waiting_rows += hi - lo
                self._waiting_bytes += int(ends[hi - 1]) - before
            if hi < batch.num_rows:
                self._flush()
            lo = hi

    def _flush(self) -> None:
        if self._waiting_rows:
            table = pa.concat_tables(self._waiting).combine_chunks()
            self._writer.write_table(table, row_group_size=self._waiting_rows)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def close(self) -> None:
        """Publish the shard."""
        self._flush()
        self._writer.close()
        self.place.adopt(self._scratch)

    def discard(self) -> None:
        """Forget what was written."""
        self._waiting = []
        try:
            self._writer.close()
        finally:
            os.unlink(self._scratch)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
