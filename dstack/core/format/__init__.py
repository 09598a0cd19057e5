"""The form of what stands in the bucket: keys and records. docs/format.md is normative."""
