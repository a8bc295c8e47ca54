"""Predictions beside what they should have been: votes, labels, and a known truth."""
