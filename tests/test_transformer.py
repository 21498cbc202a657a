"""Any local checkpoint, every token of every document. The checkpoints here are tiny, made on the spot."""

import os
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from corpus_guard.classifiers import recipe
from corpus_guard.errors import UsageError
from corpus_guard.findings import BATCH
from corpus_guard.text.windows import Windows
from tests.corpora import config, run_job, write_shards

torch = pytest.importorskip("torch", reason="torch is not installed; it comes with the extra 'models'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'models')")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra 'models')")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
torch.set_num_threads(1)  # models this small only wait for each other on several
WORDS = "a the grey heron stood still by water and river it was not moving at all while one two three fish swam".split()
SIZE, STRIDE = 24, 16


def word_tokenizer(specials):
    """One token a word, so that positions in a test are plain to see."""
    vocabulary = {
        word: i for i, word in enumerate([*specials, *WORDS, "鹭", "[", "]", "SEP", "CLS", "<", ">", "/", "s"])
    }
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=specials[1]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


def bert(positions=32):
    tokenizer = word_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions, pad_token_id=0,
    )  # fmt: skip
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return tokenizer, names, config, transformers.BertForSequenceClassification


def roberta():
    tokenizer = word_tokenizer(["<pad>", "<unk>", "<s>", "</s>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    config = transformers.RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=34, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    return tokenizer, names, config, transformers.RobertaForSequenceClassification


def qwen2():
    """A decoder: its head reads the last token, and it has no special tokens around a text."""
    tokenizer = word_tokenizer(["<|pad|>", "<|unk|>"])
    config = transformers.Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return (
        tokenizer,
        {"pad_token": "<|pad|>", "unk_token": "<|unk|>"},
        config,
        transformers.Qwen2ForSequenceClassification,
    )


def save(folder, made, labels=3, set_weights=None, **description):
    """Write a checkpoint with weights of its own, and its description."""
    tokenizer, names, config, kind = made
    config.num_labels = labels
    torch.manual_seed(7)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2) if parameter.ndim > 1 else None
        if set_weights is not None:
            set_weights(model)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    content = {
        "name": folder.name,
        "activation": "sigmoid",
        "windows": {"size": SIZE, "stride": STRIDE},
        "pooling": "max",
        "labels": {f"LABEL_{i}": {"risks": ["A.1.f"], "threshold": {"upper": 0.5}} for i in range(labels)},
    }
    (folder / "corpus_guard.yaml").write_text(yaml.safe_dump(content | description))
    return folder


def spot_heron(model):
    """The average over a window's words points one way if 'heron' is among them."""
    heron = torch.tensor([1.0, -1.0] * 16)
    other = torch.tensor([1.0, 1.0, -1.0, -1.0] * 8)
    onto = torch.outer(heron, heron) / 32
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "LayerNorm.weight" in name else 0.0)
    layer = model.bert.encoder.layer[0]
    model.bert.embeddings.word_embeddings.weight[:] = other
    model.bert.embeddings.word_embeddings.weight[bert()[0].get_vocab()["heron"]] = heron
    layer.attention.self.value.weight[:] = torch.eye(32)
    layer.attention.output.dense.weight[:] = 1_000 * onto
    model.bert.pooler.dense.weight[:] = onto
    model.classifier.weight[:] = 20 * heron / 32
    model.classifier.bias[:] = -8


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {made.__name__: save(root / made.__name__, made()) for made in (bert, roberta, qwen2)}


@pytest.fixture(scope="module")
def heron_spotter(tmp_path_factory):
    """A BERT whose weights are set by hand."""
    return save(tmp_path_factory.mktemp("spotter") / "spotter", bert(), labels=1, set_weights=spot_heron)


def batch(texts):
    columns = {name: pa.nulls(len(texts), BATCH.field(name).type) for name in BATCH.names}
    return pa.RecordBatch.from_pydict(columns | {"text": pa.array(texts, pa.large_string())}, schema=BATCH)


def scores(findings):
    return np.array(findings.column("scores").drop_null().to_pylist(), np.float32)


def words(n, seed=0):
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice([word for word in WORDS if word != "heron"], n))


DOCUMENTS = [words(n, n) for n in (1, 5, 22, 23, 24, 25, 40, 41, 100, 3, 333)]


