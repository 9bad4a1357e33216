"""Autotuning: better choices for the knobs of the schedules, found by measuring."""
