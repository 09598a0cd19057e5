"""Timings of dstack against their anchors, side by side in one run: printed, never asserted."""
