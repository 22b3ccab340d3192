"""Results on disk: the run directory, the logs of its cells, and a run as tidy frames.

    RUN/study.json                           the resolved study, its cells, known reference lines
    RUN/lock                                 held while a run works here
    RUN/data/<key>/data.json, pairs.json     facts and pair names of each data set; the arrays are in the cache
    RUN/cells/<policy>-seed<n>-<key>/
        cell.json                            the cell's key, and hashes of the source of plug-ins
        rounds.jsonl                         one line per round: metrics, labels bought (deterministic)
        timings.jsonl                        seconds of each stage (a file of its own, as seconds differ on each run)
        manifest.json                        written last: so many rounds are finished
        failed.json                          why the cell failed (removed when it is tried again)

A cell is finished if its manifest says so. A torn last line is dropped, and its round runs again.
"""

from balbench.harness.results.cell_log import CellLog
from balbench.harness.results.directory import RunDirectory
from balbench.harness.results.run import Run, read_run

__all__ = ["CellLog", "Run", "RunDirectory", "read_run"]
