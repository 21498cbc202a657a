"""
What a model folder says: its labels, what they mean for the 31 risks, and on what evidence.

A folder is a checkpoint (``config.json``, safetensors, for a transformer ``tokenizer.json``) with
``corpus_guard.yaml`` beside it. Reading it loads no model and runs nothing of the folder; all
faults are told at once. Pickled weights and code that a checkpoint brings along are refused.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from safetensors import SafetensorError, safe_open

from corpus_guard.classifiers.pooling import Pooling
from corpus_guard.errors import UsageError
from corpus_guard.shipped import names, shipped
from corpus_guard.taxonomy import BIT, CODES
from corpus_guard.text.windows import Windows
from corpus_guard.yamlfile import Faults, KeyPath, near, read_yaml, shown

DESCRIPTION = "corpus_guard.yaml"
NGRAM = "hashed-ngram"
RELATIONS = ("=", "<", ">", "~")
STATUSES = ("usable", "weak", "no data")

Activation = Literal["sigmoid", "softmax", "none"]
Status = Literal["usable", "weak", "no data"]

_KEYS = (
    "name", "repository", "checkpoint", "licence", "languages", "activation", "windows", "pooling", "prior", "labels",
    "evaluation", "notes",
)  # fmt: skip
_LABEL_KEYS = ("risks", "relation", "threshold", "calibration")
_EVIDENCE_KEYS = (
    "status", "positives", "trained_natural", "trained_synthetic", "ap", "ap_other_sources", "positives_other_sources",
    "recall", "fpr", "note",
)  # fmt: skip
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_JSON_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Calibration:
    """
    From a raw document score to a probability.

    ``platt``: the log-odds are ``a * score + b + length * log2(windows)``. ``isotonic``: straight
    lines between *points*. ``none``: a log-odds score is taken at its word, a plain number as probability.
    """

    way: Literal["platt", "isotonic", "none"] = "none"
    a: float = 1.0
    b: float = 0.0
    length: float = 0.0
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """
    One output of the model.

    ``relation`` to its risks: ``=`` the same, ``<`` narrower (is one of them for certain), ``>`` broader and
    ``~`` overlapping (some risk, not known which). ``upper`` null: the label is off. An ignored label has no risks.
    """

    name: str
    risks: tuple[str, ...] = ()
    relation: Literal["=", "<", ">", "~"] = "="
    upper: float | None = None
    lower: float | None = None
    calibration: Calibration = Calibration()

    @property
    def decided(self) -> bool:
        """Whether its score speaks for its risks themselves, not only for candidates."""
        return self.relation in ("=", "<")


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    How well a risk is known to be found.

    ``positives``: documents with the risk that were measured on. ``trained_*``: rows that were trained on, natural
    text and prompts, templates or model answers. Measures are of documents that were not trained on.
    """

    status: Status
    positives: int | None = None
    trained_natural: int | None = None
    trained_synthetic: int | None = None
    ap: float | None = None
    ap_other_sources: float | None = None
    positives_other_sources: int | None = None
    recall: float | None = None
    fpr: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """
    A model folder, read and checked.

    ``labels`` are in the order of the model's outputs. ``positions``: how many tokens it can place, if it says so.
    """

    folder: Path
    name: str
    model_type: str
    licence: str
    languages: tuple[str, ...]
    activation: Activation
    windows: Windows
    pooling: Pooling
    labels: tuple[Label, ...]
    evaluation: dict[str, Evidence]
    weight_files: tuple[Path, ...]
    repository: str | None = None
    prior: float | None = None
    positions: int | None = None

    @property
    def is_ngram(self) -> bool:
        return self.model_type == NGRAM

    def digest(self, *parts: str) -> str:
        """
        SHA-256 of what raw scores depend on: weights, tokenizer, config, windows, pooling, activation and *parts*.

        Calibration, thresholds and evidence are not in it: they are applied to stored scores.
        """
        total = hashlib.sha256()
        settings = [self.activation, self.windows.size, self.windows.stride, self.pooling.way, self.pooling.k, *parts]
        total.update(json.dumps(settings).encode())
        for path in sorted({*self.weight_files, *_side_files(self.folder)}):
            with path.open("rb") as file:
                total.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    @property
    def judging_digest(self) -> str:
        """SHA-256 of what is applied to stored scores: labels, risks, thresholds, calibration and the prior."""
        return hashlib.sha256(repr((self.labels, self.prior)).encode()).hexdigest()


