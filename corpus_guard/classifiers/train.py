"""
Trains an n-gram screen and says how good it is; the shipped one was made by ``train_ngram`` and nothing else.

Masked logistic regression with AdaGrad over hashed character n-grams. A row knows one risk, or that
it is benign by the standard of its own data set; of all other risks it speaks at a quarter of the
weight. Every measure is of documents that no weight was trained on, and where there are rows of
a second source, of a source that no weight was trained on: a score within a source says little.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix

from corpus_guard.classifiers.batches import document_groups
from corpus_guard.classifiers.calibrate import fit_platt, probability
from corpus_guard.classifiers.card import FalsePositives, Measured, Source, write_card
from corpus_guard.classifiers.modelfile import DESCRIPTION, NGRAM, Calibration, Evidence
from corpus_guard.classifiers.ngram import Folding, NgramScorer, NgramWeights, hashes
from corpus_guard.classifiers.pooling import Pooling
from corpus_guard.classifiers.training_rows import Rows, manifest, read_rows, write_manifest
from corpus_guard.errors import UsageError
from corpus_guard.taxonomy import CODES
from corpus_guard.text.windows import Windows

ORDERS = (1, 2, 3, 4)
WINDOWS = Windows(64, 32)
"""Half a tweet: of 64, 128 and 256 characters the smallest found most risky rows that stand in longer documents."""
MIN_POSITIVES = 25
"""A risk with fewer rows to train on gets no label: ``no data``."""

PRIOR = 0.05
"""The share of risky documents that probabilities are calibrated for: the most a kept source may have (3.3 a)."""

UNKNOWN = 0.25  # weight of a row for the risks that its data set does not annotate
BENIGN_SHARE = 1 / 200  # of a benign source's documents, all risks together, may be unqualified
LABELLED_SHARE = 1 / 50  # the same of rows that their data set calls benign: they speak of the same things
SUPPORT_SHARE = 1 / 20  # of a benign source's documents may support a keyword of one risk
LONGEST_ROW = 512  # characters of a row that are trained on
PIECE = 4_000  # characters of a piece of a book
BOOK = 5 * PIECE
MIN_ELSEWHERE = 30  # positives of a source for it to be measured on
MIN_TAUGHT = 100  # positives of the same language in other sources, without which nothing was learnt to be measured
MIN_TEST = 10  # positives without which a risk is not switched on
CHANCE, GOOD = 0.15, 0.4  # of the way from chance to perfect that average precision has come


@dataclass(frozen=True, slots=True)
class Untrusted:
    """
    A risk whose measures within these *sources* are known to be worth nothing elsewhere, and why.

    Holds only for a screen whose rows of the risk all come from them.
    """

    risk: str
    sources: frozenset[str]
    reason: str


UNTRUSTED = (
    Untrusted(
        "A.4.a",
        frozenset({"whitzard-ai/jade-db"}),
        "rows are questions to a chatbot; at chance level on sources outside these files",
    ),
    Untrusted(
        "A.4.d",
        frozenset({"ipavlopoulos/toxic_spans", "surge-ai/toxicity"}),
        "rows are insults, which stand in for honour; at chance level on sources outside these files",
    ),
    Untrusted(
        "A.4.f",
        frozenset({"whitzard-ai/jade-db"}),
        "rows are questions to a chatbot; at chance level on sources outside these files",
    ),
)

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Say = Callable[[str], None]


def train_ngram(
    rows: Sequence[str | Path],
    out: str | Path,
    seed: int = 0,
    *,
    name: str = "ngram-screen",
    buckets: int = 1 << 18,
    epochs: int = 6,
    untrusted: Iterable[Untrusted] = UNTRUSTED,
    licence: str = "Apache-2.0",
    say: Say = lambda line: None,
) -> Path:
    """
    Train a screen on the Parquet files *rows* and write its folder *out*: weights, description, card, manifest.

    The files are described in ``training_rows.read_rows``. The same files and seed give the same
    folder. *untrusted*: risks to be left off whatever their measures.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: is not empty; name a new folder, so that no model in use changes.")
    data = read_rows(rows, seed)
    languages = _languages(data)
    data = _of_languages(data, languages)
    labels = _labels(data)
    say(f"{len(data)} rows, {int((data.part == 'train').sum())} to train on, labels {', '.join(labels)}")
    trainer = _Trainer(data, labels, seed, buckets, epochs)
    weights = trainer.fit(data.part == "train")
    say("weights trained")
    tune = _Scored.of(weights, _examples(data, "tune", labels, seed))
    test = _Scored.of(weights, _examples(data, "test", labels, seed))
    say("held-out documents scored")
    elsewhere = _elsewhere(data, trainer, weights, say)
    decided, measured = _decide(data, labels, tune, test, elsewhere, _doubts(data, untrusted))
    out.mkdir(parents=True, exist_ok=True)
    _write_weights(out, weights, labels)
    _write_description(out, name, licence, languages, decided, measured)
    content = manifest(rows, data, seed)
    write_manifest(out / "training_data.json", content)
    write_card(out / "CARD.md", name, measured, _false_positives(decided, test), content)
    say(f"written to {out}")
    return out


