"""
One seam over local folders and object stores: where bytes are read, put whole, listed and locked.

A ``Place`` is a file or folder on any filesystem that pyarrow.fs or fsspec reaches. What is put
appears whole or not at all. Knows nothing of Parquet, shards or runs.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from corpus_guard.errors import CorpusGuardError, TransientError, UsageError

TEMPORARY = ".tmp-"
"""Names that begin so are being written by somebody; no listing shows them."""

_T = TypeVar("_T")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+)://")
_ARROW_SCHEMES = frozenset({"s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"})
_URI_SAFE = "/%!$&'()*+,;=:@-._~"

_PASSING_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED",
        "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "EHOSTDOWN", "EREMOTEIO",
    )
    if hasattr(errno, name)
)  # fmt: skip
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LASTING = re.compile(
    r"access.?denied|forbidden|no.?such.?bucket|bucket.?not.?found|invalid.?access.?key|signature.?does.?not.?match"
    r"|no.?credentials|unable to locate credentials|permission.?denied|invalid.?bucket|authorization|unauthorized",
    re.IGNORECASE,
)
_STORAGE_LIBRARIES = frozenset(
    {"aiohttp", "aiobotocore", "botocore", "boto3", "s3fs", "gcsfs", "google", "adlfs", "azure", "requests", "urllib3",
     "httpx", "httpcore", "paramiko", "smbprotocol", "oss2", "ossfs"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """
    A file as a listing shows it. ``name`` is relative to the listed place.

    ``etag`` is the store's own mark of the content, null where there is none. ``version`` changes
    whenever the file is written again: the etag, else the time of the last change.
    """

    name: str
    size: int
    etag: str | None
    version: str


@dataclass(frozen=True, slots=True)
class Place:
    """
    A file or folder, existing or not. ``uri`` leads back to it: ``Place.of(place.uri) == place``.

    For local places ``uri`` is the absolute path. Equal places have equal ``uri`` and ``query``.
    """

    base: str
    path: str = field(compare=False)
    query: str = ""
    fs: Any = field(compare=False, repr=False, default=None)

    @classmethod
    def of(cls, where: "Where", base: "Where | None" = None) -> "Place":
        """
        The place that *where* names; a relative path is taken from *base* (default: the working folder).

        Raises ``UsageError`` for a scheme nothing installed can read.
        """
        if isinstance(where, Place):
            return where
        text = os.fspath(where)
        if "\0" in text:
            raise UsageError(f"{text!r}: a path cannot contain a NUL character.")
        if not text:
            raise UsageError("An empty path names no file and no folder.")
        scheme = _SCHEME.match(text)
        if scheme is None:
            return _local(_from_base(text, base)) if not _is_remote(base) else _below_remote(text, Place.of(base or ""))
        if scheme[1].lower() in ("file", "local"):
            return _local(unquote(urlsplit(text).path))
        return _remote(text, scheme[1].lower())

    @property
    def uri(self) -> str:
        return self.base + self.query

    @property
    def is_local(self) -> bool:
        return self.fs is None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> "Place":
        """The folder that holds it; the root is its own parent."""
        head, slash, _ = self.path.rstrip("/").rpartition("/")
        if not slash or (not self.is_local and not head):
            return self
        base = self.base.rstrip("/").rpartition("/")[0]
        return replace(self, path=head or "/", base=base or "/")

    def __truediv__(self, name: str) -> "Place":
        """The place *name* below this one; never one outside it (``ValueError``)."""
        parts = name.split("/")
        if "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{name!r} is not a plain relative path")
        tail = quote(name, safe="/+=,@:~!$&'()*;") if self._quoted else name
        return replace(self, path=f"{self.path.rstrip('/')}/{name}", base=f"{self.base.rstrip('/')}/{tail}")

    def __str__(self) -> str:
        return self.uri

    @property
    def _quoted(self) -> bool:
        """Whether this filesystem's URIs are percent-encoded: Arrow's are, fsspec's are not."""
        return not self.is_local and not isinstance(self.fs, pafs.PyFileSystem)

    # -- reading ------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether there is a file or a folder here."""
        if self.is_local:
            return os.path.exists(self.path)
        with self.telling("look at"):
            return bool(self.fs.get_file_info(self.path).type != pafs.FileType.NotFound)

    def is_folder(self) -> bool:
        if self.is_local:
            return os.path.isdir(self.path)
        with self.telling("look at"):
            return bool(self.fs.get_file_info(self.path).type == pafs.FileType.Directory)

    def entry(self) -> Entry | None:
        """This file as a listing of its folder would show it; null if there is no such file."""
        if self.is_local:
            try:
                status = os.stat(self.path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return None if os.path.isdir(self.path) else Entry(self.name, status.st_size, None, str(status.st_mtime_ns))
        with self.telling("look at"):
            if (spec := self._fsspec) is not None:
                try:
                    info = spec.info(self.path)
                except FileNotFoundError:
                    return None
                return None if info.get("type") == "directory" else _entry(self.name, info)
            found = self.fs.get_file_info(self.path)
            return _arrow_entry(self.name, found) if found.type == pafs.FileType.File else None

    def read_bytes(self) -> bytes:
        """All bytes; ``FileNotFoundError`` if there is no such file."""
        with self.telling("read"):
            if self.is_local:
                with open(self.path, "rb") as file:
                    return file.read()
            with self.fs.open_input_file(self.path) as file:
                return bytes(file.read())

    def open_input(self) -> Any:
        """A random-access Arrow file; ``FileNotFoundError`` if there is none. Its own reads raise plain ``OSError``."""
        with self.telling("read"):
            # not memory-mapped: a shard cut short while it is read must be an error, not a SIGBUS
            return pa.OSFile(self.path, "rb") if self.is_local else self.fs.open_input_file(self.path)

    def list(self, suffix: str = "", recursive: bool = True) -> list[Entry]:
        """Files below this folder whose names end with *suffix*, sorted; none if there is no such folder."""
        with self.telling("list"):
            if self.is_local:
                return sorted(_walk(self.path, "", suffix, recursive, _local_entry), key=_by_name)
            return sorted(self._list_remote(suffix, recursive), key=_by_name)

    def names(self, suffix: str = "", recursive: bool = True) -> Sequence[str]:
        """The names of ``list``, without order and without looking at each file: for a million files."""
        with self.telling("list"):
            if self.is_local:
                return list(_walk(self.path, "", suffix, recursive, _just_name))
            return [entry.name for entry in self._list_remote(suffix, recursive)]

    def _list_remote(self, suffix: str, recursive: bool) -> Iterator[Entry]:
        root = self.path.rstrip("/") + "/"
        if (spec := self._fsspec) is not None:
            spec.invalidate_cache()  # another driver may have written since
            found = spec.find(self.path, maxdepth=None if recursive else 1, detail=True)
            for path, info in found.items():
                name = path.lstrip("/")[len(root.lstrip("/")) :]
                if name and name.endswith(suffix) and not _is_temporary(name) and info.get("type") != "directory":
                    yield _entry(name, info)
            return
        for info in self.fs.get_file_info(pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)):
            name = info.path.lstrip("/")[len(root.lstrip("/")) :]
            if info.type == pafs.FileType.File and name.endswith(suffix) and not _is_temporary(name):
                yield _arrow_entry(name, info)

    @property
    def _fsspec(self) -> Any:
        """The fsspec filesystem behind this place, if it is one."""
        handler = getattr(self.fs, "handler", None)
        return getattr(handler, "fs", None)

    # -- writing ------------------------------------------------------------------------------

    def put(self, data: bytes | pa.Buffer) -> None:
        """Write *data* as the whole content. Readers see the old bytes or the new ones, never a part."""
        with self.telling("write"):
            if self.is_local:
                _put_local(self.path, lambda file: file.write(data))
            else:
                self._put_remote(iter([data]), len(data))

    def put_file(self, source: str | os.PathLike[str]) -> None:
        """Write the local file *source* as the whole content; *source* stays."""
        with self.telling("write"), open(source, "rb") as file:
            if self.is_local:
                _put_local(self.path, lambda target: shutil.copyfileobj(file, target, 8 << 20))
            else:
                self._put_remote(iter(lambda: file.read(8 << 20), b""), os.fstat(file.fileno()).st_size)

    def scratch(self) -> str:
        """Path of a new empty local file that ``adopt`` can turn into this file. Nobody lists it."""
        with self.telling("write"):
            if not self.is_local:
                handle, path = tempfile.mkstemp(prefix="corpus-guard-")
                os.close(handle)
                return path
            folder = os.path.dirname(self.path)
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, _temporary_name())
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return path

    def adopt(self, scratch: str) -> None:
        """Make the finished *scratch* file the content of this place, whole; the scratch file is gone after it."""
        if not self.is_local:
            self.put_file(scratch)
            os.unlink(scratch)
            return
        with self.telling("write"):
            with open(scratch, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(scratch, self.path)

    def delete(self) -> None:
        """Remove this file; nothing happens if there is none."""
        with self.telling("delete"), suppress(FileNotFoundError):
            if self.is_local:
                os.unlink(self.path)
            elif (spec := self._fsspec) is not None:
                spec.rm_file(self.path)
            elif self.fs.get_file_info(self.path).type == pafs.FileType.File:
                # S3 deletes what is not there without a word, others complain
                self.fs.delete_file(self.path)

    def sweep(self, keep: "Place | None" = None) -> None:
        """
        Remove what killed writers left unfinished below this local folder, but for the folder *keep*.

        For a folder that only the caller writes to: an unfinished file of somebody alive would go too.
        """
        if not self.is_local:
            return
        kept = os.path.realpath(keep.path) if keep is not None and keep.is_local else None
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if os.path.realpath(os.path.join(folder, name)) != kept]
            for name in names:
                if name.startswith(TEMPORARY):
                    with suppress(OSError):
                        os.unlink(os.path.join(folder, name))

    def make_folder(self, mode: int = 0o777) -> None:
        """Make this folder and those above it. Only a new local folder gets *mode*; stores have no folders."""
        if not self.is_local or os.path.isdir(self.path):
            return
        with self.telling("make the folder"):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.path, mode)

    def _put_remote(self, chunks: Iterator[Any], size: int) -> None:
        if (spec := self._fsspec) is not None and size <= 64 << 20:
            data = b"".join(bytes(chunk) for chunk in chunks)
            _after_parent(spec, self.path, lambda: spec.pipe_file(self.path, data))
            return
        renames = self.fs.type_name == "hdfs"  # a real filesystem: an unfinished file would be seen
        target = f"{self.path.rpartition('/')[0]}/{_temporary_name()}" if renames else self.path
        if renames:
            self.fs.create_dir(self.path.rpartition("/")[0], recursive=True)
        stream = self.fs.open_output_stream(target)
        try:
            for chunk in chunks:
                stream.write(chunk)
            stream.close()
        except BaseException:
            # Arrow publishes what was written so far when a stream is closed after an error
            with suppress(Exception):
                stream.close()
            with suppress(Exception):
                self.fs.delete_file(target)
            raise
        if renames:
            self.fs.move(target, self.path)

    # -- locking ------------------------------------------------------------------------------

    @contextmanager
    def lock(self, beat_s: float = 20.0, expires_s: float = 300.0) -> Iterator[None]:
        """
        Hold this folder for one driver.

        Locally a ``flock``, gone with the process that held it; on object stores one object per
        contender with a heartbeat every *beat_s* seconds, void when none came for *expires_s*.
        Raises ``UsageError`` naming host, process and time if somebody holds it already.
        """
        if self.is_local:
            self.make_folder()
            with self.telling("lock"), _flock(os.path.join(self.path, ".lock"), self.uri):
                yield
        else:
            with _heartbeat(self, beat_s, expires_s):
                yield

    # -- faults -------------------------------------------------------------------------------

    @contextmanager
    def telling(self, doing: str) -> Iterator[None]:
        """Within it, faults of the storage become sentences; a missing file stays ``FileNotFoundError``."""
        try:
            yield
        except (CorpusGuardError, FileNotFoundError):
            raise
        except OSError as fault:
            raise _told(fault, self, doing) from fault
        except Exception as fault:
            if self.is_local or type(fault).__module__.partition(".")[0] not in _STORAGE_LIBRARIES:
                raise
            raise _told(fault, self, doing) from fault


