"""What users write: job files, the project's defaults, and hosts.toml."""
