"""Load tests of an OpenAI-compatible endpoint: `python -m loadtest`, or `make loadtest`.

Traffic is that of `autoscaling.traffic`; definitions and field names are those of `vllm bench serve` 0.13:

- TTFT: from the start of a request to the first chunk that has content.
- ITL: the gap between two chunks. Chunks that arrive together are 0 apart.
- E2E: from the start to the last event of the answer, or to the end of one that is not streamed.
- TPOT: (E2E - TTFT) / (output tokens - 1), for answers of at least two tokens.
- Goodput: requests per second that keep all of the objectives.

The start of a request is when it was to be sent, not when the client came to it: an open loop does not
forgive a server for which it had to wait, nor hide that it was late itself (`lags`).
"""
