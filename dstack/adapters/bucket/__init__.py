"""Stores that can be a bucket, and the credentials for them."""
