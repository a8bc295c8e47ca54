"""A simulated survey in the layout of the record, whose truth is known."""
