"""Generates the reference pages from the code, and checks that they and all links are right."""
