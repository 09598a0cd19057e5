"""The ways in which a host runs the commands of an attempt."""
