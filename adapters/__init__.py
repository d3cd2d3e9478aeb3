"""The edges: one file for each thing outside this program that more than one part touches."""
