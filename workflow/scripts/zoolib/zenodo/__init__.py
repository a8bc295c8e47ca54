"""The record: over HTTP, and inside its zip archives."""
