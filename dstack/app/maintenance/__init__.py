"""Keeping a bucket in order: its first use, prune, disk usage, fsck, and what only a person can record."""
