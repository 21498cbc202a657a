"""
Transformer checkpoints: any local sequence classification model, over every token of every document.

Long documents are cut into windows of tokens, never truncated. Windows of a slice are sorted into
batches of equal padded length under a budget of tokens. The padded length of a window depends on
the window alone and batches on the slice alone, so the same slice gives the same bits; documents
sliced otherwise can differ by the rounding of matrix products. The only file that knows torch,
and only when a stage is built.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus_guard.classifiers.batches import document_groups, pooled_batch
from corpus_guard.classifiers.calibrate import ScoreReader
from corpus_guard.classifiers.modelfile import Activation, ModelFile
from corpus_guard.errors import UsageError
from corpus_guard.findings import classifier_schema
from corpus_guard.text.windows import Windows

CODE_VERSION = "1"
"""Stands in digests: raised when the same checkpoint would give other scores."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.int32]

CPU_TOKENS = 4_096  # measured: on a CPU larger batches only leave the cache
CUDA_TOKENS = 65_536
_GROUP_BYTES = 4 << 20  # documents tokenised and sorted together
_PIECE = 250_000  # characters tokenised at once: a tokenizer needs some hundred bytes for each of its tokens
_ROUND = 16  # lengths are padded to a multiple of so many tokens


@dataclass(frozen=True, slots=True)
class TransformerRecipe:
    """How workers get the transformer of *model*. ``place``: where torch is to put it."""

    model: ModelFile
    name: str
    digest: str
    device: Literal["cpu", "gpu"]
    place: Device = "auto"
    batch_tokens: int | None = None
    precision: Precision = "float32"
    kind: Literal["classifier"] = "classifier"

    @property
    def judging_digest(self) -> str:
        return self.model.judging_digest

    def build(self) -> "TransformerStage":
        return TransformerStage(self)

    def reader(self, *, as_of: date, thresholds: dict[str, tuple[float, float]]) -> ScoreReader:
        return ScoreReader(self.model, thresholds)


def transformer_recipe(
    model: ModelFile, device: Device, batch_tokens: int | None, precision: Precision
) -> TransformerRecipe:
    """The digest names the precision and neither device nor batch size: those change scores by rounding alone."""
    if batch_tokens is not None and batch_tokens < 1:
        raise UsageError(f"batch_tokens is {batch_tokens}; it must be over 0.")
    gpu = device == "cuda" or (device == "auto" and _has_gpu())
    digest = model.digest("transformer", CODE_VERSION, precision)
    return TransformerRecipe(model, model.name, digest, "gpu" if gpu else "cpu", device, batch_tokens, precision)


