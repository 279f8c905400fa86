"""What a job finds in its `ro/`: services, the plugin, the wrapper, secrets, sockets."""
