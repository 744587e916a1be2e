"""Campaigns: their state machines, stop rules, retries and statistics. Pure."""
