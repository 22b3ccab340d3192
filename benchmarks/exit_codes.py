"""Exit codes of the command line besides 0."""

FAILED_CELLS = 1
INVALID_INPUT = 2
INTERRUPTED = 130
CLOSED_PIPE = 141  # the program that reads the output closed its end, as `head` does
TERMINATED = 143