def _told(fault: Exception, place: Place, doing: str) -> CorpusGuardError:
    what = f"Cannot {doing} {place.uri}: {one_line(fault)}"
    number = getattr(fault, "errno", None)
    if number in _FULL_ERRNOS:
        return CorpusGuardError(f"{what}. Make room there, then start the same command again.")
    if place.is_local and number not in _PASSING_ERRNOS:
        if isinstance(fault, (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)) or number in (
            errno.EROFS,
            errno.ENAMETOOLONG,
            errno.ELOOP,
        ):
            return UsageError(f"{what}. Give this account access to it or name another place.")
        return CorpusGuardError(f"{what}. Check the disk, then start the same command again.")
    if not place.is_local and (isinstance(fault, PermissionError) or _LASTING.search(str(fault))):
        return UsageError(f"{what}. Check the address and the credentials of this account.")
    return TransientError(f"{what}. It is tried again.")


def one_line(fault: BaseException, limit: int = 300) -> str:
    """What *fault* says, fit for one line of a log: no control characters, not endless, never empty."""
    text = "".join(c if c.isprintable() else " " for c in str(fault))
    text = " ".join(text.split()) or type(fault).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


Where = str | os.PathLike[str] | Place

# -- names ------------------------------------------------------------------------------------

_UNSAFE = frozenset('<>:"\\|?*/~%#')
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{p}{n}" for p in ("com", "lpt") for n in "0123456789¹²³"}
)
_LONGEST = 120


