"""Transfer files between laptop and host with rsync."""
