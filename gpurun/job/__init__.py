"""What is sent to a host and run there: the job spec and the files that travel."""
