"""
The config of a run: which corpus, which policy, which stages, where to and how.

One YAML file; every key with its default is in ``docs/config.md``. A flag wins over ``CORPUS_GUARD_*``, that over the
file, the file over the default, and the config remembers who won. Holds choices only: nothing is opened here, and no
number of the standard stands here.
"""

import difflib
import json
import os
import re
import types
import warnings
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, ValidationError

from corpus_guard.errors import UsageError
from corpus_guard.policy import plain, share
from corpus_guard.shipped import Kind, names, shipped
from corpus_guard.yamlfile import KeyPath, Lines, near, parse_yaml, read_yaml, shown

ENVIRONMENT = "CORPUS_GUARD_"

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?i?B)\Z", re.IGNORECASE)
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?\s*(?:ms|s|min|h|d)\s*)+\Z")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|h|d)")
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}
_PREFIXES = " kmgt"


# Kinds of values


def size(value: Any) -> int:
    """Bytes: ``64MiB``, ``1.5 GB`` (powers of 1000), or a whole number. ``ValueError`` says what it must be."""
    result = Fraction(0)
    if isinstance(value, int) and not isinstance(value, bool):
        result = Fraction(value)
    elif isinstance(value, str) and (match := _SIZE.match(value.strip())):
        unit = match[2].lower()
        power = _PREFIXES.index(unit[0]) if len(unit) > 1 else 0
        result = Fraction(match[1]) * int((1024 if "i" in unit else 1000) ** power)
    if result < 1 or result.denominator != 1:
        raise ValueError("must be a size such as 64MiB, 1GB or 1048576")
    return int(result)


def duration(value: Any) -> float:
    """Seconds: ``30min``, ``1h30min``, ``90s``, or a number. ``ValueError`` says what it must be."""
    seconds = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and _DURATION.match(value.strip()):
        parts = _DURATION_PART.findall(value)
        seconds = float(sum((Fraction(number) * _SECONDS[unit] for number, unit in parts), Fraction(0)))
    if not 0 < seconds < float("inf"):
        raise ValueError("must be a duration such as 30min, 1h30min or 90s")
    return seconds


def size_text(value: int) -> str:
    """Bytes as ``size`` reads them, in the largest binary unit that is exact."""
    for power in (4, 3, 2, 1):
        if value % 1024**power == 0:
            return f"{value // 1024**power}{_PREFIXES[power].upper()}iB"
    return str(value)


def duration_text(seconds: float) -> str:
    """Seconds as ``duration`` reads them, in the largest unit that is exact."""
    for unit in ("d", "h", "min"):
        if Fraction(seconds) % _SECONDS[unit] == 0:
            return f"{int(Fraction(seconds) / _SECONDS[unit])}{unit}"
    return f"{Decimal(repr(seconds)):f}s"


def _listed(value: Any) -> Any:
    """One thing stands for a list of one."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("must name at least one")
        return tuple(value)
    raise ValueError("must be text or a list of texts")


def _sequence(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(value)
    raise ValueError("must be a list")


def _named(key: str) -> BeforeValidator:
    """A bare name stands for ``{key: name}``."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _whole(least: int) -> BeforeValidator:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"must be a whole number, {least} or more")
        return value

    return BeforeValidator(read)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError("must be a number, 0 or more")
    return float(value)