def _side_files(folder: Path) -> list[Path]:
    found = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    return [folder / name for name in found if (folder / name).is_file()]


def load_model(path_or_name: str | Path) -> ModelFile:
    """
    The model of that shipped name, in that folder, or described by that YAML file.

    A YAML file outside its model's folder says in ``checkpoint`` where the folder is. ``UsageError`` names every fault.
    """
    path = _find(path_or_name)
    description = path / DESCRIPTION if path.is_dir() else path
    if not description.is_file():
        raise UsageError(
            f"{description}: there is no such file; it says what the labels mean. Examples are the shipped models "
            f"{', '.join(names('models')) or '(none)'}."
        )
    data, lines = read_yaml(description)
    faults = Faults(str(description), lines)
    if not isinstance(data, dict):
        raise UsageError(f"{description}: is empty or no mapping; it needs at least 'labels'.")
    faults.unknown_keys((), data, _KEYS)
    folder = _folder(data, description, faults)
    if folder is None:
        faults.stop()
    assert folder is not None
    config, weight_files = _checkpoint(folder, faults)
    read = _Description(data, faults)
    names_of_labels = _label_names(config)
    model = ModelFile(
        folder=folder,
        name=read.text("name") or folder.name,
        model_type=str(config.get("model_type", "")),
        licence=read.text("licence") or "not stated",
        languages=read.texts("languages"),
        activation=cast(Activation, read.choice("activation", ("sigmoid", "softmax", "none"))),
        windows=read.windows(_positions(config)),
        pooling=read.pooling(),
        labels=read.labels(names_of_labels),
        evaluation=read.evaluation(),
        weight_files=weight_files,
        repository=read.text("repository"),
        prior=read.number((), data, "prior", 0, 1),
        positions=_positions(config),
    )
    if model.activation == "softmax" and len(model.labels) == 1:
        faults.add(("activation",), "softmax of a single label is always 1; 'activation' must be sigmoid or none.")
    faults.stop()
    return model


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    found = path if path.exists() else shipped("models", str(path_or_name))
    if found is None:
        known = names("models")
        raise UsageError(
            f"model '{shown(path_or_name)}': there is no such folder, and no model of that name is shipped"
            f"{near(str(path_or_name), known) or '; shipped are ' + (', '.join(known) or 'none') + '.'}"
        )
    return found


def _folder(data: dict[str, Any], description: Path, faults: Faults) -> Path | None:
    checkpoint = data.get("checkpoint")
    if checkpoint is None and description.name == DESCRIPTION:
        return description.parent
    if not isinstance(checkpoint, str) or not checkpoint:
        repository = data.get("repository") or "the model"
        faults.add(
            ("checkpoint",),
            f"save {shown(repository)} to a folder, then copy this file there as '{DESCRIPTION}', "
            "or name the folder in 'checkpoint'.",
        )
        return None
    folder = description.parent / checkpoint
    if not folder.is_dir():
        faults.add(("checkpoint",), f"there is no folder '{shown(folder)}'.")
        return None
    return folder


def _json(path: Path, faults: Faults) -> dict[str, Any]:
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise ValueError("too large")
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        faults.add_line(0, f"there is no '{path.name}' beside it; copy the whole checkpoint.")
        return {}
    except (OSError, ValueError, RecursionError):
        faults.add_line(0, f"'{path.name}' beside it cannot be read as JSON; copy the checkpoint again.")
        return {}
    if not isinstance(data, dict):
        faults.add_line(0, f"'{path.name}' beside it is no JSON object; copy the checkpoint again.")
        return {}
    return data


