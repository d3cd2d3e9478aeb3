"""The wire language: everything that one part of modelwire writes and another reads.

Pure: no Kafka, no object store, no clock. What is defined here is a promise to other programs and to
later versions, so its JSON Schemas are checked in under ``published/``.
"""
