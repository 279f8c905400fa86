"""Write the files in a run's ro/, and its secrets and sockets."""