@pytest.mark.parametrize("name", ["bert", "roberta", "qwen2"])
def test_scores_are_those_of_each_window_alone_in_the_models_own_library(checkpoints, name):
    folder = checkpoints[name]
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected, strongest = [], []
    for text in DOCUMENTS:
        tokens = text.split()
        _, start, end = Windows(SIZE, STRIDE).cut([len(tokens)])
        windows = [" ".join(tokens[s:e]) for s, e in zip(start, end, strict=True)]
        with torch.no_grad():
            logits = torch.cat(
                [model(**tokenizer(w, return_tensors="pt", return_token_type_ids=False)).logits for w in windows]
            )
        expected.append(logits.max(dim=0).values.numpy())
        strongest.append(int(logits.max(dim=1).values.argmax()))

    findings = recipe(folder, device="cpu", batch_tokens=100).build().find(batch(DOCUMENTS))

    assert np.allclose(scores(findings), np.array(expected), atol=5e-3, rtol=2e-3)
    assert findings.column("window").to_pylist() == strongest
    assert findings.column("tokens").to_pylist() == [len(text.split()) for text in DOCUMENTS]


@pytest.mark.parametrize("depth", [0, 20, 23, 24, 200, 1999, 2000])
def test_a_word_at_any_depth_of_a_long_document_is_found_where_truncation_misses_it(heron_spotter, depth):
    made = recipe(heron_spotter, device="cpu")
    tokens = words(2000, depth).split()
    text = " ".join([*tokens[:depth], "heron", *tokens[depth:]])
    reader = made.reader(as_of=date(2026, 11, 21), thresholds={})
    stage = made.build()

    whole, without, truncated = (
        reader.opinion(pa.Table.from_batches([stage.find(batch([part]))])).sure.any()
        for part in (text, " ".join(tokens), " ".join(text.split()[:SIZE]))
    )

    assert whole and not without
    assert truncated == (depth < SIZE)


def test_the_window_told_is_the_one_that_holds_the_word(heron_spotter):
    tokens = words(400).split()
    findings = (
        recipe(heron_spotter, device="cpu").build().find(batch([" ".join([*tokens[:200], "heron", *tokens[200:]])]))
    )

    window = findings.column("window")[0].as_py()

    assert window * STRIDE <= 200 < window * STRIDE + SIZE


@pytest.mark.parametrize("name", ["bert", "qwen2"])
def test_order_slices_and_batch_size_change_scores_by_rounding_at_most(checkpoints, name):
    stage = recipe(checkpoints[name], device="cpu").build()
    texts = [None, *DOCUMENTS, None, *DOCUMENTS[::-1]]

    whole = stage.find(batch(texts))
    again = stage.find(batch(texts))
    parts = pa.Table.from_batches(
        [stage.find(batch(texts[:7])), stage.find(batch(texts[7:8])), stage.find(batch(texts[8:]))]
    )
    small = recipe(checkpoints[name], device="cpu", batch_tokens=1).build().find(batch(texts))

    assert whole.equals(again)
    for other in (parts, small):
        assert other.column("tokens").to_pylist() == whole.column("tokens").to_pylist()
        assert np.allclose(np.array(other.column("scores").drop_null().to_pylist()), scores(whole), atol=5e-3)
    assert np.allclose(scores(whole)[: len(DOCUMENTS)], scores(whole)[len(DOCUMENTS) :][::-1], atol=5e-3)
    assert whole.column("scores").is_valid().to_pylist() == [text is not None for text in texts]


def test_every_token_of_a_document_of_100_000_is_read_in_bounded_batches(tmp_path, monkeypatch):
    sizes = {"size": 254, "stride": 192}
    folder = save(tmp_path / "wide", bert(256), labels=1, set_weights=spot_heron, windows=sizes)
    stage = recipe(folder, device="cpu").build()
    shapes = []
    forward = stage._model.logits
    monkeypatch.setattr(
        stage._model, "logits", lambda ids, there: shapes.append((ids.shape, there.sum())) or forward(ids, there)
    )
    text = words(100_000) + " heron"

    findings = stage.find(batch([text]))

    windows = int(Windows(**sizes).count([100_001])[0])
    assert findings.column("tokens").to_pylist() == [100_001]
    assert sum(rows for (rows, _), _ in shapes) == windows
    assert max(rows * width for (rows, width), _ in shapes) <= 4096
    assert scores(findings)[0, 0] > 0 and findings.column("window")[0].as_py() == windows - 1


def test_special_tokens_that_a_text_spells_out_are_words_like_others(checkpoints):
    stage = recipe(checkpoints["bert"], device="cpu").build()

    tokens, length = stage._tokenizer.tokens(["heron [SEP] river", "[PAD]"])

    assert not {2, 3} & set(tokens[: length[0]].tolist())
    assert 0 not in tokens


