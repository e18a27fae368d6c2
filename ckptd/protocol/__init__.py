"""What programs and the daemon say to each other: messages, and how they travel."""
