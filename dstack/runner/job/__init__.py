"""One attempt on a host, from a held slot to the exit report."""
