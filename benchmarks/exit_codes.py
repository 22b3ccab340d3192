"""Exit codes of the command line besides 0."""

FAILED_CELLS = 1
INVALID_INPUT = 2
INTERRUPTED = 130
CLOSED_PIPE = 141  # the reader of the output closed it, as `head` does
TERMINATED = 143
