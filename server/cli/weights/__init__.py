"""The commands for weights on this disk: `pull`, `ls`, `show`, `rm`, `du`. They need no server."""
