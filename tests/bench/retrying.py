"""Functions under a retry policy that pass at their first try: `retrying.py bare|watched FORM COUNT`."""

from __future__ import annotations

import os
import sys

import watchkeep

if sys.argv[1] == "watched":
    watchkeep.instrument()

import backoff
import opentelemetry.context
import opentelemetry.trace  # noqa: F401
import tenacity


def work() -> int:
    return 1


FORMS = {
    "tenacity": tenacity.retry(stop=tenacity.stop_after_attempt(3))(work),
    "backoff": backoff.on_exception(backoff.expo, ValueError)(work),
}

function = FORMS[sys.argv[2]]
for _ in range(int(sys.argv[3])):
    function()
os._exit(0)
