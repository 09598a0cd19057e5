"""The care of commands for a run in progress."""
