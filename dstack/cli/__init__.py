"""The command line: a file for each command; arguments to calls, results to output."""
