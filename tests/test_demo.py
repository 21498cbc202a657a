"""The demo corpus: what it promises of its sources is what the keyword stage finds, the same every time."""

from collections import Counter
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from corpus_guard.config import load_config
from corpus_guard.demo import BLANKS, NOT_UTF8, SOURCES, corpus, make_demo_corpus, shards
from corpus_guard.errors import UsageError
from corpus_guard.keywords.stage import KeywordRecipe
from corpus_guard.shipped import shipped
from corpus_guard.sources.register import load_register
from corpus_guard.taxonomy import CODES


@pytest.fixture(scope="module")
def table():
    return corpus()


@pytest.fixture(scope="module")
def texts(table):
    """Text per row, ``None`` where it is null, blank or not UTF-8."""
    binary = table["text"].cast(pa.binary()).to_pylist()
    blank = {None if text is None else text.encode() for text in BLANKS} | {NOT_UTF8}
    return [None if text in blank else text.decode() for text in binary]


def test_sources_have_as_many_documents_as_they_say(table):
    counts = Counter(table["source"].to_pylist())

    assert counts == {source.name: source.documents for source in SOURCES}
    assert sum(counts.values()) == 12_000


def test_each_source_has_exactly_its_share_of_illegal_documents_and_the_rest_is_harmless(table, texts):
    recipe = KeywordRecipe("starter", engine="pyahocorasick")
    findings = recipe.build().find(pa.record_batch({"text": pa.array(texts, pa.large_string())}))

    opinion = recipe.reader(as_of=date(2026, 11, 21), thresholds={}).opinion(pa.Table.from_batches([findings]))

    names = np.array([name or "" for name in table["source"].to_pylist()])
    allowed = np.uint32(sum(1 << i for i, code in enumerate(CODES) if code[:3] in ("A.1", "A.3", "A.4")))
    assert not (opinion.sure & ~allowed).any()
    for source in SOURCES:
        mine = names == (source.name or "")
        assert np.count_nonzero(opinion.sure[mine]) == source.illegal, source.name
        assert np.count_nonzero(opinion.needs[mine] & ~opinion.sure[mine]) <= source.doubtful, source.name


def test_one_source_is_over_one_at_and_one_below_the_limit():
    decisions = {source.name: 100 * source.illegal - 5 * source.documents for source in SOURCES}

    assert decisions["forum.example.cn"] == 0
    assert decisions["market.example.org"] < 0 < decisions["classifieds.example.cn"]
    assert sum(over > 0 for over in decisions.values()) == 3


def test_blank_damaged_copied_and_repeated_rows_are_there(table, texts):
    binary = table["text"].cast(pa.binary())

    assert texts.count(None) == 3 * len(BLANKS) + 1
    assert pc.count_distinct(table["id"]).as_py() == 12_000 - 12
    copies = len(binary) - pc.count_distinct(binary, mode="all").as_py()
    assert copies > 60
    with pytest.raises(pa.ArrowInvalid):
        table["text"].validate(full=True)


def test_texts_differ_enough_to_be_a_corpus(texts):
    real = [text for text in texts if text]

    assert len(set(real)) > 11_800
    assert 100 < np.median([len(text) for text in real]) < 600


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first = list(shards(7))

    assert first == list(shards(7))
    assert first != list(shards(8))
    assert len(first) == 6


def test_a_demo_folder_can_be_run_from_and_is_left_alone_the_second_time(tmp_path):
    config = make_demo_corpus(tmp_path / "demo")
    files = sorted((tmp_path / "demo" / "corpus").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    config.write_text(config.read_text() + "# mine\n")

    again = make_demo_corpus(tmp_path / "demo")

    assert again == config
    assert config.read_text().endswith("# mine\n")
    assert [file.stat().st_mtime_ns for file in files] == before
    assert sum(pq.ParquetFile(file).metadata.num_rows for file in files) == 12_000
    assert {pq.ParquetFile(file).metadata.num_row_groups for file in files} == {2}


@pytest.mark.skipif(shipped("models", "ngram-screen") is None, reason="the n-gram screen is not there yet")
def test_config_and_register_of_the_demo_can_be_read(tmp_path):
    config = make_demo_corpus(tmp_path / "demo")

    loaded = load_config(config)
    register = load_register(loaded.sources.register)

    assert set(register.sources) == {source.name for source in SOURCES if source.name}
    assert {name: one.kind for name, one in register.sources.items()} == {
        source.name: source.kind for source in SOURCES if source.name
    }


@pytest.mark.parametrize("what", ["a folder with other things", "a file"])
def test_a_demo_is_never_written_over_something_else(tmp_path, what):
    place = tmp_path / "mine"
    if what == "a file":
        place.write_text("keep me")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("keep me")

    with pytest.raises(UsageError, match="name a new or an empty folder"):
        make_demo_corpus(place)

    assert (place if what == "a file" else place / "thesis.txt").read_text() == "keep me"
