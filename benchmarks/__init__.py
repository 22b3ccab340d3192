"""The command line, the studies that come with balbench, and the speed benchmarks."""
