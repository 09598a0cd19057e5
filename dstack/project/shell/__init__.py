"""What a shell does with a command: quotes, references, interpreters."""
