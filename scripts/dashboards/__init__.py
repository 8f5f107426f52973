"""Grafana's dashboards from a short description each: `python -m scripts.dashboards [--check]`."""
