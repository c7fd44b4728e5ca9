"""The parts of a probe: what it notes, what it may spend, and one module for each thing that it asks."""
