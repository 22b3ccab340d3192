"""Run the command line by `python -m balbench`."""

from balbench.benchmarks.cli import main

main()
