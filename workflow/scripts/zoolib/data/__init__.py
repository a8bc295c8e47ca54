"""Tables, images and shards: votes and labels of galaxies, where their pixels are, and their splits."""
