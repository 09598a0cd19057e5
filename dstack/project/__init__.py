"""The user's files, read and checked, and the plan of a run. Reads files; runs nothing, asks no network."""
