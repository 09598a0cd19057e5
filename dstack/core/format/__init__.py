"""The form of the bucket: keys and records. docs/format.md is normative."""
