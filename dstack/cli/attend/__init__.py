"""The care of a command for a run that goes on."""
