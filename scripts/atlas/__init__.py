"""The atlas family: its world, its corpus, its training and its export."""
