"""A large file is read without its texts in memory."""

import json
import random
import subprocess
import sys

import pytest

ROWS, WORDS = 60_000, 250
MIB = 1 << 20
CODE = """
import resource, sys
import datasets, pyarrow.compute, scipy.sparse.csgraph, pandas
from balbench.harness.datasets.preference_file import PreferenceFile
PreferenceFile(path=sys.argv[1]).read_splits()
used = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmData:")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[3]), -1))
pairs, _, splits = PreferenceFile(path=sys.argv[2]).read_splits()
print(len(pairs.pair_id_N), pairs.prompt_P[len(pairs.prompt_P) - 1][:9])
"""


def write(path, rows):
    draw = random.Random(0)
    words = [f"{draw.randrange(10**5):05d}" for _ in range(5000)]
    size = 0
    with path.open("w") as file:
        for n in range(rows):
            texts = [" ".join(draw.choices(words, k=WORDS)) for _ in range(3)]
            row = {"prompt": f"{n:08d} {texts[0]}", "chosen": texts[1], "rejected": texts[2], "annotator": f"a{n % 99}"}
            size += file.write(json.dumps(row) + "\n")
    return size


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_a_file_is_read_in_much_less_memory_than_its_texts_have(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "small.jsonl", 100)
    size = write(tmp_path / "large.jsonl", ROWS)
    limit = 150 * MIB
    assert size > 1.7 * limit
    arguments = [str(tmp_path / "small.jsonl"), str(tmp_path / "large.jsonl")]
    output = subprocess.run([sys.executable, "-c", CODE, *arguments, str(limit)], capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    assert output.stdout.split() == [str(ROWS), f"{ROWS - 1:08d}"]
