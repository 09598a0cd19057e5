"""Commands that keep a bucket in order."""
