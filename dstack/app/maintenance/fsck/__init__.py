"""`dstack fsck`: a bucket held against docs/format.md."""
