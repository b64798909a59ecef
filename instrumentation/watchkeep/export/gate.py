"""When an end point that failed may be asked again: the exporter's circuit breaker."""

from __future__ import annotations

import random
import time

_LONGEST = 30.0
_LONGEST_ASKED = 300.0  # a receiver that asks for more is asked again all the same


class Gate:
    """Closed for a while after each failure, twice as long each time, never before the time the receiver named."""

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.stated = 0.0  # by the receiver: not passed over even at the end
        self.error = ""

    def open(self, force: bool = False) -> bool:
        """Tell whether a request may be made; `force` passes over our own pauses."""
        return time.monotonic() >= (self.stated if force else self.until)

    def failed(self, error: str, retry_after: float | None = None) -> None:
        """Close the gate; processes that failed together must not all come back together."""
        self.failures += 1
        self.error = error
        pause = min(_LONGEST, 2.0 ** min(self.failures - 1, 10))
        if retry_after is None:
            pause *= random.uniform(0.8, 1.2)  # noqa: S311
        else:  # "0" over and over must not make us spin
            pause = max(min(retry_after, _LONGEST_ASKED), pause / 10) * random.uniform(1.0, 1.1)  # noqa: S311
        self.until = time.monotonic() + pause
        self.stated = self.until if retry_after is not None else 0.0

    def passed(self) -> None:
        """Open the gate."""
        if self.failures:
            self.failures = 0
            self.until = self.stated = 0.0
            self.error = ""
