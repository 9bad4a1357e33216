"""Accuracy won back without training: what is changed before calibration, and what after it."""
