"""The outside world, a folder for each outside thing; no folder knows another."""
