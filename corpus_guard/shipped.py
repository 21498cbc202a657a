"""
Where the policies, models and keyword libraries that come with the package lie.

An installed wheel carries them below ``corpus_guard/_shipped``; in a checkout they lie beside the package. The
first place that has the name wins. Knows nothing of what is inside the files.
"""

from pathlib import Path
from typing import Literal

Kind = Literal["policies", "models", "keyword_libs"]

_PACKAGE = Path(__file__).resolve().parent


def _roots(package: Path) -> tuple[Path, Path]:
    return package / "_shipped", package.parent


def _places(kind: Kind, package: Path) -> list[tuple[Path, str]]:
    """Folders to look into, each with the suffix its files have there; an empty suffix stands for folders."""
    wheel, checkout = _roots(package)
    match kind:
        case "policies":
            return [(root / "configs" / "policies", ".yaml") for root in (wheel, checkout)]
        case "models":
            adapters = [(root / "configs" / "models", ".yaml") for root in (wheel, checkout)]
            return [(package / "classifiers" / "models", ""), *adapters]
        case "keyword_libs":
            return [(root / "keyword_libs", "") for root in (wheel, checkout)]
    raise ValueError(f"nothing of the kind '{kind}' is shipped; there are policies, models and keyword_libs.")


def shipped(kind: Kind, name: str, *, package: Path = _PACKAGE) -> Path | None:
    """
    The file or folder shipped under *name*, or ``None``; policies and adapters are files, models and libraries folders.

    Names are plain: whatever has a separator or a leading dot is a path, not a shipped name.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        return None
    for folder, suffix in _places(kind, package):
        path = folder / (name + suffix)
        if path.is_file() if suffix else path.is_dir():
            return path
    return None


def names(kind: Kind, *, package: Path = _PACKAGE) -> list[str]:
    """Every shipped name of a kind, sorted; hidden files and Python's own folders are not among them."""
    found = set()
    for folder, suffix in _places(kind, package):
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            if path.name.startswith((".", "_")):
                continue
            if suffix and path.suffix == suffix and path.is_file():
                found.add(path.stem)
            elif not suffix and path.is_dir():
                found.add(path.name)
    return sorted(found)
