"""
Which of the 31 risks a set of models covers, and on what evidence.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from corpus_guard.classifiers.modelfile import Evidence, ModelFile, Status
from corpus_guard.taxonomy import CODES


@dataclass(frozen=True, slots=True)
class Covered:
    """
    What one model has to say about one risk.

    ``positives``: documents with the risk that it was measured on. ``on``: it has a threshold and decides.
    ``candidate``: only a broader label points to the risk, so the risk itself is never named.
    """

    model: str
    positives: int | None
    status: Status
    on: bool
    candidate: bool = False


def coverage(models: Iterable[ModelFile]) -> dict[str, list[Covered]]:
    """For each of the 31 risks, the models with a label for it; an empty list is a risk no model looks for."""
    found: dict[str, list[Covered]] = {code: [] for code in CODES}
    for model in models:
        for code in CODES:
            labels = [label for label in model.labels if code in label.risks]
            decided = [label for label in labels if label.decided]
            evidence = model.evaluation.get(code, Evidence("no data"))
            if labels:
                on = any(label.upper is not None for label in decided or labels)
                found[code].append(Covered(model.name, evidence.positives, evidence.status, on, not decided))
    return found