def _labels(data: Rows) -> tuple[str, ...]:
    trained = data.risk[(data.part == "train") & data.positive]
    labels = tuple(code for code in CODES if int((trained == code).sum()) >= MIN_POSITIVES)
    if not labels:
        raise UsageError(f"no risk has {MIN_POSITIVES} rows to train on; give more rows whose is_risk is true.")
    return labels


def _doubts(data: Rows, untrusted: Iterable[Untrusted]) -> dict[str, str]:
    """Reasons for leaving risks off, by risk."""
    found = {}
    for doubt in untrusted:
        sources = {*data.source[(data.part == "train") & (data.risk == doubt.risk)]}
        if sources <= doubt.sources:
            found[doubt.risk] = doubt.reason
    return found


def _languages(data: Rows) -> list[str]:
    """Languages of at least one in twenty of the risky rows that are trained on."""
    trained = Counter(language for language in data.language[(data.part == "train") & data.positive] if language)
    return sorted(language for language, n in trained.items() if n * 20 >= trained.total())


def _of_languages(data: Rows, languages: list[str]) -> Rows:
    """
    Leave out risky rows of all other languages.

    A few hundred teach little but to call one language in twenty risky: 6 % of benign French posts, when they were in.
    """
    foreign = data.positive & (data.language != "") & ~np.isin(data.language.astype(str), languages)
    part = data.part.copy()
    part[foreign & (part != "outside")] = "none"
    return replace(data, part=part)


def folds() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """
    Which characters a new screen reads as which: case, width and compatibility forms, white space, digits as ``0``.

    Made once, when a model is trained, and kept with it: another Python has another Unicode.
    """
    source, target = [], []
    for code in range(0x110000):
        if (to := _fold(code)) != code:
            source.append(code)
            target.append(to)
    return np.array(source, np.uint32), np.array(target, np.uint32)


