"""What each command does: flat lists of steps, without a word to the terminal."""
