"""A shell's reading of a command: quotes, references, interpreters."""
