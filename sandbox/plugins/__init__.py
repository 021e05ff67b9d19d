"""Stand-ins for Pulumi provider plugins: same inputs, same state, same HTTP requests as the real ones.

`framework` speaks Pulumi's plugin protocol, `bridge` does what the Terraform bridge adds to every resource,
`ovh`, `openstack` and `kubernetes` are the plugins. Each is started by the engine as
`python -m sandbox.plugins.<name> <engine address>`.
"""
