"""What the bucket says of runs. Reads only."""
