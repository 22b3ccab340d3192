"""Repositories of the hub, from local directories with their layout."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from balbench.harness.datasets.hub import ADAPTERS, HubData
from support.faults import one_line
from support.tiny_models import POSITIONS, save_bert

ROWS = 12


def chat(prompt, answer):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def tldr(n, article=None):
    info = {"id": f"t{n}", "post": None if article else f"post {n}", "title": "t", "article": article}
    summaries = [{"text": f"short {n}", "policy": "a"}, {"text": f"long {n}", "policy": "b"}]
    return {"info": info, "summaries": summaries, "choice": n % 2, "worker": f"w{n % 3}"}


def hh(n):
    talk = f"\n\nHuman: question {n}\n\nAssistant:"
    return {"chosen": f"{talk} yes {n}", "rejected": f"{talk} no {n}"}


def ultrafeedback(n):
    prompt = f"question {n}"
    scores = {"score_chosen": 8.0, "score_rejected": 8.0 - n}
    return {
        "prompt": prompt,
        "prompt_id": str(n),
        "chosen": chat(prompt, "yes"),
        "rejected": chat(prompt, "no"),
        **scores,
    }


def alpaca(n):
    outputs = {"output_1": "yes", "output_2": "no"}
    return {"instruction": f"question {n}", "input": "", **outputs, "preference": 1 + n % 2, "raw_preference": 2}


def shp(n):
    return {"post_id": "p", "history": f"question {n}", "human_ref_A": "yes", "human_ref_B": "no", "labels": n % 2}


def helpsteer(n):
    responses = {"response_1": "yes", "response_2": "no"}
    return {"split": "train", "prompt": f"question {n}", **responses, "preference_strength": n % 7 - 3}


def webgpt(n):
    answers = {"answer_0": "yes", "answer_1": "no", "score_0": 0.5 * (n % 3), "score_1": 0.0}
    return {"question": {"dataset": "eli5", "full_text": f"question {n}"}, **answers}


def arena(n):
    talks = {"conversation_a": chat(f"question {n}", "yes"), "conversation_b": chat(f"question {n}", "no")}
    return {"question_id": str(n), "winner": ("model_a", "model_b", "tie")[n % 3], "judge": f"j{n}", **talks}


REPOSITORIES = {  # files with their rows, and the schema
    "openai/summarize_from_feedback": (
        {
            "comparisons/train/0000.parquet": [tldr(n) for n in range(ROWS)],
            "comparisons/validation/0000.parquet": [
                *(tldr(n) for n in range(ROWS, ROWS + 4)),
                *(tldr(n, f"article {n}") for n in range(3)),
            ],
            "axis/test/0000.parquet": [{"other": 1}],
        },
        "summarize_from_feedback",
        {"test": 4, "ood": 3},
    ),
    "Anthropic/hh-rlhf": (
        {
            "harmless-base/train.jsonl.gz": [hh(n) for n in range(ROWS)],
            "helpful-base/train.jsonl.gz": [hh(100), {"chosen": "", "rejected": ""}],
            "helpful-online/train.jsonl.gz": [hh(101)],
            "helpful-rejection-sampled/test.jsonl.gz": [hh(200), hh(201)],
            "red-team-attempts/red_team_attempts.jsonl.gz": [{"transcript": "x"}],
        },
        "HH transcripts",
        {"test": 2},
    ),
    "HuggingFaceH4/ultrafeedback_binarized": (
        {
            "data/train_prefs-00000-of-00001.parquet": [ultrafeedback(n) for n in range(ROWS)],
            "data/test_prefs-00000-of-00001.parquet": [ultrafeedback(n) for n in range(ROWS, ROWS + 3)],
            "data/train_sft-00000-of-00001.parquet": [{"prompt": "x", "messages": []}],
        },
        "UltraFeedback binarized",
        {"test": 3},
    ),
    "tatsu-lab/alpaca_farm": (
        {"alpaca_human_preference.json": [alpaca(n) for n in range(ROWS)], "alpaca_gpt4_preference.json": []},
        "AlpacaFarm or alpaca_eval",
        {},
    ),
    "stanfordnlp/SHP": (
        {
            "askbaking/train.json": [shp(n) for n in range(ROWS)],
            "askcarguys/train.json": [shp(50)],
            "askbaking/validation.json": [shp(60)],
            "askbaking/test.json": [shp(61), shp(62)],
        },
        "SHP",
        {"test": 2},
    ),
    "nvidia/HelpSteer2": (
        {
            "preference/preference.jsonl.gz": [helpsteer(n) for n in range(ROWS)],
            "train.jsonl.gz": [{"prompt": "x", "response": "y", "helpfulness": 1}],
        },
        "HelpSteer2 preference",
        {},
    ),
    "openai/webgpt_comparisons": (
        {"default/train/0000.parquet": [webgpt(n) for n in range(ROWS)]},
        "WebGPT comparisons",
        {},
    ),
    "lmsys/chatbot_arena_conversations": (
        {"data/train-00000-of-00001-cced8514c7ed782a.parquet": [arena(n) for n in range(ROWS)]},
        "chatbot arena",
        {},
    ),
}


def write(root, files):
    for name, rows in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        if name.endswith(".parquet"):
            pd.DataFrame(rows).to_parquet(path)
        elif name.endswith(".gz"):
            path.write_bytes(gzip.compress(lines.encode()))
        else:
            path.write_text(json.dumps(rows) if name.startswith("alpaca") else lines)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))


def test_every_adapter_is_tested():
    assert REPOSITORIES.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_a_repository_has_its_schema_and_splits(tmp_path, repo):
    files, schema, held_out = REPOSITORIES[repo]
    data = HubData(repo=repo, path=str(write(tmp_path / "repo", files)), eval_share=0.2)
    pairs, _, splits = data.read_splits()
    assert pairs.facts.schema == schema
    assert {name: len(splits[name]) for name in held_out} == held_out
    assert set(splits) == {"pool", "eval", "test", *held_out}
    assert len(splits["pool"]) >= ROWS - 5
    rows = np.concatenate(list(splits.values()))
    assert sorted(rows) == list(range(len(pairs.prompt_P)))


def test_prompts_of_test_that_are_in_training_files_too_belong_to_test(tmp_path):
    rows = [ultrafeedback(n) for n in range(ROWS)]
    files = {"data/train_prefs-0.parquet": rows, "data/test_prefs-0.parquet": rows[:2]}
    path = write(tmp_path / "repo", files)
    pairs, _, splits = HubData(repo="HuggingFaceH4/ultrafeedback_binarized", path=str(path)).read_splits()
    assert [pairs.prompt_P[row] for row in splits["test"]] == ["question 0", "question 1"]


def test_another_repository_is_read_by_its_columns_and_files(tmp_path):
    rows = [{"q": f"question {n}", "x": "yes", "y": "no", "vote": "xy"[n % 2]} for n in range(ROWS)]
    path = write(tmp_path / "repo", {"data/train-0.parquet": rows[:8], "data/test-0.parquet": rows[8:]})
    label = {"column": "vote", "first": "x", "second": "y"}
    fields = {"prompt": "q", "response_a": "x", "response_b": "y", "label": label}
    settings = {"repo": "a/b", "path": str(path), "fields": fields}
    by_pattern = HubData(**settings, files=["data/train-*"], test_files=["data/test-*"]).read_splits()[2]
    by_split = HubData(**settings, split="train", test_split="test").read_splits()[2]
    assert len(by_pattern["test"]) == len(by_split["test"]) == 4
    assert len(HubData(**settings, files=["data/*"]).read_splits()[0].prompt_P) == ROWS
    one_line(HubData(**settings, files=["no*"]).read, path, "no data files that match no*")


def stored(tmp_path, repo, commit, files):
    """Write files as the library of the hub stores them."""
    folder = tmp_path / "cache" / "hub" / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    return write(folder / "snapshots" / commit, files)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """A stored copy, and a hub that says which files the commit has."""
    files = {"data/train-0.parquet": [ultrafeedback(n) for n in range(ROWS)], "data/readme.md": []}
    snapshot = stored(tmp_path, "a/b", COMMIT, files)
    listed = [SimpleNamespace(rfilename=name) for name in (*files, "data/test-0.parquet")]
    info = SimpleNamespace(sha=COMMIT, siblings=listed)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: info)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_a_complete_copy_needs_no_network(tmp_path, snapshot, monkeypatch):
    encoder = str(save_bert(tmp_path / "bert"))
    data = HubData(repo="a/b", files=["data/train*"], encoder=encoder, max_length=POSITIONS)
    assert data.find() == snapshot
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", None)
    assert data.find() == snapshot
    assert data.sources()[0].setting == "dataset.repo"
    assert data.build(lambda *_: None).facts["hub"] == {"repo": "a/b", "commit": COMMIT}


def test_an_incomplete_copy_is_refused(snapshot):
    data = HubData(repo="a/b", files=["data/*"])
    for _ in range(2):
        one_line(data.find, "dataset.repo: a/b was fetched without data/test-0.parquet; try again")


def test_a_repository_that_cannot_be_fetched_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    one_line(
        HubData(repo="Anthropic/hh-rlhf").sources, "dataset.repo: Anthropic/hh-rlhf is not completely in the cache"
    )
    one_line(HubData(repo="a b").find, "dataset.repo: a b is no name of a repository")