def test_texts_without_any_token_still_get_finite_scores(checkpoints):
    for name in ("bert", "qwen2"):
        assert np.isfinite(scores(recipe(checkpoints[name], device="cpu").build().find(batch([" ", "\u3000"])))).all()


def test_a_decoder_without_a_padding_token_goes_window_by_window(checkpoints, tmp_path):
    tokenizer, names, config, kind = qwen2()
    config.pad_token_id = None
    folder = save(tmp_path / "nopad", (tokenizer, names, config, kind))

    padded = recipe(checkpoints["qwen2"], device="cpu").build().find(batch(DOCUMENTS))
    alone = recipe(folder, device="cpu").build().find(batch(DOCUMENTS))

    assert np.isfinite(scores(alone)).all() and len(scores(alone)) == len(scores(padded))


def test_softmax_scores_are_log_odds_of_each_label(checkpoints, tmp_path):
    folder = save(tmp_path / "softmax", bert(), activation="softmax")
    logits = scores(recipe(checkpoints["bert"], device="cpu").build().find(batch([DOCUMENTS[1]])))[0]
    made = recipe(folder, device="cpu")

    findings = pa.Table.from_batches([made.build().find(batch([DOCUMENTS[1]]))])

    chances = made.reader(as_of=date(2026, 11, 21), thresholds={}).probabilities(findings)[0]
    assert chances.sum() == pytest.approx(1, abs=2e-3)
    assert chances == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=2e-3)


def test_a_checkpoint_that_was_never_trained_to_classify_is_refused(tmp_path):
    tokenizer, names, config, _ = bert()
    folder = save(tmp_path / "base", (tokenizer, names, config, transformers.BertForSequenceClassification))
    transformers.BertModel(config).save_pretrained(folder)

    with pytest.raises(UsageError, match="no weights for classifier"):
        recipe(folder, device="cpu").build()


def test_windows_must_leave_room_for_special_tokens(tmp_path):
    folder = save(tmp_path / "long", bert(), windows={"size": 32, "stride": 16})

    with pytest.raises(UsageError, match=r"windows of 32 tokens and 2 special ones.*size: 30"):
        recipe(folder, device="cpu").build()


def test_a_recipe_is_small_and_loads_no_torch(checkpoints):
    made = recipe(checkpoints["bert"], device="cuda")

    assert made.device == "gpu" and made.kind == "classifier" and len(made.digest) == 64
    assert len(pickle.dumps(made)) < 10_000 and pickle.loads(pickle.dumps(made)) == made
    code = (
        "import sys; from corpus_guard.classifiers import recipe; "
        f"recipe({str(checkpoints['bert'])!r}); recipe('ngram-screen').build(); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tokenizers', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_digest_names_precision_and_not_the_device(checkpoints):
    folder = checkpoints["bert"]
    plain = recipe(folder, device="cpu").digest

    assert recipe(folder, device="cuda", batch_tokens=9).digest == plain
    assert recipe(folder, device="cpu", precision="bfloat16").digest != plain


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_gpu_that_is_asked_for_and_not_there_is_a_sentence(checkpoints):
    with pytest.raises(UsageError, match="sees no CUDA device"):
        recipe(checkpoints["bert"], device="cuda").build()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("name", ["bert", "roberta", "qwen2"])
def test_a_gpu_gives_the_scores_of_a_cpu(checkpoints, name):
    on_cpu = recipe(checkpoints[name], device="cpu").build().find(batch(DOCUMENTS))
    on_gpu = recipe(checkpoints[name], device="cuda").build().find(batch(DOCUMENTS))

    assert np.allclose(scores(on_cpu), scores(on_gpu), atol=1e-2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_checkpoint_filters_a_corpus_beside_the_screen(tmp_path, heron_spotter, workers):
    harmless = " ".join([word for word in WORDS if word != "heron"] * 4)
    rows = [{"id": f"d{i}", "source": "marsh", "text": harmless + " heron" * (i < 3)} for i in range(80)]
    corpus = write_shards(tmp_path / "data", rows, shards=2)
    models = [{"model": "ngram-screen"}, {"model": str(heron_spotter), "device": "cpu"}]

    _, run = run_job(config(tmp_path, corpus, classifiers=models, executor={"workers": workers}))

    removed = [pq.read_table(path) for path in Path(run.folder.restricted.path, "removed").rglob("*.parquet")]
    assert sorted(id for table in removed for id in table["id"].to_pylist()) == ["d0", "d1", "d2"]
    evidence = [" ".join(one) for table in removed for one in table["evidence"].to_pylist()]
    assert all(heron_spotter.name in one for one in evidence)
