"""What a model directory holds, told from its listing: checkpoints, parts of them, and strangers."""
