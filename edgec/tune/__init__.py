"""Tuning: finding better schedules of kernels by measuring them, and keeping what was found."""
