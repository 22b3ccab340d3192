"""Memory and time of reading a made-up file of preferences: `python benchmarks/speed/reading.py ROWS`."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path


def write(path: Path, rows: int) -> None:
    """Write rows with two pairs a prompt, about 880 bytes each."""
    draw = random.Random(0)
    words = [f"w{number:05d}" for number in range(20_000)]
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            prompt = f"question {row // 2} " + " ".join(random.Random(row // 2).choices(words, k=35))
            chosen, rejected = (" ".join(draw.choices(words, k=40)) for _ in range(2))
            pair = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "annotator": f"a{row % 500}"}
            file.write(json.dumps(pair) + "\n")


def memory() -> str:
    """Return the resident memory of this process, in MB: now, at most, and the part that is mapped from files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"VmRSS": "resident", "VmHWM": "peak", "RssFile": "mapped"}
    return ", ".join(f"{shown} {int(fields[name].split()[0]) / 1000:,.0f} MB" for name, shown in names.items())


def main(rows: int) -> None:
    """Write a file, read it, group its prompts and split them."""
    from balbench.harness.datasets.preference_file import PreferenceFile
    from balbench.harness.datasets.text_facts import text_lines

    print(f"before: {memory()}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.jsonl"
        write(path, rows)
        print(f"file: {path.stat().st_size / 1e6:,.0f} MB")
        started = time.process_time()
        pairs, groups, splits = PreferenceFile(path=str(path)).read_splits()
        print(f"read, grouped and split in {time.process_time() - started:.0f} s of processor time: {memory()}")
        print(*text_lines(pairs, groups, splits), sep="\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
