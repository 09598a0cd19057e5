"""One attempt on a host, from a held slot to its exit report."""
