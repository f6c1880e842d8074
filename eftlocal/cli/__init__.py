"""The terminal: one file per command, heavy imports inside commands."""
