"""
How fast the whole keyword stage is, as a ratio to pyahocorasick's ``iter`` over ``str``, in one run.

Makes its own text and library (words by frequency, entries that share beginnings with the text, some planted), so it
needs no data. The stage is timed from Arrow column to findings: normalising, scanning, mapping back;
the baseline only scans, over strings that are already there. CPU time of this process, best of three.
The library is three parts Chinese, two parts English, as real ones are mixed: to pyahocorasick over ``str`` that
matters, since it searches the thousands of first characters one by one. Run ``python -m benchmarks.keyword_stage``.
"""

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable
from importlib import metadata

import ahocorasick
import pyarrow as pa

from corpus_guard.keywords.engine import open_engine
from corpus_guard.keywords.stage import KeywordStage

LANGUAGES = ("zh", "en")


def vocabulary(language: str, rng: random.Random) -> list[str]:
    """20,000 words, the more frequent ones first."""
    if language == "zh":
        characters = [chr(0x4E00 + i) for i in rng.sample(range(6000), 3500)]
        weights = [1 / (i + 5) for i in range(len(characters))]
        made = {"".join(rng.choices(characters, weights, k=rng.choice((1, 2, 2, 2, 3)))) for _ in range(40_000)}
    else:
        letters, weights = "etaoinshrdlucmfwypvbgkjqxz", [12, 9, 8, 8, 7, 7, 6, 6, 6, 4, 4, 3, 3] + [2] * 7 + [1] * 6
        made = {"".join(rng.choices(letters, weights, k=rng.randint(2, 9))) for _ in range(40_000)}
    words = sorted(made)
    rng.shuffle(words)
    return words[:20_000]


def phrases(words: list[str], language: str, count: int, rng: random.Random) -> list[str]:
    """*count* entries of one to four words of the vocabulary, rare in running text."""
    joint = "" if language == "zh" else " "
    made: set[str] = set()
    while len(made) < count:
        text = joint.join(rng.choices(words, k=rng.randint(2, 3)))
        if 3 <= len(text) <= 30:
            made.add(text)
    return sorted(made)


def texts(words: list[str], entries: list[str], language: str, hits: float, size: int, rng: random.Random) -> list[str]:
    """About *size* bytes in documents of 1-3 KB; a share of *hits* of them has one to three entries planted."""
    joint, stop = ("", "，") if language == "zh" else (" ", ". ")
    weights = [1 / (i + 10) for i in range(len(words))]
    made, total = [], 0
    while total < size:
        chosen = rng.choices(words, weights, k=rng.randint(150, 450))
        for at in range(0, len(chosen), 12):
            chosen[at] += stop
        if rng.random() < hits:
            for _ in range(rng.randint(1, 3)):
                chosen.insert(rng.randrange(len(chosen)), rng.choice(entries))
        made.append(joint.join(chosen).capitalize())
        total += len(made[-1].encode())
    return made


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds, best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def measure(language: str, count: int, hits: float, size: int, engine: str) -> dict[str, object]:
    rng = random.Random(count)
    words = {of: vocabulary(of, rng) for of in LANGUAGES}
    library = {of: phrases(words[of], of, count * share // 5, rng) for of, share in (("zh", 3), ("en", 2))}
    entries = library["zh"] + library["en"]
    documents = texts(words[language], library[language], language, hits, size, rng)
    nbytes = sum(len(text.encode()) for text in documents)
    batch = pa.record_batch({"text": pa.array(documents, pa.large_string())})
    opened = open_engine(engine, [text.encode() for text in entries])
    stage = KeywordStage(opened)
    automaton = ahocorasick.Automaton()
    for i, text in enumerate(entries):
        automaton.add_word(text, i)
    automaton.make_automaton()

    whole = seconds(lambda: stage.find(batch))
    baseline = seconds(lambda: [list(automaton.iter(text)) for text in documents])
    return {
        "language": language,
        "entries": count,
        "documents with entries": hits,
        "engine": opened.name,
        "stage MB/s": round(nbytes / whole / 1e6, 1),
        "pyahocorasick str MB/s": round(nbytes / baseline / 1e6, 1),
        "ratio": round(baseline / whole, 1),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=float, default=4.0)
    arguments.add_argument("--entries", type=int, nargs="+", default=[1_000, 10_000])
    arguments.add_argument("--hits", type=float, nargs="+", default=[0.01, 0.1])
    arguments.add_argument("--engines", nargs="+", default=["auto", "pyahocorasick"])
    arguments.add_argument("--json", help="also write the results, with machine and date, to this file")
    given = arguments.parse_args()
    rows = []
    for engine in given.engines:
        for count in given.entries:
            for language in LANGUAGES:
                for hits in given.hits:
                    rows.append(measure(language, count, hits, int(given.megabytes * 1e6), engine))
                    print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if given.json:
        versions = {name: metadata.version(name) for name in ("pyahocorasick", "hyperscan", "numpy", "pyarrow")}
        about = {"date": time.strftime("%Y-%m-%d"), "machine": platform.machine(), "cores": os.cpu_count()}
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(
                {**about, "python": platform.python_version(), "versions": versions, "results": rows}, file, indent=1
            )
            file.write("\n")


if __name__ == "__main__":
    main()
