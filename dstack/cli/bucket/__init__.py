"""Commands to keep a bucket in order."""
