"""Published weights, put into the layers of `learning`."""
