"""Policies that misbehave, for tests of the scheduler. Worker processes import them from here."""

import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from balbench.harness.policies.random import Random


class Mortal(Random):
    """Kills its process: always, or once for each path in BALBENCH_TEST_DIE."""

    family: ClassVar[str] = "test"

    def select(self, view, batch_size, stream):
        when = os.environ.get("BALBENCH_TEST_DIE", "")
        if when == "always" or (view.round == 1 and not Path(when).exists()):
            if when != "always":
                Path(when).touch()
            os.kill(os.getpid(), 9)
        return super().select(view, batch_size, stream)


class Broken(Random):
    """Raises an error."""

    family: ClassVar[str] = "test"

    def select(self, view, batch_size, stream):
        raise RuntimeError("this policy is broken")


class Leaving(Random):
    """Ends Python, as a plug-in that was once a script may."""

    family: ClassVar[str] = "test"

    def select(self, view, batch_size, stream):
        raise KeyboardInterrupt if view.round else SystemExit(3)


class Unwritable(Random):
    """Says something that JSON cannot hold, in its second round."""

    family: ClassVar[str] = "test"

    def select(self, view, batch_size, stream):
        selection = super().select(view, batch_size, stream)
        return replace(selection, diagnostics={"strange": float("nan") if view.round == 1 else 0.0})
