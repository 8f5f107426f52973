"""What Roundhouse costs in front of a real vLLM: the same engine, directly and through it."""
