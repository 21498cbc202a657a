"""
From a model folder to the recipe that workers build its stage from.
"""

from pathlib import Path
from typing import Literal

from corpus_guard.classifiers.modelfile import load_model
from corpus_guard.classifiers.ngram import CODE_VERSION, NgramRecipe
from corpus_guard.classifiers.transformer import Device, Precision, TransformerRecipe, transformer_recipe


def recipe(
    model: str | Path,
    device: Device | Literal["gpu"] = "auto",
    batch_tokens: int | None = None,
    precision: Precision = "float32",
) -> NgramRecipe | TransformerRecipe:
    """
    The recipe of the *model* of that shipped name or in that folder; ``UsageError`` names every fault of the folder.

    *device*: ``auto`` takes a GPU where this machine has one. *batch_tokens*: tokens of one
    forward pass, padding included. Both are of no account to an n-gram screen, which runs on CPUs.
    """
    loaded = load_model(model)
    if loaded.is_ngram:
        return NgramRecipe(loaded, loaded.name, loaded.digest("ngram", CODE_VERSION))
    return transformer_recipe(loaded, "cuda" if device == "gpu" else device, batch_tokens, precision)
