"""Text as stages see it: one normaliser for corpus and library alike, with spans that lead back to the raw text."""
