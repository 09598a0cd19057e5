"""Questions about runs, answered from the bucket. Reads only."""
