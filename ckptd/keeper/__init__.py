"""One model directory's life: survey, plan, sweep, pin, undo, record."""
