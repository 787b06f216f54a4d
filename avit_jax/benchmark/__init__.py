"""`--mode benchmark`: executions of one model against each other, in one process."""
