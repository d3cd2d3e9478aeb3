"""Measurements. Each is run by hand (``make bench``); no test compares one with a fixed time."""
