"""YAML with positions: the parser, the schema of every file, and the report of problems."""
