"""Run a study with more and more seeds, until the intervals of its savings are narrow enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from balbench.harness.errors import StudyError
from balbench.harness.machine import count

if TYPE_CHECKING:
    from balbench.harness.results import Run
    from balbench.harness.study.study import Study
    from balbench.reports.stopping import StoppingRule, Widest


def stopping_rule(until_width: float | None, max_seeds: int | None) -> StoppingRule | None:
    """Return the rule of the arguments of `run_study`; None if no seeds are added.

    Raises:
        StudyError: there is a largest number of seeds, but no width.
    """
    from balbench.reports.stopping import StoppingRule

    if until_width is not None:
        return StoppingRule(until_width) if max_seeds is None else StoppingRule(until_width, max_seeds)
    if max_seeds is not None:
        raise StudyError(f"max_seeds {max_seeds}: has no effect without `until_width`; give both", setting="max_seeds")
    return None


def run_in_blocks(
    study: Study, rule: StoppingRule | None, run_cells: Callable[[Study], Run], say: Callable[[str], None]
) -> tuple[Study, Run]:
    """Run a study, and with a rule add blocks of seeds; return the study with all seeds that ran, and its results.

    Finished cells never run again, so an interrupted study repeats its looks and continues.

    Args:
        study: the study of the first look.
        rule: decides after each look whether more seeds are needed; None runs the study once.
        run_cells: runs the unfinished cells of a study and returns its results.
        say: called with one line after each look. The last line says why no seeds are added.

    Raises:
        BalbenchError: the rule does not fit the study, or as in `run_cells`.
    """
    if rule is None:
        return study, run_cells(study)
    from balbench.harness.study.study import Study, with_more_seeds
    from balbench.reports.savings_table import savings_table
    from balbench.reports.stopping import widest

    if type(study) is not Study:
        raise StudyError("until_width: a transfer has the seeds of its run; run that with more", setting="until_width")
    rule.check(len(study.file.seeds))
    others = (cell for cell in study.header["cells"] if not cell["full_data"])
    if all(cell["policy"] == study.file.reference for cell in others):
        raise StudyError("until_width: no policy is compared with the reference; add a policy", setting="until_width")
    widths: list[float] = []
    for seeds in rule.looks(len(study.file.seeds)):
        study = with_more_seeds(study, seeds)
        run = run_cells(study)
        if (run.cells["state"] != "finished").any():
            say("cells failed, so no seeds are added")
            break
        look = widest(savings_table(run))
        widths.append(look.width)
        say(_line(look, seeds, rule, rule.is_narrow(widths)))
        if rule.is_narrow(widths):
            break
    return study, run


def _line(look: Widest, seeds: int, rule: StoppingRule, is_narrow: bool) -> str:
    setting = f" ({look.setting})" if look.setting else ""
    width = "is not bounded" if math.isinf(look.width) else f"is {look.width:.3g} wide"
    line = f"{count(seeds, 'seed')}: the widest 95% interval on test, of {look.policy}{setting}, {width}"
    if is_narrow:
        return f"{line}; all are narrow enough at two looks in a row, so no seeds are added"
    if seeds == rule.max_seeds:
        return f"{line}; this is the largest number of seeds, so none are added"
    return f"{line}; more seeds run"
