"""Measurements: one script a question, run as `python -m bench.NAME`; the last line printed is JSON."""
