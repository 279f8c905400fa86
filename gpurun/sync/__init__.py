"""Moving bytes between laptop and host with rsync."""
