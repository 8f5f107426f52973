"""Policies of routing on two real engines: what each is good for, in figures."""
