"""The events of a run, and the bar that shows them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union


@dataclass(frozen=True)
class Event:
    """One report of a long task.

    Attributes:
        stage: A short, stable word for what is being done.
        done: How many units are done.
        total: How many there are in all; 0 where that is not known.
        unit: "blocks", "tokens", "bytes" and the like; empty for a message.
        message: A text for the user; often empty.
        left: Seconds to the end of the stage, where `done` and `total` do not
            tell them; otherwise None.
    """

    stage: str
    done: int
    total: int
    unit: str
    message: str
    left: float | None


#: True shows a bar (a notebook's in a notebook), a function is called with each
#: Event and stops the run by returning False, None and False show nothing.
Progress = Union[bool, Callable[[Event], object], None]
Listener = Callable[[str, int, int, str, str, Union[float, None]], object]


class Bar:
    """A bar for each stage in turn, by tqdm."""

    def __init__(self) -> None:
        from tqdm.auto import tqdm  # takes time to import
        self._tqdm: Any = tqdm
        self._bar: Any = None
        self._of: tuple[str, str, int] | None = None

    def __call__(self, stage: str, done: int, total: int, unit: str, message: str,
                 left: float | None) -> None:
        if not unit:
            if message:
                self._tqdm.write(f"{stage}: {message}", file=sys.stderr)
            return
        of = (stage, unit, total)
        if self._bar is None or of != self._of or done < self._bar.n:
            self.close()
            self._of = of
            self._bar = self._tqdm(
                desc=stage, total=total or None, unit="B" if unit == "bytes" else
                f" {unit}", unit_scale=unit == "bytes", dynamic_ncols=True)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the bar that is shown and leaves it as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def listener_of(progress: Progress) -> Listener | None:
    """The function that the program is to call for each event, if any."""
    if progress is None or progress is False:
        return None
    if progress is True:
        return Bar()
    tell = progress

    def hear(*event: Any) -> object:
        return tell(Event(*event))

    return hear