def _fold(code: int) -> int:
    if 0xD800 <= code < 0xE000:
        return code
    character = chr(code)
    category = unicodedata.category(character)
    if category == "Cf" or 0xFE00 <= code <= 0xFE0F:  # zero width, direction, variation
        return 0xFFFFFFFF
    if category in ("Zs", "Zl", "Zp", "Cc"):
        return 0x20
    for change in (lambda c: unicodedata.normalize("NFKC", c), str.lower):
        changed = change(character)
        character = changed if len(changed) == 1 else character
    return ord("0") if character.isdecimal() else ord(character)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one step: counts of runs over *columns* only, each row divided by the root of its number of runs."""

    columns: Ints
    runs: csr_matrix
    target: Floats
    weight: Floats


class _Trainer:
    def __init__(self, data: Rows, labels: tuple[str, ...], seed: int, buckets: int, epochs: int) -> None:
        self._data, self.labels, self._seed, self._buckets, self._epochs = data, labels, seed, buckets, epochs
        self.fold_from, self.fold_to = folds()
        self._folding = Folding.of(self.fold_from, self.fold_to)
        self._annotated: dict[str, set[str]] = {}
        for source, risk in zip(data.source[data.positive], data.risk[data.positive], strict=True):
            self._annotated.setdefault(source, set()).add(risk)

    def fit(self, train: Bools) -> NgramWeights:
        """Weights from the rows in *train*."""
        batches = self._batches(train)
        labels = len(self.labels)
        positive: Doubles = np.sum([batch.target.sum(axis=0, dtype=np.float64) for batch in batches], axis=0)
        share = np.clip(positive / sum(len(batch.target) for batch in batches), 1e-6, 0.5)
        weight = np.zeros((self._buckets, labels), np.float32)
        bias = np.log(share / (1 - share)).astype(np.float32)
        seen, seen_bias = np.full_like(weight, 1e-3), np.full_like(bias, 1e-3)
        emphasis = np.minimum(np.sqrt((1 - share) / share), 10).astype(np.float32)
        shuffle = np.random.default_rng(self._seed)
        rate = np.float32(0.15)
        for _ in range(self._epochs):
            for i in shuffle.permutation(len(batches)):
                batch = batches[i]
                mine = weight[batch.columns]
                chance = 1 / (1 + np.exp(-np.clip(batch.runs @ mine + bias, -30, 30)))
                # Targets stop short of one: some labels are wrong.
                error = (
                    (chance - batch.target * np.float32(0.98)) * batch.weight * np.where(batch.target > 0, emphasis, 1)
                )
                slope = (batch.runs.T @ error).astype(np.float32)
                total = seen[batch.columns] + slope * slope
                seen[batch.columns] = total
                weight[batch.columns] = mine - rate * slope / np.sqrt(total)
                slope_bias = error.sum(axis=0, dtype=np.float64).astype(np.float32)
                seen_bias += slope_bias * slope_bias
                bias -= rate * slope_bias / np.sqrt(seen_bias)
        return self._stored(weight, bias)

    def _stored(self, weight: Floats, bias: Floats) -> NgramWeights:
        # One weight in ten thousand is cut: eight bits for the others lose no average precision (measured).
        scale = np.maximum(np.quantile(np.abs(weight), 0.9999, axis=0) / 127, 1e-9).astype(np.float32)
        stored = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        return NgramWeights(stored, scale, bias, ORDERS, self.fold_from, self.fold_to)

    def _batches(self, train: Bools, size: int = 1024) -> list[_Batch]:
        data, labels = self._data, self.labels
        rng = np.random.default_rng(self._seed)
        texts, at = self._training_texts(train, rng)
        target = np.zeros((len(texts), len(labels)), np.float32)
        weight = np.full((len(texts), len(labels)), UNKNOWN, np.float32)
        for j, label in enumerate(labels):
            own = data.risk[at] == label
            target[own, j] = 1
            weight[own, j] = 1
            annotating = np.array([label in self._annotated.get(source, ()) for source in data.source[at]], np.bool_)
            benign = data.risk[at] == ""
            weight[benign & (annotating | ~data.labelled[at]), j] = 1
        order = rng.permutation(len(texts))
        batches = []
        for i in range(0, len(order), size):
            chosen = order[i : i + size]
            columns, runs = self._runs([texts[k] for k in chosen])
            batches.append(_Batch(columns, runs, target[chosen], weight[chosen]))
        return batches

    def _training_texts(self, train: Bools, rng: np.random.Generator) -> tuple[list[str], Ints]:
        """
        Texts, and the row of each: labelled rows from their beginning, of others passages of 40 to 256 characters,
        at most 30 of a document and 4,000 of a source.
        """
        texts, at, taken = [], [], dict[str, int]()
        for i in self._data.where(train):
            text = self._data.text[int(i)].as_py()
            if self._data.labelled[i]:
                texts.append(text[:LONGEST_ROW])
                at.append(i)
                continue
            source = self._data.source[i]
            for _ in range(min(max(len(text) // 200, 1), 30, 4_000 - taken.get(source, 0))):
                length = int(rng.integers(40, 257))
                start = int(rng.integers(0, max(len(text) - length, 0) + 1))
                texts.append(text[start : start + length])
                at.append(i)
                taken[source] = taken.get(source, 0) + 1
        return texts, np.array(at, np.int64)

    def _runs(self, texts: list[str]) -> tuple[Ints, csr_matrix]:
        codes, start, length = self._folding.fold(pa.array(texts, pa.large_string()))
        end = np.cumsum(length)
        place = np.arange(end[-1]) + np.repeat(start - (end - length), length)
        padded = np.concatenate([codes, np.zeros(3, np.uint32)])
        found = np.stack([bucket[place] for bucket in hashes(padded, ORDERS, self._buckets, len(codes))], axis=1)
        columns, inverse = np.unique(found, return_inverse=True)
        rows = np.concatenate([[0], end]) * len(ORDERS)
        value = np.repeat(1 / np.sqrt(np.maximum(length, 1) * len(ORDERS)), length * len(ORDERS)).astype(np.float32)
        runs = csr_matrix((value, inverse.reshape(-1).astype(np.int32), rows), shape=(len(texts), len(columns)))
        runs.sum_duplicates()
        return columns.astype(np.int64), runs


@dataclass(frozen=True, slots=True, repr=False)
class _Examples:
    """
    Documents to measure on. ``group`` is the source, with ``(pieces)`` for pieces of its books. ``hidden``: a positive
    row at a random place in a benign document.
    """

    text: pa.LargeStringArray
    risk: npt.NDArray[np.object_]
    group: npt.NDArray[np.object_]
    labelled: Bools
    hidden: Bools
    synthetic: Bools


def _examples(data: Rows, part: str, labels: tuple[str, ...], seed: int) -> _Examples:
    at = data.where(
        np.asarray((data.part == part) & ((data.risk == "") | np.isin(data.risk.astype(str), labels)), np.bool_)
    )
    texts = data.texts(at).to_pylist()
    columns: dict[str, list[Any]] = {
        "text": texts, "risk": data.risk[at].tolist(), "group": data.source[at].tolist(),
        "labelled": data.labelled[at].tolist(), "hidden": [False] * len(at), "synthetic": data.synthetic[at].tolist(),
    }  # fmt: skip
    rng = np.random.default_rng([seed, len(part)])

    def add(text: str, risk: str, group: str, hidden: bool, synthetic: bool) -> None:
        for key, value in zip(columns, (text, risk, group, hidden, hidden, synthetic), strict=True):
            columns[key].append(value)

    assumed = [k for k, i in enumerate(at) if not data.labelled[i]]
    for k in assumed:
        for start in rng.permutation(range(0, len(texts[k]), PIECE))[:20] if len(texts[k]) > BOOK else ():
            add(texts[k][start : start + PIECE], "", f"{columns['group'][k]} (pieces)", False, False)
    hosts = [k for k in assumed if len(texts[k]) >= 500]
    positives = [k for k, i in enumerate(at) if data.risk[i]]
    for label in labels if hosts else ():
        mine = [k for k in positives if columns["risk"][k] == label]
        for k in rng.permutation(mine)[:150].tolist():
            host = texts[hosts[int(rng.integers(len(hosts)))]]
            length = int(500 * 2 ** rng.uniform(0, 4))
            start = int(rng.integers(0, max(len(host) - length, 0) + 1))
            host = host[start : start + length]
            cut = int(rng.integers(0, len(host) + 1))
            add(f"{host[:cut]}\n{texts[k]}\n{host[cut:]}", label, "hidden", True, columns["synthetic"][k])
    return _Examples(
        pa.array(columns["text"], pa.large_string()),
        *(np.array(columns[key], object) for key in ("risk", "group")),
        *(np.array(columns[key], np.bool_) for key in ("labelled", "hidden", "synthetic")),
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    examples: _Examples
    score: Floats
    windows: Ints

    @classmethod
    def of(cls, weights: NgramWeights, examples: _Examples) -> "_Scored":
        return cls(examples, *score_documents(weights, examples.text))


def score_documents(weights: NgramWeights, text: pa.LargeStringArray) -> tuple[Floats, Ints]:
    """Pooled scores ``[documents, labels]``, rounded as they are stored, and windows per document."""
    scorer = NgramScorer(weights, WINDOWS)
    scores, windows = [np.zeros((0, weights.labels), np.float32)], [np.zeros(0, np.int64)]
    for first, last in document_groups(text, 4 << 20):
        odds, count, _ = scorer.scores(text.slice(first, last - first))
        scores.append(Pooling("max").pool(odds, count)[0].astype(np.float16).astype(np.float32))
        windows.append(count)
    return np.concatenate(scores), np.concatenate(windows)


def average_precision(score: npt.NDArray[Any], positive: Bools) -> float:
    """Mean precision at the positives, from the highest score down; ties count as they would on average, grouped."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # a threshold takes all of equal score
    gained = np.diff(np.append(0, hits[last]))
    return float((gained * hits[last] / (last + 1)).sum() / hits[-1]) if hits[-1] else 0.0


