"""Exit codes of the command line besides 0."""

FAILED_CELLS = 1
REGRESSED = 1  # of `gate`: a policy got worse
INVALID_INPUT = 2
CANNOT_TELL = 3  # of `gate`: neither worse nor good enough by the seeds at hand
INTERRUPTED = 130
CLOSED_PIPE = 141  # the program that reads the output closed its end, as `head` does
TERMINATED = 143
