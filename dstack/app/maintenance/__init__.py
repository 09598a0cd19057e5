"""Keeping a bucket in order: its first use, prune, disk usage, fsck, and attempts called lost by a person."""
