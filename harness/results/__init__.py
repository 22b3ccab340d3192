"""Results on disk: the run directory, the logs of its cells, and a run as tidy frames.

    RUN/study.json                               the resolved study, its cells, reference lines
    RUN/lock                                     locked while a run uses the directory
    RUN/data/<key>/                              facts about each data set; the cache has its arrays
        data.json                                counts, reference lines, data files
        pair_ids.json.gz                         identifiers of the pool's pairs
        held_out.safetensors                     votes, prompts and distances of the held-out pairs (see `HeldOut`)
    RUN/cells/<policy>-seed<n>-<key>/
        cell.json                                the cell's key, and hashes of the source of plug-ins
        rounds.jsonl                             one line per round: metrics, labels bought (deterministic)
        predictions.f16                          logits of held-out pairs, one row per round (see `predictions`)
        timings.jsonl                            seconds of each stage (a separate file, because they always differ)
        manifest.json                            written last: the number of finished rounds
        failed.json                              the reason of a failure (removed when the cell runs again)

A cell is finished if its manifest says so. A torn last line is dropped, and its round runs again. A round's row of
predictions is written before its line.
"""

from balbench.harness.results.cell_log import CellLog
from balbench.harness.results.directory import RunDirectory
from balbench.harness.results.held_out import HeldOut
from balbench.harness.results.run import Run, read_run

__all__ = ["CellLog", "HeldOut", "Run", "RunDirectory", "read_run"]
