"""What the app's own providers get to see of ours; set by providers/joining.py, None while the app has none.

The core asks here on its way, so that it need not know OpenTelemetry's providers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watchkeep.export.model import LogData, Scope
    from watchkeep.names import Metric

Show = Callable[["Metric", "Scope", "dict[str, Any]", float, int, int], None]
"""(metric, scope, labels by key, value, trace id, span id)."""

show: Show | None = None
"""Records a measurement with the app's MeterProvider."""
show_observed: Callable[[Metric, Scope], None] | None = None
"""Lets the app's MeterProvider ask what we ask at each collection."""
show_scope: Callable[[Scope], None] | None = None
"""Gets a meter from the app's MeterProvider, which gives out none once it is being shut down."""
show_log: Callable[[LogData, bool], bool] | None = None
"""Emits an event or a line with the app's LoggerProvider, unless it was shown already; says whether it is ours to
send, too."""
spans_are_ours = False
"""Whether spans that live in the app's TracerProvider are ours to send, because we cannot read along in it."""
