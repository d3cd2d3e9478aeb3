"""Audit: every answer kept, found, explained and derived again."""
