"""Real hosts for the system tests: sshd in Docker containers, or this machine's own sshd."""
