"""Tables, images and shards: what galaxies are, where their pixels lie, and how they are divided."""
