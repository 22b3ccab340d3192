"""The rate of long work and the time left."""

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