def _nonempty(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("must be text")
    return value


Text = Annotated[str, BeforeValidator(_nonempty)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
Paths = Annotated[tuple[Text, ...], BeforeValidator(_sequence)]
Size = Annotated[int, BeforeValidator(size), "size"]
Duration = Annotated[float, BeforeValidator(duration), "duration"]
Share = Annotated[Fraction, BeforeValidator(share), "share"]
Positive = Annotated[int, _whole(1)]
Number = Annotated[float, BeforeValidator(_number)]


# The config. Docs/config.md says what each key means; a test compares the two.


class Section(BaseModel):
    """Keys that belong together. Frozen; unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Columns(Section):
    """Which columns of the corpus mean what. ``text`` may be several, or paths such as ``messages[*].content``."""

    text: Texts = ("text",)
    id: Text | None = None
    source: Text | None = None
    url: Text | None = None
    dataset: Text | None = None
    language: Text | None = None
    kind: Text | None = None
    origin: Text | None = None
    licence: Text | None = None
    collected_at: Text | None = None


class Corpus(Section):
    shards: Texts
    columns: Columns = Columns()
    phase: Literal["pre_collection", "post_collection"] = "post_collection"


class Keywords(Section):
    library: Text = "starter"
    engine: Literal["auto", "hyperscan", "pyahocorasick"] = "auto"


class ClassifierUse(Section):
    model: Text
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_tokens: Positive | None = None


Classifiers = Annotated[tuple[Annotated[ClassifierUse, _named("model")], ...], BeforeValidator(_sequence)]


class ScreenUse(Section):
    """``list``: the file a screen compares with (blocked hosts, protected works); most need none."""

    screen: Literal["language", "personal_info", "blocklist", "near_duplicate", "copyright", "synthetic"]
    list: Text | None = None


Screens = Annotated[tuple[Annotated[ScreenUse, _named("screen")], ...], BeforeValidator(_sequence)]


with warnings.catch_warnings():
    # The key hides ABCMeta.register, which nobody calls on a config.
    warnings.filterwarnings("ignore", 'Field name "register"', UserWarning)

    class Sources(Section):
        register: Text | None = None
        blacklist: Text | None = None
        decide: Literal["point", "assured"] = "point"


class Evaluation(Section):
    """The independent set-up of the technical check (design section 7)."""

    library: Text | None = None
    engine: Literal["auto", "hyperscan", "pyahocorasick"] = "auto"
    classifiers: Classifiers = ()


class CpuPool(Section):
    workers: Positive | None = None
    num_cpus: Number = 1.0
    memory: Size | None = None


class GpuPool(Section):
    workers: Positive | None = None
    num_gpus: Number = 1.0
    num_cpus: Number = 1.0
    memory: Size | None = None


class ExecutorChoice(Section):
    """``workers`` is for ``local``; ``address``, ``namespace``, ``cpu``, ``gpu`` and ``in_flight`` are for ``ray``."""

    kind: Literal["local", "ray"] = "local"
    workers: Positive = 1
    unit_bytes: Size = 64 * 2**20
    slice_bytes: Size = 64 * 2**20
    unit_timeout: Duration | None = 1800.0
    attempts: Positive = 3
    infrastructure_budget: Positive = 20
    address: Text | None = None
    namespace: Text = "corpus-guard"
    in_flight: Positive = 2
    cpu: CpuPool = CpuPool()
    gpu: GpuPool = GpuPool()


class SpotCheck(Section):
    """Samples larger than the policy asks for; ``Policy.raised`` refuses smaller ones."""

    manual: Positive | None = None
    technical: Share | None = None


class Config(Section):
    """
    What a run is asked to do. Paths are absolute or URIs; shipped names of policy, library and models stay names.

    Made by ``load_config`` from a file or by ``Config.of`` from a dict.
    """

    policy: Text = "tc260-003"
    corpus: Corpus
    run: Text
    store: Text = ""
    restricted: Text = ""
    keywords: Keywords | None = Keywords()
    classifiers: Classifiers = (ClassifierUse(model="ngram-screen"),)
    screens: Screens = ()
    sources: Sources = Sources()
    evaluation: Evaluation | None = None
    labels: Paths = ()
    executor: ExecutorChoice = ExecutorChoice()
    max_failed_share: Share = Fraction(0)
    spot_check: SpotCheck | None = None

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def base(self) -> Path:
        """The folder relative paths were taken from: that of the config file."""
        return self._base

    @classmethod
    def of(
        cls,
        data: Mapping[str, Any],
        base: Path | str | None = None,
        overrides: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> "Config":
        """The same as a file with these keys in the folder *base* (default: the working folder)."""
        return _build(dict(data), {}, "config", Path(base or Path.cwd()), overrides or {}, env or {})

    def origin(self, key: str) -> str:
        """Who set *key*: ``flag``, ``environment CORPUS_GUARD_...``, ``file <name>:<line>`` or ``default``."""
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            if ".".join(parts[:end]) in self._origins:
                return self._origins[".".join(parts[:end])]
        return "default"

    def rows(self) -> list[tuple[str, str, str]]:
        """Every key with its value as one would write it, and who set it (``config show --origin``)."""
        return [(key, value, self.origin(key)) for key, value in _values(self, type(self), ())]


# Loading


def load_config(
    path: Path | str, overrides: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None
) -> Config:
    """
    The config in the file at *path*, with *overrides* (``{"executor.workers": "8"}``) and ``CORPUS_GUARD_*`` of *env*.

    ``UsageError`` tells all faults at once, each with file and line (or flag, or variable), key and nearest match.
    """
    path = Path(path)
    data, lines = read_yaml(path)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must hold keys such as corpus, run and policy.")
    return _build(data, lines, str(path), Path(os.path.abspath(path)).parent, overrides or {}, env or {})


def _build(
    data: dict[str, Any], lines: Lines, name: str, base: Path, overrides: Mapping[str, Any], env: Mapping[str, str]
) -> Config:
    base = Path(os.path.abspath(base))
    reader = _Reader(data, lines, name, base)
    reader.environment(env)
    reader.flags(overrides)
    config = reader.validated()
    reader.stop()
    assert config is not None
    config._base = base
    config._origins = reader.origins
    return config


class _Reader:
    """Lays flags over environment over file, checks the whole, and remembers where each key came from."""

    def __init__(self, data: dict[str, Any], lines: Lines, name: str, base: Path) -> None:
        self.data = _copy(data)
        self.lines = lines
        self.name = name
        self.base = base
        self.faults: list[tuple[int, str]] = []
        self.origins: dict[str, str] = {}
        self.outside: dict[KeyPath, str] = {}
        for place in _leaves(data):
            line = lines.get(place)
            if place not in (("store",), ("restricted",)) or data[str(place[0])] is not None:  # null means the default
                self.origins[".".join(map(str, place))] = f"file {name}:{line}" if line else f"file {name}"

    def environment(self, env: Mapping[str, str]) -> None:
        known = {ENVIRONMENT + key.replace(".", "_").upper(): key for key in _settable(Config)}
        for variable in sorted(env):
            if not variable.startswith(ENVIRONMENT):
                continue
            if variable in known:
                self._set(known[variable], env[variable], f"environment {variable}", variable)
            elif guess := difflib.get_close_matches(variable, known, n=1, cutoff=0.95):
                # Other variables with our prefix may exist (for tests, for tokens); a misspelt one must not be silent.
                self._fault(0, f"{variable}: is no key of the config; did you mean {guess[0]}?")

    def flags(self, overrides: Mapping[str, Any]) -> None:
        known = _settable(Config)
        for key, value in overrides.items():
            if key in known:
                self._set(key, value, "flag", f"--set {key}")
            else:
                told = near(key, known) or "; docs/config.md lists all keys."
                self._fault(0, f"--set {shown(key)}: unknown key '{shown(key)}'{told}")

    def _set(self, key: str, value: Any, origin: str, told: str) -> None:
        place = tuple(key.split("."))
        try:
            value = _from_text(value, told) if isinstance(value, str) else _copy(value)
        except UsageError as error:
            self._fault(0, str(error))
            return
        section = self.data
        for part in place[:-1]:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[place[-1]] = value
        for other in [other for other in self.origins if other.startswith(key + ".")]:
            del self.origins[other]
        self.origins[key] = origin
        self.outside[place] = told

    def validated(self) -> Config | None:
        self._resolve()
        try:
            return Config.model_validate(self._with_defaults())
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                self._told(fault)
            return None

    def _with_defaults(self) -> dict[str, Any]:
        """``store`` and ``restricted`` follow ``run`` where they are not given (null is not given)."""
        data = dict(self.data)
        run = data.get("run")
        if isinstance(run, str) and run:
            for key, suffix in (("store", "/store"), ("restricted", ".restricted")):
                if data.get(key) is None:
                    data[key] = _beside(run, suffix)
            restricted = data["restricted"]
            if isinstance(restricted, str) and f"{restricted.rstrip('/')}/".startswith(f"{run.rstrip('/')}/"):
                self._at(("restricted",), "'restricted' lies inside 'run', which trainers read; choose another place.")
        return data

    def _resolve(self) -> None:
        """Relative paths become absolute; bare names that are shipped stay names."""
        data = self.data
        for key in ("run", "store", "restricted"):
            self._path(data, key, (key,))
        for section, key in (("sources", "register"), ("sources", "blacklist")):
            self._path(data.get(section), key, (section, key))
        corpus = data.get("corpus")
        if isinstance(corpus, dict):
            if isinstance(corpus.get("shards"), str):
                self._path(corpus, "shards", ("corpus", "shards"))
            self._paths(corpus.get("shards"), ("corpus", "shards"))
        self._paths(data.get("labels"), ("labels",))
        self._name(data, "policy", ("policy",), "policies")
        for section in ("keywords", "evaluation"):
            self._name(data.get(section), "library", (section, "library"), "keyword_libs")
        evaluation = data.get("evaluation")
        models = (("classifiers",), data.get("classifiers")), (
            ("evaluation", "classifiers"), evaluation.get("classifiers") if isinstance(evaluation, dict) else None
        )  # fmt: skip
        for place, uses in models:
            for i, use in enumerate(uses if isinstance(uses, list) else []):
                if isinstance(use, str):
                    self._name(uses, i, (*place, i), "models")
                else:
                    self._name(use, "model", (*place, i, "model"), "models")
        screens = data.get("screens")
        for i, use in enumerate(screens if isinstance(screens, list) else []):
            self._path(use, "list", ("screens", i, "list"))

    def _paths(self, items: Any, place: KeyPath) -> None:
        if isinstance(items, list):
            for i in range(len(items)):
                self._path(items, i, (*place, i))

    def _path(self, holder: Any, key: Any, place: KeyPath) -> None:
        value = _held(holder, key)
        if isinstance(value, str) and value.strip():
            holder[key] = value if _URI.match(value) else os.path.normpath(self.base / os.path.expanduser(value))

    def _name(self, holder: Any, key: Any, place: KeyPath, kind: Kind) -> None:
        """A shipped name stays; what looks like a path, or lies beside the config, becomes one; else a fault."""
        value = _held(holder, key)
        if not isinstance(value, str) or not value.strip():
            return
        looks_like_path = "/" in value or "\\" in value or value[:1] in ".~" or value.endswith((".yaml", ".yml"))
        if not looks_like_path and shipped(kind, value) is not None:
            return
        path = Path(os.path.normpath(self.base / os.path.expanduser(value)))
        if _URI.match(value):
            return
        if looks_like_path or path.exists():
            holder[key] = str(path)
            if kind == "policies" and not path.is_file():
                self._at(place, f"there is no policy file '{shown(path)}'.")
            return
        known = names(kind)
        listed = f"Shipped are {', '.join(known)}" if known else "None is shipped"
        told = near(value, known) or "."
        what = {"policies": "policy", "models": "model", "keyword_libs": "keyword library"}[kind]
        self._at(place, f"there is no {what} '{shown(value)}'{told} {listed}; a path to another has a '/' in it.")

    # Faults

    def _told(self, fault: Any) -> None:
        place: KeyPath = fault["loc"]
        name = place[-1] if place else "config"
        if fault["type"] == "extra_forbidden":
            known = _keys_at(place[:-1])
            inside = f" in '{'.'.join(map(str, place[:-1]))}'" if place[:-1] else ""
            guess = near(str(name), known) or f"; known are {', '.join(known)}."
            self._at(place, f"unknown key '{shown(name)}'{inside}{guess}")
            return
        dotted = ".".join(map(str, place))
        match fault["type"]:
            case "missing":
                told = "is missing"
            case "value_error":
                told = str(fault["ctx"]["error"])
            case "literal_error":
                choices = [str(choice) for choice in _choices(place)]
                given = shown(fault["input"])
                guess = near(given, choices) if isinstance(fault["input"], str) else ""
                told = f"is '{given}', must be {' or '.join(choices)}{guess}"
            case "model_type" | "model_attributes_type" | "dict_type":
                told = "must hold keys"
            case _:
                told = f"is not as it must be ({shown(fault['msg'])})"
        self._at(place, f"'{dotted}' {told}" + ("" if told.endswith("?") else "."))

    def _at(self, place: KeyPath, sentence: str) -> None:
        for end in range(len(place), 0, -1):
            if place[:end] in self.outside:
                self._fault(0, f"{self.outside[place[:end]]}: {sentence}")
                return
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines and (end or len(place) == 1):
                missing = end < len(place) and end == 0
                line = 0 if missing else self.lines[place[:end]]
                self._fault(line, f"{self.name}:{line}: {sentence}" if line else f"{self.name}: {sentence}")
                return
        self._fault(0, f"{self.name}: {sentence}")

    def _fault(self, line: int, message: str) -> None:
        self.faults.append((line, message))

    def stop(self) -> None:
        if self.faults:
            raise UsageError("\n".join(dict.fromkeys(told for _, told in sorted(self.faults, key=lambda f: f[0]))))


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value


def _held(holder: Any, key: Any) -> Any:
    """What *holder* has under *key*, or in that place of a list; paths as text, ``None`` where it cannot have it."""
    value = None
    if isinstance(holder, dict):
        value = holder.get(key)
    elif isinstance(holder, list) and isinstance(key, int):
        value = holder[key]
    return str(value) if isinstance(value, Path) else value


def _leaves(value: Any, place: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*place, key))
    else:
        yield place


def _from_text(text: str, name: str) -> Any:
    """A value from a flag or variable: a number, true, false, null, a list or mapping in brackets, else text."""
    if text[:1] in ("[", "{"):
        return parse_yaml(text, name)[0]
    if re.fullmatch(r"true|false|null|~|[-+]?[0-9]+(\.[0-9]+)?", text):
        return parse_yaml(text, name)[0]
    return text


def _beside(uri: str, suffix: str) -> str:
    """*uri* with *suffix* at the end of its path; what follows ``?`` (options of an object store) stays behind it."""
    path, mark, query = uri.partition("?") if _URI.match(uri) else (uri, "", "")
    return path.rstrip("/") + suffix + mark + query


# What the model says of itself: for messages, for the environment, for docs/config.md


def _section_of(annotation: Any) -> type[Section] | None:
    """The section behind an annotation: itself, or inside ``| None``, ``Annotated`` or ``tuple[..., ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in get_args(annotation):
        if not isinstance(inner, type) and get_origin(inner) is None:
            continue
        if (found := _section_of(inner)) is not None:
            return found
    return None


def _is_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated or origin is Union or origin is types.UnionType:
        return any(_is_list(inner) for inner in get_args(annotation))
    return origin is tuple


def _settable(section: type[Section], before: str = "") -> list[str]:
    """Every key a flag or variable can set: those of nested sections, and lists as a whole."""
    found = []
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        found.append(before + name)
        if inner is not None and not _is_list(field.annotation):
            found += _settable(inner, f"{before}{name}.")
    return found


def _walk(place: KeyPath) -> tuple[type[Section], Any]:
    """The section that holds *place* and the field there."""
    section: type[Section] = Config
    field: Any = None
    for part in place:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        inner = _section_of(field.annotation) if field is not None else None
        section = inner or section
    return section, field


def _keys_at(place: KeyPath) -> list[str]:
    return list(_walk(place)[0].model_fields)


def _choices(place: KeyPath) -> tuple[Any, ...]:
    return get_args(_walk(place)[1].annotation)


def keys() -> dict[str, str]:
    """Every key with its default as one writes it, or ``required``; those of list items as ``classifiers[].model``."""
    return dict(_keys(Config, ""))


_FOLLOWS_RUN = {"store": "<run>/store", "restricted": "<run>.restricted"}


def _keys(section: type[Section], before: str) -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        key = before + name
        inner = _section_of(field.annotation)
        many = _is_list(field.annotation)
        if inner is None or many or field.default is None:
            default = _FOLLOWS_RUN.get(key) or _text(field.default, _marks(field))
            yield key, "required" if field.is_required() else default
        if inner is not None:
            yield from _keys(inner, f"{key}[]." if many else f"{key}.")


def _values(section: Section, kind: type[Section], before: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name, field in kind.model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _values(value, type(value), (*before, name))
        else:
            yield ".".join((*before, name)), _text(value, _marks(field))


def _marks(field: Any) -> list[Any]:
    """The marks of a field's annotation (``"size"``, ``"duration"``), those inside ``| None`` too."""
    inner = [mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ())]
    return [*field.metadata, *inner]


def _text(value: Any, marks: list[Any]) -> str:
    if value is None:
        return "null"
    if isinstance(value, Fraction):
        return plain(value)
    if isinstance(value, int | float) and "size" in marks:
        return size_text(int(value))
    if isinstance(value, int | float) and "duration" in marks:
        return duration_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        if len(value) == 1 and isinstance(value[0], str):
            return value[0]
        return "[" + ", ".join(_text(item, []) for item in value) + "]"
    if isinstance(value, Section):
        given = {name: getattr(value, name) for name in type(value).model_fields}
        return "{" + ", ".join(f"{name}: {_text(item, [])}" for name, item in given.items() if item is not None) + "}"
    text = str(value)
    return text if text.isprintable() else json.dumps(text)
