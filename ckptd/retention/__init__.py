"""What stays, and why. Pure: the clock is an argument, and no path or file is in reach."""
