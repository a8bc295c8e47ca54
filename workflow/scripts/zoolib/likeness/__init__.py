"""Which galaxies look alike: files of representations, and the rankings that follow from them; no Keras."""
