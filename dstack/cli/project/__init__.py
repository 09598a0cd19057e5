"""Commands about the files and secrets of the project."""
