"""corpus_guard: filter LLM pre-training corpora, decide their sources, prove it clause by clause."""

__version__ = "0.1.0"
