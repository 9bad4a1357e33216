"""What each command does: arguments to library calls, results to the display."""
