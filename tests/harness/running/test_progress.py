"""The display of progress: plain lines, a live table, the rate of long work and the time left."""

import io
from dataclasses import replace

from rich.console import Console

from balbench.harness.running.progress import RATE_SECONDS, CellState, Display, Rate


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_rate_is_over_the_last_half_minute():
    clock = Clock()
    rate = Rate("work", clock)
    assert rate.text(0, 10_000) == ""
    clock.now = 10.0
    assert rate.text(1000, 10_000) == ", 100 a second, about 2 min left"
    clock.now = 10.0 + RATE_SECONDS
    assert rate.text(1000 + int(20 * RATE_SECONDS), 10_000).startswith(", 20 a second")


def test_work_from_a_cache_does_not_raise_the_rate_for_long():
    clock = Clock()
    rate = Rate("work", clock)
    rate.text(9000, 10_000)
    clock.now = 20.0
    assert rate.text(9010, 10_000) == ", 30 a minute, about 33 min left"


def test_no_rate_before_it_is_known_or_when_all_is_done():
    clock = Clock()
    rate = Rate("work", clock)
    rate.text(0, 100)
    clock.now = 0.1
    assert rate.text(50, 100) == ""
    clock.now = 5.0
    assert rate.text(100, 100) == ""


def test_a_notebook_shows_one_output_that_is_replaced(monkeypatch):
    shown = []

    class Output:
        def update(self, renderable):
            shown.append(renderable._repr_mimebundle_(["text/plain"], [])["text/plain"].strip())

    monkeypatch.setattr("IPython.display.display", lambda renderable, display_id: Output())
    with Display(Console(force_jupyter=True, force_terminal=False)) as display:
        display.data("encoding", 3, 10)
        display.cells([CellState("bald", "running", 1, 4, 10, 100, 1.0)], 1)
    assert "encoding: 3 of 10" in shown[0]
    assert "1 of 4 rounds" in shown[1]
    assert shown[2] == ""
    assert Display(Console(force_jupyter=True, force_terminal=False, quiet=True))._live is None


def test_plain_lines_at_intervals_without_a_terminal(monkeypatch):
    output = io.StringIO()
    states = [CellState("random", "finished", 3, 3, 60, 60, 0.0), CellState("bald", "running", 1, 3, 10, 60, 0.0)]
    with Display(Console(file=output, width=100)) as display:
        display.cells(states, 2)  # the first line is not due yet
        display.data("simulate", 4, 4)  # finished before the first line is due
        monkeypatch.setattr("balbench.harness.running.progress.PLAIN_SECONDS", 0.0)
        display.cells(states, 2)
        display.data("encode", 5, 10)
        display.data("encode", 10, 10)
    expected = ["1 of 2 cells, 4 of 6 rounds, time left unknown yet", "encode: 5 of 10", "encode: 10 of 10"]
    assert output.getvalue().splitlines() == expected


def test_the_time_left_does_not_include_the_start_of_workers(monkeypatch):
    """20 labels took 4 s, and 40 labels are left on one slot or on two; the work of an earlier run does not count."""
    monkeypatch.setattr("balbench.harness.running.progress.PLAIN_SECONDS", 0.0)
    output, states = io.StringIO(), [CellState("random", "running", 2, 3, 30, 70, 0.0)]
    with Display(Console(file=output, width=100)) as display:
        display.cells(states, 1)
        states = [replace(states[0], work_done=50, seconds=4.0), CellState("bald", "waiting", 0, 1, 0, 20, 0.0)]
        display.cells(states, 1)
        display.cells(states, 2)
        display.cells(states, 0)  # a cluster without workers
        display.cells([states[0], replace(states[1], state="failed")], 1)
    time_left = [line.rpartition(", ")[2] for line in output.getvalue().splitlines()]
    assert time_left == ["time left unknown yet", "about 8 s left", "about 4 s left", time_left[0], "about 4 s left"]


def test_a_live_table_in_a_terminal():
    output = io.StringIO()
    with Display(Console(file=output, width=100, force_terminal=True)) as display:
        random = CellState("random", "finished", 3, 3, 60, 60, 0.0)
        display.cells([random, CellState("bald", "failed", 1, 3, 10, 60, 0.0)], 1)
        display._live.refresh()
        display.data("encoding texts", 250, 1000)
        display._live.refresh()
    assert "encoding texts: 250 of 1,000" in output.getvalue()
    assert "1 of 2 cells, 4 of 6 rounds, 1 failed" in output.getvalue()