def _checkpoint(folder: Path, faults: Faults) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The config and the weight files of *folder*; what cannot or must not be used becomes a fault."""
    config = _json(folder / "config.json", faults)
    _refuse_code(folder / "config.json", config, faults)
    if config and config.get("model_type") != NGRAM:
        if (folder / "tokenizer.json").is_file():
            if (folder / "tokenizer_config.json").is_file():
                _refuse_code(folder / "tokenizer_config.json", _json(folder / "tokenizer_config.json", faults), faults)
        else:
            faults.add_line(0, "there is no 'tokenizer.json' beside it; save the fast tokenizer of the model there.")
    return config, _weights(folder, faults)


def _refuse_code(path: Path, config: dict[str, Any], faults: Faults) -> None:
    for key in ("auto_map", "custom_pipelines"):
        if config.get(key):
            faults.add_line(0, f"'{path.name}' asks for code of its own ('{key}'); such models are not run here.")


def _weights(folder: Path, faults: Faults) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    elif index.is_file():
        parts = _json(index, faults).get("weight_map")
        shards = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
        outside = [shard for shard in shards if Path(shard).name != shard]
        missing = [shard for shard in shards if shard not in outside and not (folder / shard).is_file()]
        if outside or not shards:
            faults.add_line(0, f"'{index.name}' does not name weight files of this folder; copy the checkpoint again.")
        for shard in missing:
            faults.add_line(0, f"there is no '{shown(shard)}' beside it, which '{index.name}' names.")
        files = [folder / shard for shard in shards if shard not in outside and shard not in missing]
    else:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        if pickled:
            faults.add_line(0, f"'{shown(pickled[0])}' can run code when it is read; save the weights as safetensors.")
        else:
            faults.add_line(0, "there is no 'model.safetensors' beside it; copy the whole checkpoint.")
        files = []
    for path in files:
        try:
            with safe_open(path, framework="np") as weights:
                if not list(weights.keys()):
                    faults.add_line(0, f"'{path.name}' beside it holds no weights; copy the checkpoint again.")
        except (SafetensorError, OSError):
            faults.add_line(0, f"'{path.name}' beside it is no whole safetensors file; copy the checkpoint again.")
    return tuple(files)


def _label_names(config: dict[str, Any]) -> list[str] | None:
    """Labels in the order of outputs; ``None`` without a config. A config that names none has two of the library's."""
    if not config:
        return None
    given = config.get("id2label")
    if not isinstance(given, dict) or not given:
        return ["LABEL_0", "LABEL_1"]
    return [str(given[key]) for key in sorted(given, key=lambda key: int(key) if str(key).isdigit() else -1)]