def _elsewhere(data: Rows, trainer: _Trainer, weights: NgramWeights, say: Say) -> dict[str, list[Source]]:
    """
    For each label, sources that no weight was trained on and how well its positives are ranked there.

    Only in languages in which other sources have positives to train on: no spelling of one language tells of another.
    """
    labels = trainer.labels
    found: dict[str, list[Source]] = {label: [] for label in labels}
    train = np.asarray(data.part == "train", np.bool_)
    for source in sorted({*data.source[data.labelled & data.positive]}):
        mine = np.asarray((data.source == source) & data.labelled, np.bool_)
        cells = [
            (label, language)
            for label in labels
            for language in sorted({*data.language[mine & (data.risk == label)]})
            if _count(data, mine, label, language) >= MIN_ELSEWHERE
            and _count(data, train & ~mine, label, language) >= MIN_TAUGHT
        ]
        if not cells:
            continue
        taught = weights
        if (train & mine).any():
            taught = trainer.fit(train & ~mine)
            say(f"measured without {source}")
        for label, language in cells:
            here = np.asarray(mine & (data.language == language), np.bool_)
            found[label].append(_ranked(data, labels.index(label), label, f"{source} {language}".strip(), here, taught))
    return found


def _count(data: Rows, mask: Bools, label: str, language: str) -> int:
    return int((mask & (data.risk == label) & (data.language == language)).sum())


