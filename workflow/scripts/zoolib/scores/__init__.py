"""Predictions compared with the truth: with votes, with labels, and with known probabilities."""
