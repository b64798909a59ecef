"""The two clocks: wall time for a start, monotonic time for everything measured. Tests may fix both."""

import time

wall = time.time_ns
monotonic = time.perf_counter_ns
