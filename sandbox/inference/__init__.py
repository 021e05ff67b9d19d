"""AI Deploy's serving side: the gateway in front of an app, and vLLM replicas behind it."""
