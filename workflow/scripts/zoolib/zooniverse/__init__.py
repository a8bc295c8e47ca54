"""Zooniverse and back: galaxies for volunteers to look at, and the votes that they give."""