def _ranked(data: Rows, j: int, label: str, name: str, mine: Bools, weights: NgramWeights) -> Source:
    """Rank the positives of one source among its own benign rows, or among those of other sources if it has none."""
    positive = np.asarray(mine & (data.risk == label), np.bool_)
    own = mine & ~data.positive
    enough = bool(own.sum() >= MIN_ELSEWHERE)
    calm = (data.part == "test") & data.labelled & ~data.positive
    at = data.where(np.asarray(positive | ((mine if enough else calm) & (data.risk != label)), np.bool_))
    score, _ = score_documents(weights, data.texts(at))
    ap = average_precision(score[:, j], positive[at])
    return Source(name, int(positive.sum()), len(at), ap, enough, bool(data.synthetic[positive].all()))


@dataclass(frozen=True, slots=True)
class _Decided:
    """What a label decides: its calibration and thresholds, or none where it is off."""

    calibration: Calibration
    upper: float | None
    lower: float | None


def _decide(
    data: Rows,
    labels: tuple[str, ...],
    tune: _Scored,
    test: _Scored,
    elsewhere: dict[str, list[Source]],
    untrusted: Mapping[str, str],
) -> tuple[dict[str, _Decided], dict[str, Measured]]:
    calibrations = {label: _calibrate(j, label, tune) for j, label in enumerate(labels)}
    fitted = {label: calibration for label, calibration in calibrations.items() if calibration is not None}
    plain = {label: _measure(data, label, j, test, elsewhere[label]) for j, label in enumerate(labels)}
    reasons = {label: _reason(label, plain[label], label in fitted, untrusted) for label in labels}
    on = [label for label in labels if reasons[label] is None]
    while True:
        chances = {label: _chances(fitted[label], labels.index(label), tune) for label in on}
        uppers = _thresholds(chances, tune)
        test_chances = {label: _chances(fitted[label], labels.index(label), test) for label in on}
        recalls = {label: _recall(test_chances[label] >= uppers[label], label, test) for label in on}
        blind = [label for label in on if recalls[label][0] < 0.01]
        if not blind:
            break
        reasons |= dict.fromkeys(blind, "finds less than 1 in 100 at a threshold that benign documents stay under")
        on = [label for label in on if label not in blind]
    decided, measured = {}, {}
    for label in labels:
        calibration = calibrations[label] or Calibration("platt", 1e-6, -20.0)
        if label in on:
            lower = min(_support(chances[label], tune), uppers[label])
            decided[label] = _Decided(calibration, uppers[label], lower)
            fpr = _benign_rate(test_chances[label] >= uppers[label], test)
            evidence = replace(plain[label].evidence, recall=_round(recalls[label][0]), fpr=_round(fpr))
            measured[label] = replace(
                plain[label], evidence=evidence, upper=uppers[label], hidden_recall=recalls[label][1]
            )
        else:
            decided[label] = _Decided(calibration, None, None)
            evidence = replace(plain[label].evidence, status="weak", note=f"off: {reasons[label]}")
            measured[label] = replace(plain[label], evidence=evidence)
    for code in CODES:
        if code not in labels:
            n = int(((data.part == "train") & (data.risk == code)).sum())
            note = f"off: {n} rows to train on"
            measured[code] = Measured(Evidence("no data", positives=0, note=note))
    return decided, {code: measured[code] for code in CODES}


