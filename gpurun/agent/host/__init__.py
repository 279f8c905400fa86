"""Describe this host: its hardware, its engine, its locks."""