def safe_name(text: str) -> str:
    """
    *text* as one part of a path that is harmless everywhere: no separators, no device names, not too long.

    A name that is harmless already is returned as it is; any other gets 12 hex digits of its
    SHA-256, so that different texts keep different names.
    """
    if text and _is_safe(text):
        return text
    kept = "".join(c if _is_safe_character(c) else "_" for c in text[:400]).strip(" .")
    while len(kept.encode()) > _LONGEST - 13:
        kept = kept[:-1]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{kept.strip(' .') or '_'}-{digest}"


def _is_safe(text: str) -> bool:
    return (
        all(_is_safe_character(c) for c in text)
        and len(text.encode()) <= _LONGEST
        and text[0] not in ". -"
        and text[-1] not in ". "
        and text.split(".", 1)[0].rstrip().lower() not in _DEVICES
    )


def _is_safe_character(c: str) -> bool:
    if c in _UNSAFE:
        return False
    # no controls, direction marks, lone surrogates, unassigned or private code points; no space but the common one
    return c == " " or unicodedata.category(c)[0] in "LMNPS"


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(TEMPORARY)


def _temporary_name() -> str:
    return f"{TEMPORARY}{secrets.token_hex(8)}"


# -- local --------------------------------------------------------------------------------------


def _local(path: str) -> Place:
    path = os.path.abspath(path)
    return Place(path, path)


