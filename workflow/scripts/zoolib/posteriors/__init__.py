"""Prediction files, and all that follows from the concentrations in them; no Keras."""
