"""`hosts.yaml`: read, edited, and shared with a team."""
