"""OVHcloud AI Deploy as Pulumi resources: apps, tokens, the readiness gate, and who they belong to.

`spec` and `plan` are pure, `client` and `api` do HTTP and know no Pulumi. `ownership`, `creation`, `change`,
`removal`, `adoption`, `gate` and `tokens` say what happens in which order, `providers` and `resources` are
what Pulumi sees of it.
"""