def _from_base(path: str, base: "Where | None") -> str:
    if isinstance(base, Place):
        base = base.path
    elif base is not None:
        base = Place.of(base).path
    return os.path.join(base or "", os.path.expanduser(path))


def _walk(
    folder: str,
    below: str,
    suffix: str,
    recursive: bool,
    of: Callable[[os.DirEntry[str], str], _T],
    above: tuple[str, ...] = (),
) -> Iterator[_T]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                chain = above
                if entry.is_symlink():  # links are followed, but not in circles
                    chain = (*above, os.path.realpath(folder))
                    real = os.path.realpath(entry.path)
                    if any(f"{up}/".startswith(f"{real}/") for up in chain):
                        continue
                if recursive:
                    yield from _walk(entry.path, f"{below}{entry.name}/", suffix, recursive, of, chain)
            elif entry.name.endswith(suffix) and not entry.name.startswith(TEMPORARY):
                # a link to nowhere is shown: whoever opens it can tell what is missing; pipes and sockets are no files
                if entry.is_file() or entry.is_symlink():
                    yield of(entry, below + entry.name)


def _local_entry(entry: os.DirEntry[str], name: str) -> Entry:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return Entry(name, 0, None, "")
    return Entry(name, status.st_size, None, str(status.st_mtime_ns))


def _just_name(entry: os.DirEntry[str], name: str) -> str:
    return name


def _by_name(entry: Entry) -> str:
    return entry.name


def _put_local(path: str, write: Callable[[Any], object]) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, _temporary_name())
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            # before the name: after a power cut there is a whole file or none
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def _flock(path: str, where: str) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(where, os.pread(handle, 4096, 0)) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_holder()).encode(), 0)
        # the file stays: removing it would let two drivers lock two files of the same name
        yield
    finally:
        os.close(handle)


# -- object stores ------------------------------------------------------------------------------


def _is_remote(base: "Where | None") -> bool:
    if base is None:
        return False
    return not Place.of(base).is_local


def _below_remote(path: str, base: Place) -> Place:
    if path.startswith("/"):
        return _local(path)
    for part in path.split("/"):
        if part == "..":
            base = base.parent
        elif part not in ("", "."):
            base = base / part
    return base


