"""Published weights, read into the layers of `learning`."""
