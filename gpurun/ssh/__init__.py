"""SSH: the user's own OpenSSH carries everything; Paramiko and Fabric only explain what it leaves unsaid."""
