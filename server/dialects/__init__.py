"""Wire formats: pure functions, no I/O. See `openai` for the four that each dialect has."""