def _calibrate(j: int, label: str, scored: _Scored) -> Calibration | None:
    """Positives, alone and hidden, weigh as much as the prior; rows called benign and benign sources share the rest."""
    examples = scored.examples
    positive = np.asarray(examples.risk == label, np.bool_)
    benign = np.asarray(examples.risk == "", np.bool_)
    used = positive | benign
    weight = np.zeros(len(used))
    for mask in (positive & ~examples.hidden, positive & examples.hidden):
        weight[mask] += PRIOR / 2 / max(mask.sum(), 1)
    called = benign & examples.labelled
    weight[called] = (1 - PRIOR) / 2 / max(called.sum(), 1)
    groups = sorted({*examples.group[benign & ~examples.labelled]})
    for group in groups:
        mask = benign & ~examples.labelled & (examples.group == group)
        weight[mask] = (1 - PRIOR) / 2 / len(groups) / mask.sum()
    if not positive.any():
        return None
    return fit_platt(scored.score[used, j].astype(np.float64), scored.windows[used], positive[used], weight[used])


def _chances(calibration: Calibration, j: int, scored: _Scored) -> Floats:
    return probability(calibration, scored.score[:, j].astype(np.float64), scored.windows, True).astype(np.float32)


def _groups(scored: _Scored) -> list[tuple[Bools, float]]:
    """Benign documents of each source, and the share of them that may be unqualified."""
    examples = scored.examples
    benign = np.asarray(examples.risk == "", np.bool_)
    found = []
    for group in sorted({*examples.group[benign]}):
        mask = np.asarray(benign & (examples.group == group), np.bool_)
        found.append((mask, LABELLED_SHARE if examples.labelled[mask].any() else BENIGN_SHARE))
    return found


def _thresholds(chances: dict[str, Floats], tune: _Scored) -> dict[str, float]:
    """
    Thresholds under which every benign source stays within its share, all risks together.

    Each risk starts with the whole share; where a source is over it, the risk that errs most there gives way.
    """
    groups = _groups(tune)
    factor = dict.fromkeys(chances, 1.0)
    uppers: dict[str, float] = {}
    for _ in range(1_000):
        uppers = {label: _upper(chance, groups, factor[label]) for label, chance in chances.items()}
        over = {label: chance >= np.float32(uppers[label]) for label, chance in chances.items()}
        together = np.logical_or.reduce([*over.values(), np.zeros(len(tune.score), np.bool_)])
        crossed = [mask for mask, share in groups if together[mask].sum() > share * mask.sum()]
        if not crossed:
            break
        for mask in crossed:
            errors = {label: int(found[mask].sum()) for label, found in over.items()}
            factor[max(errors, key=errors.__getitem__)] *= 0.9
    return uppers


def _upper(chance: Floats, groups: list[tuple[Bools, float]], factor: float) -> float:
    upper = 0.5
    for mask, share in groups:
        allowed = int(share * factor * mask.sum())
        highest = np.sort(chance[mask])[::-1]
        if allowed < len(highest):
            upper = max(upper, float(highest[allowed]))
    return min(float(np.ceil(upper * 1e4 + 1e-3) / 1e4), 1.0)


def _support(chance: Floats, tune: _Scored) -> float:
    groups = [(mask, SUPPORT_SHARE) for mask, _ in _groups(tune)]
    lower = max((float(np.sort(chance[mask])[::-1][int(share * mask.sum())]) for mask, share in groups), default=1.0)
    return min(float(np.ceil(lower * 1e4 + 1e-3) / 1e4), 1.0)


def _recall(over: Bools, label: str, test: _Scored) -> tuple[float, float | None]:
    """The share of positives found alone, and hidden in a benign document of 500 to 8,000 characters."""
    mine = np.asarray(test.examples.risk == label, np.bool_)
    alone, hidden = mine & ~test.examples.hidden, mine & test.examples.hidden
    return float(over[alone].mean()) if alone.any() else 0.0, float(over[hidden].mean()) if hidden.any() else None


def _benign_rate(over: Bools, test: _Scored) -> float:
    """The mean over benign sources of the share that is found."""
    return float(np.mean([over[mask].mean() for mask, _ in _groups(test)]))


