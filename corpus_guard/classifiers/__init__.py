"""
Classification models: what a model folder says, how its model is run, and what its scores mean.

``load_model`` reads a folder without the model's library, ``recipe`` says how workers run it, ``coverage`` tells
which of the 31 risks a set of models covers, and on what evidence.
"""

from corpus_guard.classifiers.coverage import Covered, coverage
from corpus_guard.classifiers.modelfile import ModelFile, load_model
from corpus_guard.classifiers.recipe import recipe

__all__ = ["Covered", "ModelFile", "coverage", "load_model", "recipe"]
