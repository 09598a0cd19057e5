"""Commands about artifacts of jobs."""
