"""Prediction files, and everything that is computed from them; no Keras."""
