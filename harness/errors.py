"""Errors that a user can mend. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

# What the code of a cell, a plug-in's for example, may raise. A worker process is not told of Ctrl-C.
CELL_ERRORS = (Exception, SystemExit, KeyboardInterrupt)


class BalbenchError(Exception):
    """Something in the input, the settings or the machine is wrong; the message names the place and the remedy."""


class StudyError(BalbenchError):
    """A study file or a flag is wrong."""


class DataError(BalbenchError):
    """A data file, a text or a feature array is wrong."""


class RunDirectoryError(BalbenchError):
    """A run directory is in use, belongs to another study, or cannot be written."""


class ClusterError(BalbenchError):
    """A cluster is gone, or its workers cannot do what they were asked."""
