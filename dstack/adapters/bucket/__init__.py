"""Kinds of storage that can be a bucket."""
