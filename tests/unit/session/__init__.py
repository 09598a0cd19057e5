"""Tests of sessions, below every face."""