def _has_gpu() -> bool:
    """Whether this machine shows an NVIDIA device; torch, which would know for certain, takes seconds to ask."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1") and Path("/dev/nvidia0").exists()


class TransformerStage:
    """One worker's transformer, on one device."""

    def __init__(self, recipe: TransformerRecipe) -> None:
        self._model = _Model(recipe)
        self._tokenizer = _Tokenizer(recipe.model.folder)
        self._windows: Windows = recipe.model.windows
        self._pooling = recipe.model.pooling
        self._check_positions(recipe.model)
        self.schema = classifier_schema([label.name for label in recipe.model.labels])

    def _check_positions(self, model: ModelFile) -> None:
        special = len(self._tokenizer.before) + len(self._tokenizer.after)
        if model.positions is not None and self._windows.size + special > model.positions:
            raise UsageError(
                f"{model.folder}: windows of {self._windows.size} tokens and {special} special ones are more than the "
                f"{model.positions} the model can place; set 'windows: {{size: {model.positions - special}, ...}}'."
            )

    def find(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        text = documents.column("text").drop_null()
        if not pa.types.is_large_string(text.type):
            text = text.cast(pa.large_string())
        return pooled_batch(documents, self.schema, self._groups(text), self._pooling)

    def _groups(self, text: pa.LargeStringArray) -> Iterator[tuple[Floats, Ints, Ints]]:
        for first, last in document_groups(text, _GROUP_BYTES):
            tokens, length = self._tokenizer.tokens(text.slice(first, last - first).to_pylist())
            yield self._score(tokens, length), self._windows.count(length), length

    def _score(self, tokens: Tokens, length: Ints) -> Floats:
        """Log-odds ``[windows, labels]`` of documents whose *tokens* stand one after the other."""
        document, start, end = self._windows.cut(length)
        offset = (np.cumsum(length) - length)[document]
        size = end - start
        special = len(self._tokenizer.before) + len(self._tokenizer.after)
        padded = np.maximum(size + special, 1)
        if not self._model.one_by_one:
            padded = np.minimum(-(-padded // _ROUND) * _ROUND, self._windows.size + special)
        order = np.argsort(padded, kind="stable")[::-1]
        outputs = []
        first = 0
        while first < len(order):
            width = int(padded[order[first]])
            same = int(np.searchsorted(-padded[order], -width, side="right"))
            most = 1 if self._model.one_by_one else max(self._model.batch_tokens // width, 1)
            last = min(same, first + most)
            rows = order[first:last]
            ids, there = self._rows(tokens, offset[rows] + start[rows], size[rows], width)
            outputs.append(self._model.logits(ids, there))
            first = last
        odds = np.empty((len(order), self.schema.field("scores").type.list_size), np.float32)
        odds[order] = self._model.log_odds(outputs)
        return odds

    def _rows(self, tokens: Tokens, start: Ints, size: Ints, width: int) -> tuple[Tokens, npt.NDArray[np.bool_]]:
        """Token ids ``[windows, width]`` with special tokens around each window and padding after it."""
        before, after = self._tokenizer.before, self._tokenizer.after
        place = np.arange(width) - len(before)
        inside = (place >= 0) & (place < size[:, None])
        ids = np.full((len(start), width), self._model.padding, np.int32)
        ids[:, : len(before)] = before
        ids[inside] = tokens[(start[:, None] + place)[inside]]
        for i, token in enumerate(after):
            ids[np.arange(len(start)), len(before) + size + i] = token
        # A window without any token still needs one to look at, or its scores are no numbers.
        return ids, np.arange(width) < np.maximum(size + len(before) + len(after), 1)[:, None]


class _Tokenizer:
    """
    The checkpoint's ``tokenizer.json``: no truncation, no padding, and what a text spells out is no special token.

    Read by the library that defines the format, not by a class chosen by name: the digest names the file.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Else a text that spells '[SEP]' or '<|endoftext|>' could end a window for the model.
        self._tokenizer.encode_special_tokens = True
        encoded = self._tokenizer.encode("a b")
        content = [i for i, special in enumerate(encoded.special_tokens_mask) if not special]
        first, last = (content[0], content[-1] + 1) if content else (len(encoded.ids), len(encoded.ids))
        self.before: list[int] = encoded.ids[:first]
        self.after: list[int] = encoded.ids[last:]

    def tokens(self, texts: list[str]) -> tuple[Tokens, Ints]:
        """All tokens of all *texts*, one text after the other, and how many each has."""
        pieces = [piece for text in texts for piece in _pieces(text)]
        owners = np.repeat(np.arange(len(texts)), [sum(1 for _ in _pieces(text)) for text in texts])
        encoded = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        ids = [np.array(part.ids, np.int32) for part in encoded]
        length = np.zeros(len(texts), np.int64)
        np.add.at(length, owners, [len(part) for part in ids])
        return np.concatenate([np.zeros(0, np.int32), *ids]), length


def _pieces(text: str) -> Iterator[str]:
    """*text*, a very long one in pieces that end in white space where there is some."""
    first = 0
    while len(text) - first > _PIECE:
        last = first + _PIECE
        space = max(text.rfind(" ", last - 1_000, last), text.rfind("\n", last - 1_000, last))
        last = space if space > first else last
        yield text[first:last]
        first = last
    yield text[first:]


class _Model:
    """The checkpoint in torch: token ids in, log-odds out."""

    def __init__(self, recipe: TransformerRecipe) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        from transformers import AutoModelForSequenceClassification

        self._torch = torch
        self._activation: Activation = recipe.model.activation
        self._place = self._device(recipe)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            recipe.model.folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, recipe.precision),
            output_loading_info=True,
        )
        if missing := sorted(loading["missing_keys"]):
            raise UsageError(
                f"{recipe.model.folder}: the checkpoint has no weights for {missing[0]}; "
                "name one that was trained to classify."
            )
        if model.config.num_labels != len(recipe.model.labels):
            raise UsageError(
                f"{recipe.model.folder}: the model gives {model.config.num_labels} scores, but "
                f"{len(recipe.model.labels)} labels are described."
            )
        padding = model.config.get_text_config().pad_token_id
        self.padding: int = 0 if padding is None else padding
        # Without a padding token a decoder cannot tell where a window ends.
        self.one_by_one = padding is None
        self.batch_tokens = recipe.batch_tokens or (CUDA_TOKENS if self._place == "cuda" else CPU_TOKENS)
        self._model = model.eval().to(self._place)

    def _device(self, recipe: TransformerRecipe) -> str:
        there = bool(self._torch.cuda.is_available())
        if recipe.place == "cuda" and not there:
            raise UsageError(f"model {recipe.name}: this worker sees no CUDA device; set 'device: cpu' or 'auto'.")
        return "cuda" if there and recipe.place != "cpu" else "cpu"

    def logits(self, ids: Tokens, there: npt.NDArray[np.bool_]) -> Any:
        """Raw outputs ``[windows, labels]``, left on the device. A batch too large for its memory is halved."""
        torch = self._torch
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(ids.astype(np.int64)).to(self._place, non_blocking=True)
                mask = torch.from_numpy(there.astype(np.int64)).to(self._place, non_blocking=True)
                return self._model(input_ids=batch, attention_mask=mask).logits.float()
        except torch.OutOfMemoryError:
            if len(ids) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(ids) // 2
        return torch.cat([self.logits(ids[:half], there[:half]), self.logits(ids[half:], there[half:])])

    def log_odds(self, outputs: list[Any]) -> Floats:
        raw = self._torch.cat(outputs).cpu().numpy().astype(np.float64)
        if self._activation != "softmax":
            return np.asarray(raw, np.float32)
        # log(p / (1 - p)) of a softmax is the output less the log-sum-exp of all others.
        others = [np.logaddexp.reduce(np.delete(raw, label, axis=1), axis=1) for label in range(raw.shape[1])]
        return np.asarray(raw - np.stack(others, axis=1), np.float32)
