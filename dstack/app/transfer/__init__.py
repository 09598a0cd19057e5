"""Artifacts and logs between hosts and the bucket."""