def _remote(uri: str, scheme: str) -> Place:
    if scheme not in _ARROW_SCHEMES:
        base = uri.rstrip("/")
        filesystem, path = _fsspec_filesystem(base, scheme)
        return Place(base, path.rstrip("/") or "/", "", filesystem)
    base, mark, query = uri.partition("?")
    authority, _, rest = base[len(scheme) + 3 :].strip("/").partition("/")
    if not authority and scheme not in ("hdfs", "viewfs"):
        raise UsageError(f"Cannot use {uri}: it names no bucket. Write {scheme}://bucket/path.")
    root = f"{base[: len(scheme) + 3]}{authority}"
    filesystem, top = _arrow_filesystem(root, mark + query)
    path = f"{top.rstrip('/')}/{unquote(rest)}" if rest else top
    return Place(f"{root}/{quote(rest, safe=_URI_SAFE)}" if rest else root, path, mark + query, filesystem)


@lru_cache(maxsize=64)  # a connection per bucket, not per file: making one may ask the store for its region
def _arrow_filesystem(root: str, query: str) -> tuple[Any, str]:
    try:
        filesystem, path = pafs.FileSystem.from_uri(root + query)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as fault:
        raise UsageError(f"Cannot use {root}: {one_line(fault)}. Check the address.") from fault
    return filesystem, str(path)


def _fsspec_filesystem(uri: str, scheme: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as fault:
        raise UsageError(
            f"Cannot use {uri}: nothing installed reads '{scheme}://' ({one_line(fault)}). "
            f"Install the fsspec package for it or use a local path."
        ) from fault
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), str(path)


def _entry(name: str, info: dict[str, Any]) -> Entry:
    marks = [info[key] for key in ("ETag", "etag", "md5Hash", "generation") if info.get(key)]
    times = [info[key] for key in ("LastModified", "last_modified", "mtime", "updated", "created") if info.get(key)]
    etag = str(marks[0]).strip('"') if marks else None
    return Entry(name, int(info.get("size") or 0), etag, etag or str(times[0] if times else ""))


def _arrow_entry(name: str, info: Any) -> Entry:
    return Entry(name, info.size, None, "" if info.mtime_ns is None else str(info.mtime_ns))


def _after_parent(spec: Any, path: str, write: Callable[[], None]) -> None:
    try:
        write()
    except FileNotFoundError:
        spec.makedirs(path.rpartition("/")[0], exist_ok=True)
        write()


@contextmanager
def _heartbeat(place: Place, beat_s: float, expires_s: float) -> Iterator[None]:
    """
    Put an own object, then look for others: of two contenders at least the later one sees the other.

    Needs only listings that show what was put (all large stores do); both may lose, never may both win.
    """
    token = secrets.token_hex(8)
    holder = _holder()
    mine = place / f".lock/{token}.json"

    def beat() -> None:
        mine.put(json.dumps({**holder, "beat": time.time()}).encode())

    def beat_on() -> None:
        while not stop.wait(beat_s):
            with suppress(Exception):  # the next beat may pass; a holder that cannot write is void soon enough
                beat()

    beat()
    stop = threading.Event()
    try:
        for entry in (place / ".lock").list(".json"):
            if entry.name == f"{token}.json":
                continue
            other = place / f".lock/{entry.name}"
            with suppress(FileNotFoundError):
                held_by = _read_holder(other)
                if time.time() - _beat_of(held_by) < expires_s:
                    raise _held(place.uri, held_by)
                other.delete()
        thread = threading.Thread(target=beat_on, name="corpus-guard lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
    finally:
        with suppress(Exception):
            mine.delete()


def _read_holder(lock: Place) -> bytes:
    """The content of a lock object; one that says nothing yet may be in the middle of being written."""
    for _ in range(10):
        content = lock.read_bytes()
        if _beat_of(content):
            return content
        time.sleep(0.02)
    return content


def _beat_of(content: bytes) -> float:
    try:
        return float(json.loads(content)["beat"])
    except (ValueError, TypeError, KeyError):
        return 0.0


def _holder() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _held(where: str, content: bytes) -> UsageError:
    try:
        holder = json.loads(content)
        by = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, TypeError, KeyError):
        by = "another process"
    return UsageError(f"{where} is in use by {by}. Wait until it ends, stop it there, or choose another run name.")
