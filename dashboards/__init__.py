"""The dashboards, written in Python and built into json/ by scripts/generate.py."""
