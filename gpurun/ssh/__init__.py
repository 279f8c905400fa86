"""Connect by the user's own OpenSSH. Paramiko and Fabric only find out why a connection failed, and install keys."""
