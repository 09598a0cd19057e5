"""The user's code as snapshots, by git."""
