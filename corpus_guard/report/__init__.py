"""The report: evidence, provisions, and how they are told."""
