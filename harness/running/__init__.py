"""The scheduler of cells, the engines that run tasks, and the data of a run."""