def _measure(data: Rows, label: str, j: int, test: _Scored, sources: list[Source]) -> Measured:
    examples = test.examples
    plain = np.asarray(~examples.hidden & (examples.labelled | (examples.risk != "")), np.bool_)
    positive = np.asarray(examples.risk == label, np.bool_)[plain]
    trained = np.asarray((data.part == "train") & (data.risk == label), np.bool_)
    synthetic = int((trained & data.synthetic).sum())
    judged = [source for source in sources if source.own_negatives]
    n = sum(source.positives for source in judged)
    mean = sum(source.ap * source.positives for source in judged) / n if n else None
    natural = int(trained.sum()) - synthetic
    usable = natural >= 100 and n >= 30 and mean is not None and mean >= 0.6 and _gain(judged) >= GOOD
    evidence = Evidence(
        "usable" if usable else "weak",
        positives=int(positive.sum()),
        trained_natural=natural,
        trained_synthetic=synthetic,
        ap=_round(average_precision(test.score[plain, j], positive)),
        ap_other_sources=None if mean is None else _round(mean),
        positives_other_sources=n,
        note=None if usable else "not measured on other sources" if mean is None else None,
    )
    return Measured(evidence, share=float(positive.mean()), sources=tuple(sources))


def _reason(label: str, measured: Measured, calibrated: bool, untrusted: Mapping[str, str]) -> str | None:
    """Why *label* stays off, if it does."""
    if label in untrusted:
        return untrusted[label]
    if (tested := measured.evidence.positives or 0) < MIN_TEST:
        return f"{tested} positives to test on"
    if not calibrated:
        return "scores do not rise with the label"
    judged = [source for source in measured.sources if source.own_negatives]
    if judged and _gain(judged) < CHANCE:
        return "near chance level on other sources"
    return None


def _gain(sources: Sequence[Source]) -> float:
    """How much of the way from chance to perfect the average precision has come on *sources*, weighted by positives."""
    n = sum(source.positives for source in sources)
    if not n:
        return 0.0
    ap = sum(source.ap * source.positives for source in sources) / n
    chance = sum(source.positives / source.documents * source.positives for source in sources) / n
    return (ap - chance) / (1 - chance) if chance < 1 else 0.0


def _false_positives(decided: dict[str, _Decided], test: _Scored) -> list[FalsePositives]:
    """What is left of the test part when all risks are decided together."""
    over = np.zeros(len(test.score), np.bool_)
    for j, label in enumerate(decided.values()):
        if label.upper is not None:
            over |= _chances(label.calibration, j, test) >= np.float32(label.upper)
    lengths = pc.utf8_length(test.examples.text).to_numpy()
    return [
        FalsePositives(
            str(test.examples.group[mask][0]), int(mask.sum()), int(over[mask].sum()), int(np.median(lengths[mask]))
        )
        for mask, _ in _groups(test)
    ]


def _round(number: float) -> float:
    return round(float(number), 4)


def _write_weights(out: Path, weights: NgramWeights, labels: tuple[str, ...]) -> None:
    config = {
        "model_type": NGRAM,
        "orders": list(weights.orders),
        "buckets": len(weights.weight),
        "id2label": {str(i): label for i, label in enumerate(labels)},
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    tensors = {name: getattr(weights, name) for name in ("weight", "scale", "bias", "fold_from", "fold_to")}
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, out / "model.safetensors")


def _write_description(
    out: Path,
    name: str,
    licence: str,
    languages: list[str],
    decided: dict[str, _Decided],
    measured: dict[str, Measured],
) -> None:
    described = {}
    for label, made in decided.items():
        calibration = made.calibration
        platt = {"a": calibration.a, "b": calibration.b, "length": calibration.length}
        described[label] = {
            "risks": [label],
            "relation": "=",
            "threshold": {"upper": made.upper, "lower": made.lower},
            "calibration": {"platt": platt},
        }
    fields = Evidence.__dataclass_fields__
    evidence = {
        code: {key: getattr(m.evidence, key) for key in fields if getattr(m.evidence, key) is not None}
        for code, m in measured.items()
    }
    content = {
        "name": name,
        "licence": licence,
        "languages": languages,
        "activation": "sigmoid",
        "windows": {"size": WINDOWS.size, "stride": WINDOWS.stride},
        "pooling": "max",
        "prior": PRIOR,
        "labels": described,
        "evaluation": evidence,
    }
    head = (
        "# Written by the training command; CARD.md explains the numbers. A screen: it knows spellings, no meaning.\n"
    )
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    (out / DESCRIPTION).write_text(head + text, encoding="utf-8")
