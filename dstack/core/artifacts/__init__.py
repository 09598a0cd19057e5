"""Artifacts as values: safe paths, manifests, and the pieces of large files."""
