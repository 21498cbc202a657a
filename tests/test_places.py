"""Places: what is put is whole, what is listed is finished, and one driver holds a folder."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_guard.errors import TransientError, UsageError
from corpus_guard.places import TEMPORARY, Entry, Place, safe_name


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return Place.of(tmp_path / "here" if request.param == "local" else f"memory://test-{uuid4().hex}/here")


def test_what_is_put_can_be_read_listed_and_deleted(folder):
    (folder / "b/two.parquet").put(b"22")
    (folder / "one.parquet").put(b"1")
    (folder / "note.txt").put(b"")

    assert (folder / "b/two.parquet").read_bytes() == b"22"
    assert [(e.name, e.size) for e in folder.list(".parquet")] == [("b/two.parquet", 2), ("one.parquet", 1)]
    assert sorted(folder.names(recursive=False)) == ["note.txt", "one.parquet"]
    assert (folder / "one.parquet").exists()
    assert folder.is_folder()

    (folder / "one.parquet").delete()
    (folder / "one.parquet").delete()

    assert not (folder / "one.parquet").exists()
    assert (folder / "one.parquet").entry() is None


def test_a_folder_that_is_not_there_lists_nothing(folder):
    assert folder.list() == []
    assert list(folder.names()) == []
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        (folder / "x").read_bytes()
    with pytest.raises(FileNotFoundError):
        (folder / "x").open_input()


def test_a_second_put_replaces_the_first_and_changes_the_version(folder):
    file = folder / "x"
    file.put(b"old")
    before = file.entry()
    time.sleep(0.02)

    file.put(b"newer")

    assert file.read_bytes() == b"newer"
    assert isinstance(before, Entry) and before.version != file.entry().version


def test_files_are_put_whole_from_a_local_file(folder, tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 100_000)

    (folder / "copy").put_file(tmp_path / "source")
    scratch = (folder / "adopted").scratch()
    Path(scratch).write_bytes(b"done")
    listed_before = list(folder.names())
    (folder / "adopted").adopt(scratch)

    assert (folder / "copy").read_bytes() == b"x" * 100_000
    assert listed_before == ["copy"]
    assert (folder / "adopted").read_bytes() == b"done"
    assert not os.path.exists(scratch)


def test_a_put_that_fails_keeps_the_old_bytes_and_leaves_nothing_behind(tmp_path, monkeypatch):
    file = Place.of(tmp_path / "x")
    file.put(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="Make room"):
        file.put(b"new")

    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_unfinished_files_are_not_listed(folder):
    (folder / f"a/{TEMPORARY}123").put(b"")

    assert folder.list() == []


@pytest.mark.parametrize(
    "uri",
    [
        "memory://a/b c/100%.parquet",
        "s3://bucket/a%20b/100%25?region=x&endpoint_override=localhost:1",
        "s3://bucket?region=x",
        "gs://anonymous@bucket/deep/path",
        "/tmp/a b/100%?x#y",
    ],
)
def test_uris_lead_back_to_the_place(uri):
    place = Place.of(uri)
    below = place / "ä b/50% ?#.parquet"

    assert Place.of(below.uri) == below
    assert Place.of(below.uri).path == below.path
    assert below.parent.parent == place
    assert pickle.loads(pickle.dumps(below)) == below


def test_file_uris_are_local_and_percent_encoded():
    assert Place.of("file:///tmp/a%20b").path == "/tmp/a b"
    assert Place.of("file:///tmp/a%20b").is_local


def test_relative_paths_start_at_the_base(tmp_path):
    remote = Place.of("memory://top/configs")

    assert Place.of("data/x", tmp_path).path == str(tmp_path / "data/x")
    assert Place.of("../data", tmp_path / "configs").path == str(tmp_path / "data")
    assert Place.of("/abs", tmp_path).path == "/abs"
    assert Place.of("memory://else/x", tmp_path).uri == "memory://else/x"
    assert Place.of("../data", remote).uri == "memory://top/data"


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "/etc/passwd", "a//b", "a\0b", "a/"])
def test_joining_never_leaves_the_folder(name):
    with pytest.raises(ValueError):
        Place.of("/tmp/x") / name


@pytest.mark.parametrize("uri", ["nosuchscheme://a/b", "s3://", "", "a\0b"])
def test_an_address_nothing_can_read_is_told(uri):
    with pytest.raises(UsageError):
        Place.of(uri)


def test_links_are_followed_but_not_in_circles_and_broken_ones_are_shown(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.parquet").write_bytes(b"x")
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a/link").symlink_to(elsewhere)
    (root / "a/up").symlink_to(root)
    (root / "gone.parquet").symlink_to(tmp_path / "nowhere")
    (elsewhere / "back").symlink_to(root / "a")
    os.mkfifo(root / "pipe.parquet")

    names = [entry.name for entry in Place.of(root).list(".parquet")]

    assert names == ["a/link/x.parquet", "gone.parquet"]


class FaultyFileSystem(MemoryFileSystem):
    protocol = "faulty"
    fault: Exception | None = None

    def _raise(self):
        if FaultyFileSystem.fault is not None:
            raise FaultyFileSystem.fault

    def pipe_file(self, *args, **kwargs):
        self._raise()
        return super().pipe_file(*args, **kwargs)

    def _open(self, *args, **kwargs):
        self._raise()
        return super()._open(*args, **kwargs)

    def info(self, *args, **kwargs):
        self._raise()
        return super().info(*args, **kwargs)

    def find(self, *args, **kwargs):
        self._raise()
        return super().find(*args, **kwargs)


@pytest.fixture
def faulty():
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    FaultyFileSystem.fault = None
    yield Place.of(f"faulty://{uuid4().hex}")
    FaultyFileSystem.fault = None


class ServiceError(Exception):
    """As libraries of object stores raise them: no OSError."""


ServiceError.__module__ = "botocore.exceptions"


@pytest.mark.parametrize("fault", [OSError("503 Slow Down"), TimeoutError("no answer"), ServiceError("InternalError")])
def test_faults_of_an_object_store_are_transient(faulty, fault):
    (faulty / "x").put(b"x")
    FaultyFileSystem.fault = fault

    for act in (
        lambda: (faulty / "y").put(b""),
        (faulty / "x").read_bytes,
        (faulty / "x").entry,
        faulty.list,
        faulty.names,
        (faulty / "x").open_input,
    ):
        with pytest.raises(TransientError):
            act()


@pytest.mark.parametrize("fault", [PermissionError("no"), OSError("AWS Error ACCESS_DENIED during PutObject")])
def test_refused_access_is_not_tried_again(faulty, fault):
    FaultyFileSystem.fault = fault

    with pytest.raises(UsageError, match="credentials"):
        (faulty / "y").put(b"")


def test_an_error_of_our_own_code_is_not_taken_for_one_of_the_store(faulty):
    FaultyFileSystem.fault = ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        (faulty / "y").put(b"")


def test_one_driver_holds_a_folder_and_the_second_is_told_who(folder):
    with folder.lock(), pytest.raises(UsageError, match=rf"process {os.getpid()} on .* since 20"), folder.lock():
        pass

    with folder.lock():
        pass


def test_two_folders_are_held_apart(folder):
    with (folder / "a").lock(), (folder / "b").lock():
        pass


def test_a_local_lock_ends_with_the_process_that_was_killed(tmp_path):
    code = (
        "import sys, time; from corpus_guard.places import Place\n"
        "with Place.of(sys.argv[1]).lock(): print(1, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(UsageError, match=f"process {holder.pid} "), Place.of(tmp_path).lock():
        pass

    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with Place.of(tmp_path).lock():
        pass


def test_a_lock_object_without_heartbeat_becomes_void():
    place = Place.of(f"memory://{uuid4().hex}/run")
    (place / ".lock/dead.json").put(b'{"host": "h", "pid": 1, "since": "then", "beat": 1.0}')
    (place / ".lock/damaged.json").put(b"{")

    with place.lock():
        assert len(place.names()) == 1


def test_a_lock_object_stays_alive_while_it_is_held():
    place = Place.of(f"memory://{uuid4().hex}/run")

    with place.lock(beat_s=0.05, expires_s=0.5):
        time.sleep(1.0)
        with pytest.raises(UsageError), place.lock(beat_s=0.05, expires_s=0.5):
            pass

    assert place.names() == []


def test_of_many_contenders_never_two_hold_the_lock():
    place = Place.of(f"memory://{uuid4().hex}/run")
    inside = []
    most = []

    def contend():
        for _ in range(20):
            try:
                with place.lock():
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.pop()
            except UsageError:
                time.sleep(0.001)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most and max(most) == 1


HOSTILE = ["..", ".", "", "CON", "com1.txt", "a/b", "a\\b", "\0", "x" * 500, "a.", " a", "-rf"]
HOSTILE += ["é\u202e", "\ud800", "a:b", "字" * 80]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_inside_and_keep_apart(text, tmp_path):
    name = safe_name(text)

    place = Place.of(tmp_path) / f"{name}.parquet"
    place.put(b"")
    assert os.listdir(tmp_path) == [f"{name}.parquet"]
    assert name != text and len(name.encode()) <= 120
    assert len({safe_name(other) for other in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("text", ["shard-00", "日本語 テスト", "a.b_c+d=e@f", "x" * 120])
def test_harmless_names_are_kept(text):
    assert safe_name(text) == text


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(max_size=200))
def test_any_text_becomes_one_harmless_part_of_a_path(text):
    name = safe_name(text)

    assert safe_name(name) == name
    assert "/" not in name and "\0" not in name and name not in ("", ".", "..") and not name.startswith(TEMPORARY)
    assert len(name.encode()) <= 120
