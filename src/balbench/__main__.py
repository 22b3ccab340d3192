"""Run the command line by `python -m balbench`."""

from balbench.benchmarks.main import main

if __name__ == "__main__":
    main()
