"""What all of the runner stands on: processes, locks, safe paths, the channel."""
