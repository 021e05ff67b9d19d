"""AI Deploy's scaler and a vLLM replica as pure functions, used by the sandbox and by rehearsals."""
