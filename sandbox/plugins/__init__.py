"""Stand-ins for Pulumi provider plugins: same inputs, same state, same HTTP requests as the real ones.

`framework` is what a plugin derives, `values` its property values, `serving` speaks Pulumi's plugin protocol;
`bridge` and `schema` do what the Terraform bridge adds to every resource; `ovh`, `openstack` and `kubernetes`
are the plugins. Each is started by the engine as
`python -m sandbox.plugins.<name> <engine address>`.
"""
