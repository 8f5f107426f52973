"""Roundhouse's server: one OpenAI-compatible API over local engines and remote providers."""