def _positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model can place, special ones included, if its config says so."""
    limit = config.get("max_position_embeddings")
    if not isinstance(limit, int) or limit < 8:
        return None
    # RoBERTa and its kin number positions from the padding token on: two places are never used.
    return limit - 2 if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl") else limit


@dataclass(slots=True)
class _Description:
    """Reads the parts of the YAML file; whatever is wrong becomes a fault and a harmless value."""

    data: dict[str, Any]
    faults: Faults
    at: KeyPath = field(default=())

    def text(self, key: str) -> str | None:
        value = self.data.get(key)
        if value is not None and not isinstance(value, str):
            self.faults.add((key,), f"'{key}' must be text; put it in quotes.")
            return None
        return value or None

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.faults.add((key,), f"'{key}' must be a list of texts.")
            return ()
        return tuple(value)

    def choice(self, key: str, known: Sequence[str]) -> str:
        value = self.data.get(key)
        if value not in known:
            guess = near(value, known) if isinstance(value, str) else ""
            self.faults.add((key,), f"'{key}' must be one of {', '.join(known)}{guess or '.'}")
            return known[0]
        return str(value)

    def number(self, at: KeyPath, mapping: dict[str, Any], key: str, low: float, high: float) -> float | None:
        value = mapping.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.faults.add((*at, key), f"'{key}' must be a number from {low:g} to {high:g}, or null.")
            return None
        return float(value)

    def mapping(self, at: KeyPath, value: Any, known: Sequence[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.faults.add(at, f"'{at[-1]}' must be a mapping with {', '.join(known)}.")
            return {}
        self.faults.unknown_keys(at, value, known)
        return value

    def windows(self, positions: int | None) -> Windows:
        given = self.mapping(("windows",), self.data.get("windows"), ("size", "stride"))
        size, stride = given.get("size"), given.get("stride")
        if not all(isinstance(part, int) and not isinstance(part, bool) and part > 0 for part in (size, stride)):
            self.faults.add(("windows",), "'windows' needs whole numbers 'size' and 'stride' over 0.")
            return Windows(1, 1)
        size, stride = cast(int, size), cast(int, stride)
        if stride > size:
            self.faults.add(
                ("windows", "stride"), f"'stride' {stride} is over 'size' {size}: text between would not be read."
            )
        if positions is not None and size > positions:
            self.faults.add(
                ("windows", "size"), f"'size' {size} is more than the {positions} tokens the model can place."
            )
        return Windows(size, min(stride, size))

    def pooling(self) -> Pooling:
        value = self.data.get("pooling")
        if value in ("max", "noisy_or"):
            return Pooling(value)
        if isinstance(value, dict) and set(value) == {"top_k_mean"}:
            k = value["top_k_mean"]
            if isinstance(k, int) and not isinstance(k, bool) and k > 0:
                return Pooling("top_k_mean", k)
        self.faults.add(
            ("pooling",), "'pooling' must be max, noisy_or or {top_k_mean: k} with a whole number k over 0."
        )
        return Pooling("max")

    def labels(self, outputs: list[str] | None) -> tuple[Label, ...]:
        given = self.data.get("labels")
        if not isinstance(given, dict) or not given:
            self.faults.add(
                ("labels",), "'labels' must say for each label of the model which risks it means, or 'ignore'."
            )
            return ()
        read = {str(name): self._label(str(name), value) for name, value in given.items()}
        if outputs is None:
            return tuple(read.values())
        for name in read:
            if name not in outputs:
                guess = near(name, outputs) or f"; its labels are {shown(', '.join(outputs), 400)}."
                self.faults.add(("labels", name), f"the model has no label '{shown(name)}'{guess}")
        for name in outputs:
            if name not in read:
                self.faults.add(
                    ("labels",), f"label '{shown(name)}' of the model is not mapped; give its risks or 'ignore'."
                )
        return tuple(read.get(name, Label(name)) for name in outputs)

    def _label(self, name: str, value: Any) -> Label:
        at: KeyPath = ("labels", name)
        if value == "ignore":
            return Label(name)
        given = self.mapping(at, value, _LABEL_KEYS)
        risks = given.get("risks")
        if not isinstance(risks, list) or not risks:
            self.faults.add(at, f"label '{shown(name)}' needs a list 'risks', or 'ignore' in its place.")
            risks = []
        known = [risk for risk in risks if self._risk((*at, "risks"), risk)]
        relation = given.get("relation", "=")
        if relation not in RELATIONS:
            self.faults.add((*at, "relation"), '\'relation\' must be "=", "<", ">" or "~", in quotes.')
            relation = "="
        if relation == "=" and len(risks) > 1:
            self.faults.add(
                (*at, "relation"), f'label \'{shown(name)}\' cannot be the same as several risks; use "<", ">" or "~".'
            )
        threshold: dict[str, Any] = {}
        if given.get("threshold") is not None:
            threshold = self.mapping((*at, "threshold"), given["threshold"], ("upper", "lower"))
        upper = self.number((*at, "threshold"), threshold, "upper", 0, 1)
        lower = self.number((*at, "threshold"), threshold, "lower", 0, 1)
        if upper is not None and lower is not None and lower > upper:
            self.faults.add((*at, "threshold"), f"'lower' {lower:g} is over 'upper' {upper:g}.")
        calibration = self._calibration((*at, "calibration"), given.get("calibration"))
        return Label(name, tuple(known), relation, upper, lower, calibration)

    def _risk(self, at: KeyPath, risk: Any) -> bool:
        if risk in BIT:
            return True
        self.faults.add(
            at, f"unknown risk '{shown(risk)}'{near(str(risk), CODES) or '; risks are written A.1.a to A.5.b.'}"
        )
        return False

    def _calibration(self, at: KeyPath, value: Any) -> Calibration:
        if value is None or value == "none":
            return Calibration()
        given = self.mapping(at, value, ("platt", "isotonic"))
        if len(given) != 1:
            self.faults.add(
                at, "'calibration' must be none, {platt: {a, b}} or {isotonic: [[score, probability], ...]}."
            )
            return Calibration()
        if "platt" in given:
            numbers = self.mapping((*at, "platt"), given["platt"], ("a", "b", "length"))
            a, b = (self.number((*at, "platt"), numbers, key, -1e6, 1e6) for key in ("a", "b"))
            length = self.number((*at, "platt"), numbers, "length", -1e3, 1e3) or 0.0
            if a is None or b is None or a <= 0:
                self.faults.add((*at, "platt"), "'platt' needs numbers 'a', over 0, and 'b'.")
                return Calibration()
            return Calibration("platt", a, b, length)
        points = given.get("isotonic")
        if not _is_curve(points):
            self.faults.add(
                (*at, "isotonic"), "'isotonic' needs two or more points [score, probability], both ascending."
            )
            return Calibration()
        return Calibration("isotonic", points=tuple((float(x), float(y)) for x, y in cast(list[Any], points)))

    def evaluation(self) -> dict[str, Evidence]:
        given = self.data.get("evaluation")
        if given is None:
            return {}
        if not isinstance(given, dict):
            self.faults.add(("evaluation",), "'evaluation' must say for each risk how well it is found.")
            return {}
        return {
            risk: self._evidence(risk, value) for risk, value in given.items() if self._risk(("evaluation", risk), risk)
        }

    def _evidence(self, risk: str, value: Any) -> Evidence:
        at: KeyPath = ("evaluation", risk)
        given = self.mapping(at, value, _EVIDENCE_KEYS)
        status = given.get("status")
        if status not in STATUSES:
            self.faults.add((*at, "status"), f"'status' must be one of {', '.join(STATUSES)}.")
            status = "no data"
        note = given.get("note")
        return Evidence(
            cast(Status, status),
            positives=self._count(at, given, "positives"),
            trained_natural=self._count(at, given, "trained_natural"),
            trained_synthetic=self._count(at, given, "trained_synthetic"),
            ap=self.number(at, given, "ap", 0, 1),
            ap_other_sources=self.number(at, given, "ap_other_sources", 0, 1),
            positives_other_sources=self._count(at, given, "positives_other_sources"),
            recall=self.number(at, given, "recall", 0, 1),
            fpr=self.number(at, given, "fpr", 0, 1),
            note=None if note is None else str(note),
        )

    def _count(self, at: KeyPath, mapping: dict[str, Any], key: str) -> int | None:
        number = self.number(at, mapping, key, 0, 1e12)
        return None if number is None else int(number)


def _is_curve(points: Any) -> bool:
    if not isinstance(points, list) or len(points) < 2:
        return False
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            return False
        if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in point):
            return False
    scores, chances = zip(*points, strict=True)
    return list(scores) == sorted(scores) and list(chances) == sorted(chances) and 0 <= chances[0] <= chances[-1] <= 1
