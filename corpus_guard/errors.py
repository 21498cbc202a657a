"""
What can go wrong, as classes a caller can tell apart.

The class says what the run does next; the message is one finished sentence (what, where, what to
do). No class has an ``__init__`` of its own, so every error survives the trip from a worker.
"""


class CorpusGuardError(Exception):
    """Anything of ours that stops the command. Exit code 1 unless a subclass says otherwise."""

    exit_code = 1


class UsageError(CorpusGuardError):
    """The command, a config file or a folder it names cannot be used. Nothing was changed."""

    exit_code = 2


class GateError(CorpusGuardError):
    """A gate or a check found faults (``--gate``, ``doctor``, ``keywords check``, ``verify``)."""

    exit_code = 3


class EvidenceMissing(CorpusGuardError):
    """A conclusion was asked for, and evidence for it is not there yet."""

    exit_code = 4


class DataError(CorpusGuardError):
    """Bytes of the corpus cannot be read. Trying again gives the same: named in ``failed/``, the rest goes on."""


class TransientError(CorpusGuardError):
    """Storage or the cluster failed for a while (5xx, preemption). Retried without counting an attempt."""
